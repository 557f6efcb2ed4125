"""Ridge with one penalty: in the eigenvectors of the data H is diagonal, so a trial needs no factorization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import eigh

from worker.core.inner.least_squares.in_penalties import InPenalties
from worker.core.inner.least_squares.of_inverse import ByInverse
from worker.core.inner.least_squares.primal import PenalizedFit, PrimalRidge
from worker.core.inner.protocols import OfFactor
from worker.core.losses.over_rows import SumOfResiduals
from worker.core.penalties.forms import PenaltyForms
from worker.core.records import Array
from worker.core.rows.centre import Centre

SMALLEST_EIGENVALUE = 1e-8  # of H relative to its largest; below it a factorization keeps more digits


@dataclass(frozen=True, slots=True)
class SpectralRidge:
    """`H = V (diag(e) + lam I) V^T` in scaled columns: one decomposition for all trials.

    The loss and `theta' = V^T scale theta` belong to the rotated columns; `rotation = V / scale` maps theta' back.
    """

    loss: SumOfResiduals
    penalty: PenaltyForms
    eigenvalues: Float[Array, " p"]
    b: Float[Array, " p"]
    yy: float
    rotation: Float[Array, "p p"]
    centre: Centre
    solver: Literal["spectral"] = "spectral"

    @classmethod
    def build(cls, system: PrimalRidge) -> SpectralRidge:
        """The same training problem in rotated columns; it must have a single penalty on all columns."""
        scale = np.sqrt(system.penalty.at(np.ones(1)).diagonal)
        eigenvalues, V = eigh(system.H0 / np.outer(scale, scale), driver="evd", check_finite=False)
        rotation = V / scale[:, None]
        p = len(scale)
        ones = PenaltyForms.build(1, p, (np.zeros(p, int), np.arange(p)))
        return cls(
            system.loss.rotated(rotation), ones, eigenvalues, system.b @ rotation, system.yy, rotation, system.centre
        )

    def keeps_digits(self, lam: Float[Array, " k"]) -> bool:
        """Whether the eigenvalues at `lam` are above the rounding of the largest one."""
        h = self.eigenvalues + self.penalty.at(lam).diagonal
        return bool(h.min() > SMALLEST_EIGENVALUE * h.max())

    def fit(self, lam: Float[Array, " k"]) -> SpectralFit | None:
        """The minimizer, or None if H is not positive definite to working precision."""
        penalty = self.penalty.at(lam)
        h = self.eigenvalues + penalty.diagonal
        if not h.min() > len(h) * np.finfo(float).eps * h.max():
            return None
        theta = self.b / h
        return SpectralFit(theta, InPenalties(penalty, theta), h, self.b, self.yy)

    def coefficients(self, theta: Float[Array, " p"]) -> tuple[float, Float[Array, " p"]]:
        """Intercept and slopes in original units."""
        slopes = self.rotation @ theta
        return -self.centre.times(np.append(slopes, -1.0)), slopes

    def about_centre(self, theta: Float[Array, "p f"]) -> tuple[Float[Array, " f"], Float[Array, "p f"]]:
        """No level, as the centre has that of the target, and slopes."""
        return np.zeros(theta.shape[1]), self.rotation @ theta

    def from_rows(self, levels: Float[Array, " f"], slopes: Float[Array, "p f"]) -> Float[Array, "p f"]:
        """The slopes, rotated."""
        return self.rotation.T @ slopes


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
        return -self.solve(self.in_rho.columns(chosen))

    def apply(self, v: Float[Array, " p *m"]) -> Float[Array, " p *m"]:
        """`H v`."""
        return (v.T * self.h).T

    def gradient(self) -> Float[Array, " p"]:
        """`dC/dtheta`, zero up to round-off."""
        return self.h * self.theta - self.b

    def inverse(self) -> Float[Array, "p p"]:
        """`H^-1`."""
        return np.diag(1.0 / self.h)

    def kept(self) -> float:
        """The smallest eigenvalue of H relative to the largest, or C relative to its value at zero, if it is less."""
        return min(float(self.h.min() / self.h.max()), 2.0 * self._value() / (self.yy or 1.0))

    def log_determinant(self) -> float:
        """`log |H|`."""
        return float(np.log(self.h).sum())

    @property
    def of_inverse(self) -> ByInverse:
        """From the inverse."""
        return ByInverse(self)

    def sweep(self, bar: Float[Array, " p"], of_factor: OfFactor | None = None) -> Float[Array, " k"]:
        """`rho_bar`; the factor of a diagonal matrix is its square root."""
        h_bar = -bar * self.theta / self.h
        if of_factor is not None:
            root = np.sqrt(self.h)
            h_bar += np.diag(of_factor(np.diag(root))) / (2.0 * root)
        return self.penalty.contract_diagonal(h_bar)

    def _value(self) -> float:
        return (self.yy - float(self.b @ self.theta)) / 2
