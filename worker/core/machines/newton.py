"""Newton's method on the rows whose loss is curved, for an exact kernel matrix or for landmarks of it.

`C = sum_i a_i loss(y_i, f_i) + lam / 2 |f - b|^2` in the norm of the kernel's space, `a` shares that sum to one, b a
free constant (Chapelle 2007, section 4; Keerthi, Sindhwani and Chapelle 2006). For the squared loss one step is all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.linalg import blas

from worker.core import cholesky
from worker.core.glm.derivatives import Elementwise
from worker.core.records import Array

MOST_STEPS = 200
EXACT = 1e-24  # relative decrement of C, quadratic in the error of the point, below which no step is worth its price
STILL = 1e-29  # of the predictors, both squared and weighted by curvature: a move below is their rounding
ROUNDING = 1e-14  # below this decrement, one that no longer falls is rounding
SURE = 1e-12  # below this decrement a whole step is taken: C does not tell steps apart
ARMIJO = 1e-4
CURVED = 1e-20  # of the largest curvature, below which a row counts as straight
SHORTEST = 2.0**-40


@dataclass(frozen=True, slots=True)
class Model(ABC):
    """The quadratic models of C that Newton's method minimizes, in terms of the predictors of the training rows."""

    lam: float
    intercept: bool

    @abstractmethod
    def factor(self, D: Float[Array, " n"]) -> Float[Array, "s s"] | None:
        """The lower factor of the matrix of the model with these curvatures; None if it is indefinite."""

    @abstractmethod
    def minimizer(
        self, D: Float[Array, " n"], L: Float[Array, "s s"], g: Float[Array, " n"], f: Float[Array, " n"]
    ) -> tuple[Float[Array, " m"], float]:
        """Theta and b that minimize the model with slopes g and curvatures D of the losses at f."""

    @abstractmethod
    def predictor(self, theta: Float[Array, " m"]) -> Float[Array, " n"]:
        """`f - b` of the training rows."""

    @abstractmethod
    def norm(self, theta: Float[Array, " m"], smooth: Float[Array, " n"], other: Float[Array, " m"]) -> float:
        """The inner product of theta, whose predictor is `smooth`, with another one, in the kernel's space."""


@dataclass(frozen=True, slots=True)
class Minimum:
    """Theta, b and the predictors at the minimum, and the curvatures of the losses there with their factor.

    Where no row is curved, the curvatures are zero, and the factor is empty.
    """

    theta: Float[Array, " m"]
    b: float
    f: Float[Array, " n"]
    D: Float[Array, " n"]
    L: Float[Array, "s s"]


Losses = Callable[[Float[Array, " n"]], Elementwise]


def minimize(
    model: Model, losses: Losses, most_curved: Float[Array, " n"], start: tuple[Float[Array, " m"], float]
) -> Minimum | None:
    """The minimum of C from a start; None where a factor is indefinite to working precision or no end is found.

    `most_curved` bounds the curvatures: a model with these is above C, and serves where no row is curved.
    """
    theta, b = start
    smooth = model.predictor(theta)
    f = smooth + b
    at = losses(f)
    if not (at.w * at.second > CURVED * most_curved).any():  # far off, as after another lam: zero is nearer
        theta, b, smooth, f = np.zeros_like(theta), 0.0, np.zeros_like(f), np.zeros_like(f)
        at = losses(f)
    norm = model.norm(theta, smooth, theta)
    D: Float[Array, " n"] | None = None
    L: Float[Array, "s s"] | None = None
    last, t = np.inf, 1.0
    for _ in range(MOST_STEPS):
        wanted = _curvatures(at, most_curved, needed=model.intercept)
        known = D is not None and np.array_equal(wanted, D)
        if D is None or L is None or not known:
            D, L = wanted, model.factor(wanted)
        if L is None:
            return None
        g = at.slope[:, 0]
        new_theta, new_b = model.minimizer(D, L, g, f)
        new_smooth = model.predictor(new_theta)
        step, move = new_theta - theta, new_smooth + new_b - f
        bend = model.norm(step, new_smooth - smooth, step)
        slope = -(float(D @ move**2) + model.lam * bend)  # as the step minimizes the model; free of cancellation
        decrement = -slope / ((at.value + model.lam / 2 * norm) or 1.0)
        if not (np.isfinite(decrement) and decrement >= -ROUNDING):
            return None
        still = -slope <= STILL * float(D @ f**2)  # as where nothing is left to fit, and C itself is rounding
        exact = wanted is not most_curved and bool(at.second.all())
        done = known and t == 1.0 and exact  # a whole step where C is its model was to be the last
        if decrement <= EXACT or still or (decrement >= last / 4 and (done or decrement <= ROUNDING)):
            return _minimum(theta, b, f, at, D, L)
        last = decrement
        along = model.norm(theta, smooth, step)
        t = 1.0
        while (
            decrement >= SURE
            and losses(f + t * move).value - at.value + model.lam * (t * along + t * t / 2 * bend) > ARMIJO * t * slope
        ):
            t /= 2
            if t < SHORTEST:
                return None
        theta, b = (new_theta, new_b) if t == 1.0 else (theta + t * step, b + t * (new_b - b))
        smooth = new_smooth if t == 1.0 else model.predictor(theta)  # not summed up: theta may fall by many digits
        f, at = smooth + b, losses(smooth + b)
        norm = model.norm(theta, smooth, theta)
    return None


