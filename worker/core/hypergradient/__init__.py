"""Hypergradient methods: the total derivative of J from a fit and the explicit partial derivative in theta.

Both routes are exact and agree to round-off; they differ in what they can differentiate and in cost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float

from worker.core.records import Array
from worker.core.systems import Fit, QuadraticFit


@dataclass(frozen=True, slots=True)
class OfMatrix:
    """How a selection criterion depends on the Hessian H of training beyond theta, in two ways to say it.

    `to_rho()` is `sum_j <H_bar, H_j>` for its cotangent `H_bar`; `L_bar()` is the cotangent of the factor instead. What
    depends on the penalty at fixed H is part of the first, and apart from the second: `on_penalty()`.
    """

    to_rho: Callable[[], Float[Array, " k"]]
    L_bar: Callable[[], Float[Array, "p p"]]
    on_penalty: Callable[[], Float[Array, " k"]] | None = None


@dataclass(frozen=True, slots=True)
class Implicit:
    """Implicit function theorem: one adjoint solve with the factor that training left behind.

    `H u = dE/dtheta`, `dJ/drho = -(d2C/dtheta drho)^T u` (Bengio 2000, section 4; Foo, Do and Ng 2007; Pedregosa 2016).
    The cost does not depend on the number of hyperparameters.
    """

    kind: Literal["implicit"] = "implicit"

    def __call__(self, fit: Fit, theta_bar: Float[Array, " p"], matrix: OfMatrix | None = None) -> Float[Array, " k"]:
        """`dJ/drho` of one split from `theta_bar = dE/dtheta`, and what E takes from the Hessian of training."""
        gradient = -fit.contract(fit.solve(theta_bar))
        return gradient if matrix is None else gradient + matrix.to_rho()


@dataclass(frozen=True, slots=True)
class CholeskyBackprop:
    """Back-propagation through the Cholesky factorization of the training criterion (Bengio 2000, section 3).

    Costs two to three factorizations more than `implicit` and gives the same numbers.
    """

    kind: Literal["cholesky_backprop"] = "cholesky_backprop"

    def __call__(self, fit: Fit, theta_bar: Float[Array, " p"], matrix: OfMatrix | None = None) -> Float[Array, " k"]:
        """`dJ/drho` of one split from `theta_bar = dE/dtheta`, and what E takes from the factor of training."""
        assert isinstance(fit, QuadraticFit)
        if matrix is None:
            return fit.sweep(theta_bar)
        swept = fit.sweep(theta_bar, matrix.L_bar())
        return swept if matrix.on_penalty is None else swept + matrix.on_penalty()


@dataclass(frozen=True, slots=True)
class Auto:
    """The cheapest exact method for the job: `implicit`."""

    kind: Literal["auto"] = "auto"

    def resolve(self) -> Implicit:
        """The method that is used."""
        return Implicit()


ExactHypergradient = Implicit | CholeskyBackprop
Hypergradient = Auto | Implicit | CholeskyBackprop

__all__ = ["Auto", "CholeskyBackprop", "ExactHypergradient", "Hypergradient", "Implicit", "OfMatrix"]
