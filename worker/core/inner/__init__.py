"""The minimizer theta(rho) of the training criterion C, and how it moves with rho."""