def _minimum(
    theta: Float[Array, " m"],
    b: float,
    f: Float[Array, " n"],
    at: Elementwise,
    D: Float[Array, " n"],
    L: Float[Array, "s s"],
) -> Minimum:
    curved = bool(at.second.any())
    return Minimum(theta, b, f, D if curved else np.zeros_like(D), L if curved else np.empty((0, 0)))


def _curvatures(at: Elementwise, most_curved: Float[Array, " n"], *, needed: bool) -> Float[Array, " n"]:
    D = at.w * at.second
    D[CURVED * most_curved >= D] = 0.0
    return most_curved if needed and not D.any() else D


@dataclass(frozen=True, slots=True)
class OfRows(Model):
    """Theta has one entry for each training row: `f - b = K theta`, `|f - b|^2 = theta^T K theta`.

    With `R = sqrt(D)` on the curved rows the matrix is `lam I + R K R`, whose eigenvalues are at least lam.
    """

    K: Float[Array, "n n"]

    def factor(self, D: Float[Array, " n"]) -> Float[Array, "s s"] | None:
        """Of the curved rows."""
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
        """`lam theta = -(g + D (f_new - f))`: theta of the other rows is known, that of curved ones takes a solve."""
        curved = D > 0
        R, theta = np.sqrt(D[curved]), -g / self.lam
        theta[curved] = 0.0
        known = self.K @ theta if theta.any() else 0.0
        b, x = self.bordered(L, R, R * (f - known)[curved] - g[curved] / R, -theta.sum())
        theta[curved] = R * x
        return theta, b

    def bordered(
        self, L: Float[Array, "s s"], R: Float[Array, " s"], c: Float[Array, " s"], total: float
    ) -> tuple[float, Float[Array, " s"]]:
        """`B x + b R = c` with `R^T x = total`, b zero where there is no intercept."""
        if not self.intercept or not len(R):
            return 0.0, cholesky.solve(L, c) if len(R) else c
        both = cholesky.solve(L, np.column_stack([c, R]))
        b = float((R @ both[:, 0] - total) / (R @ both[:, 1]))
        return b, both[:, 0] - b * both[:, 1]

    def predictor(self, theta: Float[Array, " n"]) -> Float[Array, " n"]:
        """`K theta`."""
        some = np.flatnonzero(theta)
        return self.K @ theta if 2 * len(some) > len(theta) else self.K[:, some] @ theta[some]

    def norm(self, theta: Float[Array, " n"], smooth: Float[Array, " n"], other: Float[Array, " n"]) -> float:
        """`theta^T K other`."""
        del theta
        return float(smooth @ other)


@dataclass(frozen=True, slots=True)
class OfLandmarks(Model):
    """Theta has one entry for each landmark, in an orthonormal basis: `f - b = Phi theta`, `|f - b|^2 = |theta|^2`."""

    Phi: Float[Array, "n m"]

    def factor(self, D: Float[Array, " n"]) -> Float[Array, "s s"] | None:
        """Of `[[1^T D 1, 1^T D Phi], [., Phi^T D Phi + lam I]]`, the first row and column those of an intercept."""
        rows: Bool[Array, " n"] = D > 0
        R = np.sqrt(D[rows])[:, None]
        scaled = self.Phi[rows] * R
        if self.intercept:
            scaled = np.hstack([R, scaled])
        H = blas.dsyrk(1.0, scaled.T, lower=1)
        cholesky.diagonal_of(H)[int(self.intercept) :] += self.lam
        return cholesky.factor_in_place(H)

    def solve(self, L: Float[Array, "s s"], c: Float[Array, " m"], total: float) -> tuple[Float[Array, " m"], float]:
        """`H (b, theta) = (total, c)`."""
        if not self.intercept:
            return cholesky.solve(L, c), 0.0
        x = cholesky.solve(L, np.append(total, c))
        return x[1:], float(x[0])

    def minimizer(
        self, D: Float[Array, " n"], L: Float[Array, "s s"], g: Float[Array, " n"], f: Float[Array, " n"]
    ) -> tuple[Float[Array, " m"], float]:
        """`H (b, theta) = [1, Phi]^T (D f - g)`."""
        wanted = D * f - g
        return self.solve(L, self.Phi.T @ wanted, float(wanted.sum()))

    def predictor(self, theta: Float[Array, " m"]) -> Float[Array, " n"]:
        """`Phi theta`."""
        return self.Phi @ theta

    def norm(self, theta: Float[Array, " m"], smooth: Float[Array, " n"], other: Float[Array, " m"]) -> float:
        """`theta^T other`."""
        del smooth
        return float(theta @ other)
