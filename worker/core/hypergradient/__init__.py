"""Hypergradient methods: the total derivative of J from a fit and the explicit partial derivative in theta.

Both routes are exact and agree to round-off; they differ in what they can differentiate and in cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float

from worker.core.records import Array
from worker.core.systems import Fit


@dataclass(frozen=True, slots=True)
class Leverage:
    """Rows X with `XP = X H^-1` and the cotangents `bar` of their `x_i^T H^-1 x_i`."""

    X: Float[Array, "n p"]
    XP: Float[Array, "n p"]
    bar: Float[Array, " n"]


@dataclass(frozen=True, slots=True)
class Implicit:
    """Implicit function theorem: one adjoint solve with the factor that training left behind.

    `H u = dE/dtheta`, `dJ/drho = -(d2C/dtheta drho)^T u` (Bengio 2000, section 4; Foo, Do and Ng 2007; Pedregosa 2016).
    The cost does not depend on the number of hyperparameters.
    """

    kind: Literal["implicit"] = "implicit"

    def __call__(self, fit: Fit, theta_bar: Float[Array, " p"], leverage: Leverage | None = None) -> Float[Array, " k"]:
        """`dJ/drho` of one split from `theta_bar = dE/dtheta` and the cotangents of leverages, if E depends on them."""
        gradient = -fit.contract(fit.solve(theta_bar))
        if leverage is None:
            return gradient
        return gradient - fit.contract_matrix((leverage.XP.T * leverage.bar) @ leverage.XP)


@dataclass(frozen=True, slots=True)
class CholeskyBackprop:
    """Back-propagation through the Cholesky factorization of the training criterion (Bengio 2000, section 3).

    Costs two to three factorizations more than `implicit` and gives the same numbers when the selection criterion
    depends on the hyperparameters through theta alone.
    """

    kind: Literal["cholesky_backprop"] = "cholesky_backprop"

    def __call__(self, fit: Fit, theta_bar: Float[Array, " p"], leverage: Leverage | None = None) -> Float[Array, " k"]:
        """`dJ/drho` of one split from `theta_bar = dE/dtheta` and the cotangents of leverages, if E depends on them."""
        return fit.sweep(theta_bar) if leverage is None else fit.sweep(theta_bar, leverage.X, leverage.bar)


@dataclass(frozen=True, slots=True)
class Auto:
    """The cheapest exact method for the job: `implicit` whenever the selection criterion depends on theta alone."""

    kind: Literal["auto"] = "auto"

    def resolve(self) -> Implicit:
        """The method that is used."""
        return Implicit()


ExactHypergradient = Implicit | CholeskyBackprop
Hypergradient = Auto | Implicit | CholeskyBackprop

__all__ = ["Auto", "CholeskyBackprop", "ExactHypergradient", "Hypergradient", "Implicit"]
