"""Hypergradient methods: the total derivative of J from a fit and the explicit partial derivative in theta.

Both routes are exact and agree to round-off; they differ in what they can differentiate and in cost.
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
