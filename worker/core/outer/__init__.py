"""Outer optimizers: each minimizes J over rho inside its box, as a resumable generator of trials."""

from __future__ import annotations

from worker.core.outer.descend import Optimizer
from worker.core.outer.hoag import Hoag
from worker.core.outer.inexact import Inexact
from worker.core.outer.lbfgs import Lbfgs
from worker.core.outer.newton import Newton
from worker.core.outer.outer_auto import OuterAuto

ConcreteOuter = Newton | Lbfgs | Inexact | Hoag
Outer = OuterAuto | ConcreteOuter

__all__ = [
    "ConcreteOuter",
    "Hoag",
    "Inexact",
    "Lbfgs",
    "Newton",
    "Optimizer",
    "Outer",
    "OuterAuto",
]
