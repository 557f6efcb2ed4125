"""Generalized linear models: losses of a linear predictor, their minimizers, and the implicit gradient through them."""
