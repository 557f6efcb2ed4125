"""Ridge with one penalty: in the eigenvectors of the data H is diagonal, so a trial needs no factorization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import eigh

from worker.core.inner.least_squares.primal import PenalizedFit, PrimalRidge
from worker.core.inner.protocols import Fit
from worker.core.losses.over_rows import LossOfRows, SquaredErrorOfMoments, ValidationLoss
from worker.core.penalties.forms import PenaltyForms
from worker.core.records import Array


@dataclass(frozen=True, slots=True)
class SpectralRidge:
    """`H = V (diag(e) + lam I) V^T` in scaled columns: one decomposition for all trials.

    The loss and `theta' = V^T scale theta` belong to the rotated columns; `rotation = V / scale` maps theta' back.
    """

    loss: ValidationLoss
    penalty: PenaltyForms
    eigenvalues: Float[Array, " p"]
    b: Float[Array, " p"]
    yy: float
    rotation: Float[Array, "p p"]
    centre: Float[Array, " p1"]
    solver: Literal["spectral"] = "spectral"

    @classmethod
    def build(cls, system: PrimalRidge) -> SpectralRidge:
        """The same training problem in rotated columns; it must have a single penalty on all columns."""
        scale = np.sqrt(system.penalty.at(np.ones(1)).diagonal)
        eigenvalues, V = eigh(system.H0 / np.outer(scale, scale), driver="evd", check_finite=False)
        rotation = V / scale[:, None]
        p = len(scale)
        ones = PenaltyForms.build(1, p, (np.zeros(p, int), np.arange(p)))
        loss = _rotated(system.loss, rotation)
        return cls(loss, ones, eigenvalues, system.b @ rotation, system.yy, rotation, system.centre)

    def fit(self, lam: Float[Array, " k"]) -> Fit | None:
        """The minimizer, or None if H is not positive definite to working precision."""
        penalty = self.penalty.at(lam)
        h = self.eigenvalues + penalty.diagonal
        if not h.min() > len(h) * np.finfo(float).eps * h.max():
            return None
        return SpectralFit(penalty, self.b / h, h, self.b, self.yy)

    def coefficients(self, theta: Float[Array, " p"]) -> tuple[float, Float[Array, " p"]]:
        """Intercept and slopes in original units."""
        slopes = self.rotation @ theta
        return float(self.centre[-1] - self.centre[:-1] @ slopes), slopes


def _rotated(loss: ValidationLoss, rotation: Float[Array, "p p"]) -> ValidationLoss:
    """The same loss as a function of the rotated theta."""
    if isinstance(loss, SquaredErrorOfMoments):
        M = np.empty_like(loss.M)
        M[:-1, :-1] = rotation.T @ loss.M[:-1, :-1] @ rotation
        M[-1, :-1] = M[:-1, -1] = loss.M[-1, :-1] @ rotation
        M[-1, -1] = loss.M[-1, -1]
        return SquaredErrorOfMoments(loss.weight, M, np.linalg.solve(rotation, loss.reference))
    assert isinstance(loss, LossOfRows)
    return LossOfRows(loss.X @ rotation, loss.y, loss.loss, loss.w)


@dataclass(frozen=True, slots=True)
class SpectralFit(PenalizedFit):
    """A minimizer with the diagonal h of H."""

    h: Float[Array, " p"]
    b: Float[Array, " p"]
    yy: float

    def solve(self, b: Float[Array, " p *m"]) -> Float[Array, " p *m"]:
        """`H^-1 b`."""
        return (b.T / self.h).T

    def sensitivity(self, chosen: Int[Array, " f"]) -> Float[Array, "p f"]:
        """`dtheta/drho_j = -H^-1 P_j theta` for the chosen hyperparameters."""
        return -self.solve(self.penalty.products(self.theta, chosen))

    def apply(self, v: Float[Array, " p *m"]) -> Float[Array, " p *m"]:
        """`H v`."""
        return (v.T * self.h).T

    def gradient(self) -> Float[Array, " p"]:
        """`dC/dtheta`, zero up to round-off."""
        return self.h * self.theta - self.b

    def inverse(self) -> Float[Array, "p p"]:
        """`H^-1`."""
        return np.diag(1.0 / self.h)

    def log_determinant(self) -> float:
        """`log |H|`."""
        return float(np.log(self.h).sum())

    def sweep(self, theta_bar: Float[Array, " p"], L_bar: Float[Array, "p p"] | None = None) -> Float[Array, " k"]:
        """`rho_bar`; the factor of a diagonal matrix is its square root."""
        through_theta = -theta_bar * self.theta / self.h
        if L_bar is not None:
            through_theta += np.diag(L_bar) / (2.0 * np.sqrt(self.h))
        return self.penalty.contract_diagonal(through_theta)

    def _value(self) -> float:
        return (self.yy - float(self.b @ self.theta)) / 2
