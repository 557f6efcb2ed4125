"""How a selection criterion depends on the Hessian of training beyond theta."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float

from worker.core.records import Array


@dataclass(frozen=True, slots=True)
class HessianDependence:
    """How a selection criterion depends on the Hessian H of training beyond theta, in two ways to say it.

    `to_rho()` is `sum_j <H_bar, H_j>` for its cotangent `H_bar`; `L_bar()` is the cotangent of the factor instead. What
    depends on the penalty at fixed H is part of the first, and apart from the second: `on_penalty()`.
    """

    to_rho: Callable[[], Float[Array, " k"]]
    L_bar: Callable[[], Float[Array, "p p"]]
    on_penalty: Callable[[], Float[Array, " k"]] | None = None
