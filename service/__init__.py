"""The HTTP door: parse, authorize, enqueue, read back."""
