"""What criteria of one fit on all rows know of the sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from worker.core.records import Array


@dataclass(frozen=True, slots=True)
class Sample:
    """The number of rows, the number of penalties (the first hyperparameters), and how the intercept is treated.

    `eliminated`: whether the intercept is not part of theta.
    """

    rows: int
    penalties: int
    has_intercept: bool
    eliminated: bool

    def only_penalties(self, gradient: Float[Array, " k"]) -> Float[Array, " k"]:
        """The gradient with zeros for all hyperparameters but penalties."""
        return np.where(np.arange(len(gradient)) < self.penalties, gradient, 0.0)
