"""Criteria that the caller brings as matrices and vectors."""
