"""The choice of the outer optimizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from worker.core.outer.inexact import Inexact
from worker.core.outer.lbfgs import Lbfgs
from worker.core.outer.newton import Newton
from worker.core.outer.search import SearchSettings

NEWTON_UP_TO = 1000  # hyperparameters; measured there: L-BFGS-B takes longer to three digits than Newton to all


@dataclass(frozen=True, slots=True)
class AutoOuter(SearchSettings):
    """`newton` up to 1000 hyperparameters where J has an exact Hessian, else `lbfgs`.

    `inexact` where training takes iterations with conjugate gradients.
    """

    kind: Literal["auto"] = "auto"

    def resolve(self, k: int, *, has_hessian: bool = True, inexact: bool = False) -> Newton | Lbfgs | Inexact:
        """The optimizer that is used for `k` hyperparameters."""
        if inexact:
            return Inexact(self.max_iterations, self.tolerance, self.starts)
        chosen = Newton if k <= NEWTON_UP_TO and has_hessian else Lbfgs
        return chosen(self.max_iterations, self.tolerance, self.starts)
