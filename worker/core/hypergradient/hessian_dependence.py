"""The dependence of a selection criterion on the Hessian of training, at fixed theta."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float

from worker.core.inner.protocols import OfFactor
from worker.core.records import Array


@dataclass(frozen=True, slots=True)
class HessianDependence:
    """The dependence of a selection criterion on the Hessian H of training at fixed theta, in two forms.

    `to_rho()` is `<H_bar, H_j>` for each hyperparameter j, with the cotangent `H_bar` of H. `L_bar(L)` is the cotangent
    of the factor L of H instead. `on_penalty()` is the derivative through the penalty at fixed H: `to_rho()` contains
    it, `L_bar(L)` does not.
    """

    to_rho: Callable[[], Float[Array, " k"]]
    L_bar: OfFactor
    on_penalty: Callable[[], Float[Array, " k"]] | None = None
