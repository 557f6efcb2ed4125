"""Ridge regression: the minimizer of a quadratic criterion of rows."""
