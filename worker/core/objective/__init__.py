"""The outer objective J(rho) with its exact derivatives."""
