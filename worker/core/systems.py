"""What a training criterion hands to the rest of the core: one system for each split, and its fits."""

from __future__ import annotations

from typing import Literal, Protocol, runtime_checkable

from jaxtyping import Float, Int

from worker.core.losses import ValidationLoss
from worker.core.records import Array


@runtime_checkable
class Fit(Protocol):
    """A minimizer theta of the training criterion C at one rho, with what its derivatives need."""

    @property
    def theta(self) -> Float[Array, " p"]:
        """The minimizer."""

    def solve(self, b: Float[Array, " p *m"]) -> Float[Array, " p *m"]:
        """`H^-1 b` with the Hessian H of C in theta."""

    def apply(self, v: Float[Array, " p"]) -> Float[Array, " p"]:
        """`H v`."""

    def gradient(self) -> Float[Array, " p"]:
        """`dC/dtheta` at theta."""

    def contract(self, u: Float[Array, " p"]) -> Float[Array, " k"]:
        """`(d2C/dtheta drho)^T u`."""

    def sensitivity(self, chosen: Int[Array, " f"]) -> Float[Array, "p f"]:
        """`dtheta/drho_j` for the chosen hyperparameters, ascending indices."""

    def contract_columns(self, u: Float[Array, " p"], D: Float[Array, "p f"]) -> Float[Array, "k f"]:
        """`u^T (dH/drho_j) D_l` for each hyperparameter j and each column of D."""

    def inverse(self) -> Float[Array, "p p"]:
        """`H^-1`."""

    def forms(self, W: Float[Array, "n p"]) -> Float[Array, "n k"]:
        """`w_i^T (dH/drho_j) w_i` for each row of W and each hyperparameter."""

    def contract_pairs(self, P: Float[Array, "p p"], S: Float[Array, "p p"]) -> Float[Array, "k k"]:
        """`tr((dH/drho_j) P (dH/drho_l) S)` for each pair of hyperparameters; P and S symmetric."""

    def contract_matrix(self, H_bar: Float[Array, "p p"]) -> Float[Array, " k"]:
        """`<H_bar, dH/drho_j>` for each hyperparameter."""

    def sweep(
        self,
        theta_bar: Float[Array, " p"],
        X: Float[Array, "n p"] | None = None,
        leverage_bar: Float[Array, " n"] | None = None,
    ) -> Float[Array, " k"]:
        """`rho_bar` from the cotangents of theta and, if given, of `x_i^T H^-1 x_i` for the rows of X.

        By reverse-mode differentiation of the fit itself.
        """


@runtime_checkable
class System(Protocol):
    """The training problem of one split, with the loss that scores it."""

    @property
    def loss(self) -> ValidationLoss:
        """The loss over the validation rows."""

    @property
    def solver(self) -> Literal["primal", "dual"]:
        """Which matrix is factored: one row for each feature, or one for each training row."""

    def fit(self, lam: Float[Array, " k"]) -> Fit | None:
        """The minimizer at natural hyperparameters, or None if the system is singular to working precision."""

    def coefficients(self, theta: Float[Array, " p"]) -> tuple[float, Float[Array, " p"]]:
        """Intercept and slopes of the model in original units."""
