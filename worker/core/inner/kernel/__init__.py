"""Kernel machines: minimizers whose theta lives on rows or landmarks."""
