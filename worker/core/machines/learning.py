"""Whether a kernel machine learnt anything from its features, which a search on a plateau cannot tell."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from worker.core.kernels import KernelFunction, unlike
from worker.core.kernels.points import Points
from worker.core.outer_objective import Objective
from worker.core.records import Array

NOTHING = (
    "The selection criterion is hardly better than that of a constant. Either the features tell next to nothing, or "
    "the search ended on a plateau where none of them counts: begin at other initial widths and another penalty, or "
    "take several starts."
)
LITTLE = 0.01  # share of the value of a constant that a mean loss has to gain
ALL_PENALTY = np.log(1e12)  # under which nothing but the intercept is left


def of_learning(
    objective: Objective, kernel: KernelFunction, X: Points, rho: Float[Array, " k"], constant: Float[Array, " k"]
) -> tuple[str, ...]:
    """A sentence where the kernel tells every row from every other, or J gains little on that of a `constant`.

    A likelihood of n rows has to gain what Schwarz's criterion (1978) asks for k hyperparameters, `k / 2 log n` nats.
    """
    if told := unlike(kernel, X, objective.natural(rho)[1:]):
        return told
    alone = objective.value(constant)
    least = LITTLE * abs(alone) if objective.is_mean_loss else len(rho) / 2 * np.log(objective.unit(alone))
    return (NOTHING,) if alone - objective.value(rho) < least else ()


def without_kernel(rho: Float[Array, " k"]) -> Float[Array, " k"]:
    """The same point with so large a penalty, the first of rho, that no feature counts."""
    return np.concatenate([[ALL_PENALTY], rho[1:]])
