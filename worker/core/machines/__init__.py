"""Kernel machines: training and selection where theta lives on rows."""
