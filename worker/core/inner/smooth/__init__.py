"""Generalized linear models: minimizers of smooth criteria by Newton's method."""
