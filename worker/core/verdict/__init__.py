"""What a result is worth: certificates, curvature, remarks."""
