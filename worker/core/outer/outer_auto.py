"""The choice of the outer optimizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from worker.core.outer.inexact import Inexact
from worker.core.outer.lbfgs import Lbfgs
from worker.core.outer.newton import Newton
from worker.core.outer.scan import MOST_SCANNED
from worker.core.outer.search import SearchSettings

NEWTON_MAX_HYPERPARAMETERS = 1000  # there L-BFGS-B takes longer to three digits than Newton to all (measured)


@dataclass(frozen=True, slots=True)
class OuterAuto(SearchSettings):
    """`newton` up to 1000 hyperparameters if J has an exact Hessian, else `lbfgs`.

    `inexact` if training iterates with conjugate gradients. With one or two hyperparameters the descent from the
    initial value is followed by a coarse scan of the box, and by descents from where J is lower than at its end.
    """

    kind: Literal["auto"] = "auto"

    def scans(self, k: int) -> bool:
        """Whether the box of `k` hyperparameters is scanned."""
        return k <= MOST_SCANNED

    def resolve(self, k: int, *, has_hessian: bool = True, inexact: bool = False) -> Newton | Lbfgs | Inexact:
        """The optimizer for `k` hyperparameters."""
        most = self.most_iterations(k)
        if inexact:
            return Inexact(most, self.tolerance, self.starts)
        chosen = Newton if k <= NEWTON_MAX_HYPERPARAMETERS and has_hessian else Lbfgs
        return chosen(most, self.tolerance, self.starts)
