"""The endpoints: each a few lines."""
