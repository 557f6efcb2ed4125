"""Hypergradient methods: the total derivative of J from a fit and the partial derivative of E in theta.

Both methods are exact and agree to rounding. They differ in cost and in the fits that they can differentiate.
"""

from __future__ import annotations

from worker.core.hypergradient.auto_hypergradient import AutoHypergradient
from worker.core.hypergradient.cholesky_backprop import CholeskyBackprop
from worker.core.hypergradient.implicit import Implicit

ExactHypergradient = Implicit | CholeskyBackprop
Hypergradient = AutoHypergradient | Implicit | CholeskyBackprop

__all__ = [
    "AutoHypergradient",
    "CholeskyBackprop",
    "ExactHypergradient",
    "Hypergradient",
    "Implicit",
]
