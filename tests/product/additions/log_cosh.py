"""A selection loss that the product does not have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float, Int

from worker.core.losses import ResidualLoss
from worker.core.records import Array
from worker.core.rows.problem import Problem


@dataclass(frozen=True, slots=True)
class LogCosh(ResidualLoss):
    """`log cosh r`: quadratic for small residuals, absolute for large ones."""

    kind: Literal["log_cosh"] = "log_cosh"

    length: ClassVar[None] = None

    def of(self, r: Float[Array, " n"]) -> tuple[Float[Array, " n"], Float[Array, " n"], Float[Array, " n"]]:
        """The loss of each residual with its first and second derivative in r."""
        slope = np.tanh(r)
        return np.logaddexp(r, -r) - np.log(2.0), slope, 1.0 - slope**2

    def in_units(self, problem: Problem, rows: Int[Array, " m"]) -> ResidualLoss:
        """Itself: it has no length."""
        return self
