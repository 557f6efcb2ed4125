"""Arithmetic without statistics: factors, solves, conjugate gradients."""
