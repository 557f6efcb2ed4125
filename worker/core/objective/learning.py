"""Whether a kernel machine learnt anything from its features, which a search on a plateau cannot tell."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from worker.core.kernels import KernelFunction, Points
from worker.core.kernels.function import dissimilarity_remark
from worker.core.objective.objective import Objective
from worker.core.records import Array

NOTHING = (
    "The selection criterion is hardly better than that of a constant. Either the features tell next to nothing, or "
    "the search ended on a plateau where none of them counts: begin at other initial widths and another penalty, or "
    "take several starts."
)
LITTLE = 0.01  # share of the value of a constant that a mean loss has to gain
ALL_PENALTY = 1e12  # times the kernel of a row with itself: the penalty under which nothing but the intercept is left


def learning_remark(
    objective: Objective,
    kernel: KernelFunction,
    X: Points,
    rho: Float[Array, " k"],
    alone: Callable[[Float[Array, " k"]], float],
) -> tuple[str, ...]:
    """A sentence where the kernel tells every row from every other, or J gains little on that of a constant.

    `alone` is J at a point with so large a penalty, the first of rho, that no feature counts. A likelihood of n rows
    has to gain what Schwarz's criterion (1978) asks for k hyperparameters, `k / 2 log n` nats.
    """
    lam = objective.natural(rho)
    if told := dissimilarity_remark(kernel, X, lam[1:]):
        return told
    constant, largest = rho.copy(), float(kernel.diagonal(X, lam[1:]).max())
    constant[0] = np.log(ALL_PENALTY * (largest or 1.0))
    of_constant, value = alone(constant), objective.value(rho)
    if not (np.isfinite(of_constant) and np.isfinite(value)) or of_constant == 0:
        return ()
    least = LITTLE * abs(of_constant) if objective.is_mean_loss else len(rho) / 2 * np.log(objective.unit(value))
    return (NOTHING,) if of_constant - value < least else ()
