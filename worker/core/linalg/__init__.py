"""Linear algebra without statistics: factors, solves, conjugate gradients."""
