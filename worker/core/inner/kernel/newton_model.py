"""Newton's quadratic model of C for a kernel machine, with the exact kernel matrix or with landmarks.

`C = sum_i a_i loss(y_i, f_i) + lam / 2 |f - b|^2` in the norm of the kernel's space. The shares `a` sum to one, and b
is an unpenalized constant (Chapelle 2007, section 4; Keerthi, Sindhwani and Chapelle 2006). A row is curved if the
second derivative of its loss is not zero.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from worker.core.linalg import cholesky
from worker.core.linalg.triangular import outer_product
from worker.core.records import Array


@dataclass(frozen=True, slots=True)
class NewtonModel(ABC):
    """Builds and minimizes the quadratic models of C at the predictors of the training rows."""

    lam: float
    intercept: bool

    @abstractmethod
    def factor(self, D: Float[Array, " n"]) -> Float[Array, "s s"] | None:
        """The lower factor of the model's matrix: empty if no row is curved, None if the matrix is indefinite."""

    @abstractmethod
    def minimizer(
        self, D: Float[Array, " n"], L: Float[Array, "s s"], g: Float[Array, " n"], f: Float[Array, " n"]
    ) -> tuple[Float[Array, " m"], float]:
        """Theta and b that minimize the model with slopes g and curvatures D of the losses at f; some D is not zero."""

    @abstractmethod
    def straight(self, g: Float[Array, " n"]) -> Float[Array, " m"]:
        """Theta that minimizes the model if no row is curved; then the model does not depend on b."""

    @abstractmethod
    def predictor(self, theta: Float[Array, " m"]) -> Float[Array, " n"]:
        """`f - b` of the training rows."""

    @abstractmethod
    def norm(self, theta: Float[Array, " m"], smooth: Float[Array, " n"], other: Float[Array, " m"]) -> float:
        """The inner product of theta and another theta in the kernel's space; `smooth` is the predictor of theta."""


@dataclass(frozen=True, slots=True)
class KernelMinimum:
    """Theta, b and the predictors f at the minimum, the curvatures D of the losses there, and the model's factor L.

    If no row is curved, the factor is empty, and `held` is the derivative of b: `db = -held @ d(f - b)`.
    """

    theta: Float[Array, " m"]
    b: float
    f: Float[Array, " n"]
    D: Float[Array, " n"]
    L: Float[Array, "s s"]
    held: Float[Array, " n"]


@dataclass(frozen=True, slots=True)
class ModelOfRows(NewtonModel):
    """Theta has one entry for each training row: `f - b = K theta`, `|f - b|^2 = theta^T K theta`.

    With `R = sqrt(D)` on the curved rows the matrix is `lam I + R K R`, whose eigenvalues are at least lam.
    """

    K: Float[Array, "n n"]

    def factor(self, D: Float[Array, " n"]) -> Float[Array, "s s"] | None:
        """The factor of `lam I + R K R` on the curved rows."""
        curved = D > 0
        R = np.sqrt(D[curved])
        B = np.array(self.K if curved.all() else self.K[np.ix_(curved, curved)], order="F")
        B *= R
        B *= R[:, None]
        cholesky.diagonal_of(B)[...] += self.lam
        return cholesky.factor_in_place(B)

    def minimizer(
        self, D: Float[Array, " n"], L: Float[Array, "s s"], g: Float[Array, " n"], f: Float[Array, " n"]
    ) -> tuple[Float[Array, " n"], float]:
        """`lam theta = -(g + D (f_new - f))`: explicit for the straight rows, a linear system for the curved ones."""
        curved = D > 0
        R, theta = np.sqrt(D[curved]), -g / self.lam
        theta[curved] = 0.0
        explicit = self.K @ theta if theta.any() else 0.0
        b, x = self.bordered(L, R, R * (f - explicit)[curved] - g[curved] / R, -theta.sum())
        theta[curved] = R * x
        return theta, b

    def straight(self, g: Float[Array, " n"]) -> Float[Array, " n"]:
        """`lam theta = -g`."""
        return -g / self.lam

    def bordered(
        self, L: Float[Array, "s s"], R: Float[Array, " s"], c: Float[Array, " s"], total: float
    ) -> tuple[float, Float[Array, " s"]]:
        """Solves `B x + b R = c` with `R^T x = total` for (b, x); b is zero without an intercept."""
        if not self.intercept or not len(R):
            return 0.0, cholesky.solve(L, c) if len(R) else c
        solved = cholesky.solve(L, np.column_stack([c, R]))
        b = float((R @ solved[:, 0] - total) / (R @ solved[:, 1]))
        return b, solved[:, 0] - b * solved[:, 1]

    def predictor(self, theta: Float[Array, " n"]) -> Float[Array, " n"]:
        """`K theta`."""
        nonzero = np.flatnonzero(theta)
        return self.K @ theta if 2 * len(nonzero) > len(theta) else self.K[:, nonzero] @ theta[nonzero]

    def norm(self, theta: Float[Array, " n"], smooth: Float[Array, " n"], other: Float[Array, " n"]) -> float:
        """`theta^T K other`."""
        return float(smooth @ other)


@dataclass(frozen=True, slots=True)
class ModelOfLandmarks(NewtonModel):
    """Theta has one entry for each landmark, in an orthonormal basis: `f - b = Phi theta`, `|f - b|^2 = |theta|^2`."""

    Phi: Float[Array, "n m"]

    def factor(self, D: Float[Array, " n"]) -> Float[Array, "s s"] | None:
        """The factor of `[[1^T D 1, 1^T D Phi], [., Phi^T D Phi + lam I]]`; without an intercept only the last part."""
        curved: Bool[Array, " n"] = D > 0
        if not curved.any():
            return np.empty((0, 0))
        R = np.sqrt(D[curved])[:, None]
        scaled = self.Phi[curved] * R
        if self.intercept:
            scaled = np.hstack([R, scaled])
        H = outer_product(scaled.T)
        cholesky.diagonal_of(H)[int(self.intercept) :] += self.lam
        return cholesky.factor_in_place(H)

    def solve(self, L: Float[Array, "s s"], c: Float[Array, " m"], total: float) -> tuple[Float[Array, " m"], float]:
        """Solves `H (b, theta) = (total, c)` for (theta, b)."""
        if not self.intercept:
            return cholesky.solve(L, c), 0.0
        x = cholesky.solve(L, np.append(total, c))
        return x[1:], float(x[0])

    def minimizer(
        self, D: Float[Array, " n"], L: Float[Array, "s s"], g: Float[Array, " n"], f: Float[Array, " n"]
    ) -> tuple[Float[Array, " m"], float]:
        """`H (b, theta) = [1, Phi]^T (D f - g)`."""
        target = D * f - g
        return self.solve(L, self.Phi.T @ target, float(target.sum()))

    def straight(self, g: Float[Array, " n"]) -> Float[Array, " m"]:
        """`lam theta = -Phi^T g`."""
        return -(g @ self.Phi) / self.lam

    def predictor(self, theta: Float[Array, " m"]) -> Float[Array, " n"]:
        """`Phi theta`."""
        return self.Phi @ theta

    def norm(self, theta: Float[Array, " m"], smooth: Float[Array, " n"], other: Float[Array, " m"]) -> float:
        """`theta^T other`."""
        return float(theta @ other)
