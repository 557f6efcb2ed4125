"""Penalties `1/2 sum_j lam_j theta^T S_j theta`: the members of the families `Penalty` and `ClassPenalty`."""

from __future__ import annotations

from worker.core.penalties.l2 import PerClass, PerCoefficient, PerFeature, PerGroup, Shared
from worker.core.penalties.quadratic_forms import Banded, Difference, Form, Identity, Matrix, QuadraticForms

Penalty = Shared | PerFeature | PerGroup | QuadraticForms
ClassPenalty = Penalty | PerClass | PerCoefficient

__all__ = [
    "Banded",
    "ClassPenalty",
    "Difference",
    "Form",
    "Identity",
    "Matrix",
    "Penalty",
    "PerClass",
    "PerCoefficient",
    "PerFeature",
    "PerGroup",
    "QuadraticForms",
    "Shared",
]
