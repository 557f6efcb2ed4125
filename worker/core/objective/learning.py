"""A warning if a kernel machine learnt nothing from its features: a search that ends on a plateau does not notice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from worker.core.hyperparameters import Hyperparameters
from worker.core.kernels import KernelFunction, Points
from worker.core.kernels.function import dissimilarity_remark
from worker.core.objective.meaning import Meaning
from worker.core.records import Array

NOTHING_LEARNT = (
    "The selection criterion is hardly better than that of a constant. Either the features tell next to nothing, or "
    "the search ended on a plateau where none of them counts: begin at other initial widths and another penalty, or "
    "take several starts."
)
SMALLEST_GAIN = 0.01  # of a mean loss over that of a constant, relative to the latter
PENALTY_OF_CONSTANT = 1e12  # relative to the largest k(x, x): under this penalty only the intercept is left


@dataclass(frozen=True, slots=True)
class LearningRemark:
    """A sentence if no two rows are similar to the kernel, or if J is little better than J of a constant.

    The first entry of rho is the penalty, then come the hyperparameters of the kernel. `value_of_constant` is J at a
    penalty so large that only the intercept is left. A likelihood of n rows must gain `k / 2 log n` nats for k
    hyperparameters (Schwarz 1978).
    """

    kernel: KernelFunction
    X: Points
    box: Hyperparameters
    meaning: Meaning
    value: Callable[[Float[Array, " k"]], float]
    value_of_constant: Callable[[Float[Array, " k"]], float]

    def __call__(self, rho: Float[Array, " k"]) -> tuple[str, ...]:
        """The remark at a point, if any."""
        lam = self.box.natural(rho)[1 : 1 + len(self.kernel.box.names)]
        if remarks := dissimilarity_remark(self.kernel, self.X, lam):
            return remarks
        constant_rho, largest_diagonal = rho.copy(), float(self.kernel.diagonal(self.X, lam).max())
        constant_rho[0] = np.log(PENALTY_OF_CONSTANT * (largest_diagonal or 1.0))
        constant_value, value = self.value_of_constant(constant_rho), self.value(rho)
        if not (np.isfinite(constant_value) and np.isfinite(value)) or constant_value == 0:
            return ()
        nats = self.meaning.nats
        least_gain = SMALLEST_GAIN * abs(constant_value) if nats is None else len(rho) / 2 * np.log(nats)
        return (NOTHING_LEARNT,) if constant_value - value < least_gain else ()
