"""Hypergradient methods: the total derivative of J from a fit and the partial derivative of E in theta.

Both methods are exact and agree to rounding. They differ in cost and in the fits that they can differentiate.
"""

from __future__ import annotations

from worker.core.hypergradient.cholesky_backprop import CholeskyBackprop
from worker.core.hypergradient.hypergradient_auto import HypergradientAuto
from worker.core.hypergradient.implicit import Implicit

ExactHypergradient = Implicit | CholeskyBackprop
Hypergradient = HypergradientAuto | Implicit | CholeskyBackprop

__all__ = [
    "CholeskyBackprop",
    "ExactHypergradient",
    "Hypergradient",
    "HypergradientAuto",
    "Implicit",
]
