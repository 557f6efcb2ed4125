"""Outer optimizers: descend J over rho inside its box, as a resumable generator of trials."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from worker.core.outer.lbfgs import Lbfgs
from worker.core.outer.newton import Newton
from worker.core.outer.search import SearchSettings

NEWTON_UP_TO = 500  # hyperparameters; beyond, the dense k x k Hessian costs more than the iterations that it saves


@dataclass(frozen=True, slots=True)
class Auto(SearchSettings):
    """`newton` up to 500 hyperparameters, `lbfgs` beyond."""

    kind: Literal["auto"] = "auto"

    def resolve(self, k: int) -> Newton | Lbfgs:
        """The optimizer that is used for `k` hyperparameters."""
        chosen = Newton if k <= NEWTON_UP_TO else Lbfgs
        return chosen(self.max_iterations, self.tolerance, self.starts)


ConcreteOuter = Newton | Lbfgs
Outer = Auto | Newton | Lbfgs

__all__ = ["Auto", "ConcreteOuter", "Lbfgs", "Newton", "Outer"]
