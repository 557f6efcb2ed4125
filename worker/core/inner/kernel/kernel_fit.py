"""The training problem of one split of a kernel machine, its solution, and the derivatives of the solution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float

from worker.core.inner.kernel.damped_newton import KernelStart, minimize
from worker.core.inner.kernel.kernel_tangents import (
    MachineTangents,
    MovedLandmarks,
    tangents_of_landmarks,
    tangents_of_rows,
)
from worker.core.inner.kernel.newton_model import KernelMinimum, ModelOfLandmarks, ModelOfRows
from worker.core.inner.kernel.row_losses import RowLosses
from worker.core.kernels import Evaluated, KernelFunction, Points
from worker.core.linalg import cholesky
from worker.core.linalg.triangular import solve_lower
from worker.core.losses.over_rows import LossOfScored
from worker.core.losses.training_loss import MachineLoss
from worker.core.records import Array


@dataclass(frozen=True, slots=True)
class Split:
    """Rows to train on, with positive shares that sum to one, and rows to score.

    `landmarks` are the rows of `X` that have a coefficient; None means all rows. `nugget`, relative to the mean of the
    diagonal, is added to the diagonal of the kernel matrix among the landmarks.
    """

    X: Points
    y: Float[Array, " n"]
    shares: Float[Array, " n"]
    scored: Points
    y_scored: Float[Array, " v"]
    w_scored: Float[Array, " v"]
    loss: MachineLoss
    intercept: bool
    landmarks: Points | None = None
    nugget: float = 0.0

    @property
    def weight(self) -> float:
        """Sum of the scoring weights."""
        return float(self.w_scored.sum())

    def fit(self, kernel: KernelFunction, lam: Float[Array, " k"], start: KernelStart | None) -> MachineFit | None:
        """The minimum for `lam`: the penalty, then the kernel's hyperparameters; None if no minimum is found."""
        if self.landmarks is None:
            return RowFit.at(self, kernel, lam, start)
        return LandmarkFit.at(self, kernel, self.landmarks, lam, start)

    def slopes(self, f: Float[Array, " n"]) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        """The slopes of the losses of the training rows at these predictors, and at zero."""
        at_f, at_0 = (self.loss.at(self.y, eta[:, None], self.shares).slope[:, 0] for eta in (f, np.zeros_like(f)))
        return at_f, at_0

    def imbalance(self, g: Float[Array, " n"], g_0: Float[Array, " n"]) -> float:
        """`|dC/db|` relative to the sum of the `|slopes|` at zero; zero without an intercept."""
        return abs(float(g.sum())) / (float(np.abs(g_0).sum()) or 1.0) if self.intercept else 0.0

    def minimum(self, model: ModelOfRows | ModelOfLandmarks, start: KernelStart) -> KernelMinimum | None:
        """The minimum of C for a kernel matrix."""
        return minimize(model, RowLosses(self.loss, self.y, self.shares), start)


@dataclass(frozen=True, slots=True)
class KernelAdjoint:
    """`d(sum of scores)/drho`, and the relative residual of the adjoint system."""

    rho_bar: Float[Array, " k"]
    residual: float


@dataclass(frozen=True, slots=True)
class RowFit:
    """A trained machine with a coefficient for each training row."""

    split: Split
    lam: Float[Array, " k"]
    among: Evaluated
    across: Evaluated
    model: ModelOfRows
    minimum: KernelMinimum
    sweep: ClassVar[None] = None  # theta is found by iterations

    @classmethod
    def at(
        cls, split: Split, kernel: KernelFunction, lam: Float[Array, " k"], start: KernelStart | None
    ) -> RowFit | None:
        """The machine at the minimum of C, searched from a start; None if no minimum is found."""
        among = kernel.at(split.X, split.X, lam[1:])
        model = ModelOfRows(float(lam[0]), split.intercept, among.K)
        found = split.minimum(model, start or (np.zeros(len(split.y)), 0.0))
        if found is None:
            return None
        return cls(split, lam, among, kernel.at(split.scored, split.X, lam[1:]), model, found)

    @property
    def support(self) -> Points:
        """The rows that the coefficients belong to."""
        return self.split.X

    @property
    def coefficients(self) -> Float[Array, " n"]:
        """The factors of the kernels of the rows."""
        return self.minimum.theta

    @property
    def start(self) -> Float[Array, " m1"]:
        """The intercept and theta, from which a fit near by starts."""
        return np.append(self.minimum.b, self.minimum.theta)

    @property
    def scored(self) -> Float[Array, " v"]:
        """The predictors of the scored rows."""
        return self.across.K @ self.minimum.theta + self.minimum.b

    def inner_gradient_norm(self) -> float:
        """The norm of `lam theta + g` (the slopes of C) in the kernel's space, relative to the norm at zero."""
        g, g_0 = self.split.slopes(self.minimum.f)
        gradient = self.lam[0] * self.minimum.theta + g
        square, square_0 = (max(float(v @ self.model.predictor(v)), 0.0) for v in (gradient, g_0))
        return float(np.sqrt(square / (square_0 or 1.0))) + self.split.imbalance(g, g_0)

    def pullback(self, bar: Float[Array, " v"]) -> Float[Array, " k"]:
        """`d(bar . scored)/drho`, through theta and through the kernels of the scored rows."""
        return self._adjoint(bar).rho_bar

    def adjoint_residual(self, bar: Float[Array, " v"]) -> float:
        """The relative residual of the adjoint system."""
        return self._adjoint(bar).residual

    def tangents(self) -> MachineTangents:
        """The derivatives of coefficients and intercept in rho."""
        return tangents_of_rows(self.model, self.minimum, self.among.along(self.minimum.theta))

    def _adjoint(self, e: Float[Array, " v"]) -> KernelAdjoint:
        """From `e = dE/df` of the scored rows.

        The adjoint system is `(lam I + K D) z + 1 c = K_v^T e`, `1^T D z = 1^T e`. With `y = D z` the cotangents are
        `-y theta^T` of K, `e theta^T` of K_v and `-z^T theta` of lam. If no row is curved, y is `held` times `1^T e`.
        """
        split, theta, D = self.split, self.minimum.theta, self.minimum.D
        h, curved = e @ self.across.K, D > 0
        R = np.sqrt(D[curved])
        c, x = self.model.bordered(self.minimum.L, R, R * h[curved], float(e.sum()))
        y = self.minimum.held * e.sum()
        y[curved] = R * x
        K_y = self.model.predictor(y)
        z = (h - K_y - c) / self.lam[0]
        unsolved = np.append((D * z - y)[curved], (y.sum() - e.sum()) / len(y) if split.intercept else 0.0)
        rho_bar = self.across.contract_outer(e, theta) - self.among.contract_outer(y, theta)
        residual = float(np.linalg.norm(unsolved) / (np.linalg.norm(y) or 1.0))
        return KernelAdjoint(np.append(-self.lam[0] * (z @ theta), rho_bar), residual)


@dataclass(frozen=True, slots=True)
class LandmarkFit:
    """A trained machine with a coefficient for each landmark: `f = K_nm gamma + b`, `|f - b|^2 = gamma^T K_mm gamma`.

    This is the Nystrom approximation `K_nm K_mm^-1 K_mn` of the kernel, as a subset of regressors (Williams and Seeger
    2001). `gamma = C^-T theta` with `K_mm = C C^T`.
    """

    split: Split
    kernel: KernelFunction
    landmarks: Points
    lam: Float[Array, " k"]
    C: Float[Array, "m m"]
    of_rows: Evaluated
    among: Evaluated
    across: Evaluated
    model: ModelOfLandmarks
    minimum: KernelMinimum
    sweep: ClassVar[None] = None  # theta is found by iterations

    @classmethod
    def at(
        cls, split: Split, kernel: KernelFunction, landmarks: Points, lam: Float[Array, " k"], start: KernelStart | None
    ) -> LandmarkFit | None:
        """The machine at the minimum of C, searched from a start; None if no minimum is found."""
        among = kernel.at(landmarks, landmarks, lam[1:])
        K_mm = np.array(among.K, order="F")
        diagonal = cholesky.diagonal_of(K_mm)
        diagonal += split.nugget * float(np.mean(diagonal))
        C = cholesky.factor_in_place(K_mm)
        if C is None:
            return None
        of_rows = kernel.at(split.X, landmarks, lam[1:])
        Phi = solve_lower(C, of_rows.K.T).T
        model = ModelOfLandmarks(float(lam[0]), split.intercept, np.ascontiguousarray(Phi))
        found = split.minimum(model, start or (np.zeros(len(landmarks)), 0.0))
        if found is None:
            return None
        across = kernel.at(split.scored, landmarks, lam[1:])
        return cls(split, kernel, landmarks, lam, C, of_rows, among, across, model, found)

    @property
    def support(self) -> Points:
        """The rows that the coefficients belong to."""
        return self.landmarks

    @property
    def coefficients(self) -> Float[Array, " m"]:
        """The factors of the kernels of the landmarks."""
        return self._in_landmarks(self.minimum.theta)

    @property
    def start(self) -> Float[Array, " m1"]:
        """The intercept and theta, from which a fit near by starts."""
        return np.append(self.minimum.b, self.minimum.theta)

    @property
    def scored(self) -> Float[Array, " v"]:
        """The predictors of the scored rows."""
        return self.across.K @ self.coefficients + self.minimum.b

    def inner_gradient_norm(self) -> float:
        """The norm of `lam theta + Phi^T g`, g the slopes of the losses, relative to the norm at zero.

        At the coefficients of the landmarks, which predictions take: rounding of the change of basis counts.
        """
        gamma = self.coefficients
        g, g_0 = self.split.slopes(self.of_rows.K @ gamma + self.minimum.b)
        norm = np.linalg.norm(self.lam[0] * (gamma @ np.tril(self.C)) + g @ self.model.Phi)
        return float(norm / (np.linalg.norm(g_0 @ self.model.Phi) or 1.0)) + self.split.imbalance(g, g_0)

    def pullback(self, bar: Float[Array, " v"]) -> Float[Array, " k"]:
        """`d(bar . scored)/drho`, through theta and through the kernels of the scored rows."""
        return self._adjoint(bar).rho_bar

    def adjoint_residual(self, bar: Float[Array, " v"]) -> float:
        """The relative residual of the adjoint system."""
        return self._adjoint(bar).residual

    def tangents(self) -> MachineTangents:
        """The derivatives of coefficients and intercept in rho."""
        split, gamma = self.split, self.coefficients
        nugget = split.nugget / len(gamma) * np.outer(gamma, self.among.contract(np.eye(len(gamma))))
        back = self.kernel.at(self.landmarks, split.X, self.lam[1:]).along(split.slopes(self.minimum.f)[0])
        moved = MovedLandmarks(self.of_rows.along(gamma), back, self.among.along(gamma) + nugget)
        return tangents_of_landmarks(self.model, self.minimum, self.C, moved)

    def _adjoint(self, e: Float[Array, " v"]) -> KernelAdjoint:
        """From `e = dE/df` of the scored rows.

        With the adjoint (c, u) of (b, theta) and `v = C^-T u`, the cotangents are `-g v^T - D (K_nm v + c) gamma^T` of
        `K_nm`, `e gamma^T` of `K_vm`, `-lam v gamma^T` of `K_mm` and `-u^T theta` of lam. If no row is curved, `held`
        times `1^T e` replaces `D (K_nm v + c)`.
        """
        split, lam = self.split, self.lam
        gamma, (theta, D) = self.coefficients, (self.minimum.theta, self.minimum.D)
        h = solve_lower(self.C, e @ self.across.K)
        total = float(e.sum()) if split.intercept else 0.0
        if D.any():
            u, c = self.model.solve(self.minimum.L, h, total)
            y = D * (self.model.Phi @ u + c)
        else:
            y = self.minimum.held * total
            u = (h - y @ self.model.Phi) / lam[0]
        unsolved = np.append(y @ self.model.Phi + lam[0] * u - h, (y.sum() - total) * split.intercept)
        v = self._in_landmarks(u)
        g = split.loss.at(split.y, self.minimum.f[:, None], split.shares).slope[:, 0]
        rho_bar = self.across.contract_outer(e, gamma) - lam[0] * self.among.contract_outer(v, gamma)
        rho_bar -= self.of_rows.contract_outer(g, v) + self.of_rows.contract_outer(y, gamma)
        # the nugget is relative to the mean diagonal, which may depend on the kernel's hyperparameters
        diagonal_bar = split.nugget * lam[0] * float(v @ gamma) / len(v)
        rho_bar -= diagonal_bar * self.among.contract(np.eye(len(v)))
        residual = float(np.linalg.norm(unsolved) / (np.linalg.norm(np.append(h, total)) or 1.0))
        return KernelAdjoint(np.append(-lam[0] * (u @ theta), rho_bar), residual)

    def _in_landmarks(self, theta: Float[Array, " m"]) -> Float[Array, " m"]:
        """`C^-T theta`."""
        return solve_lower(self.C, theta, transposed=True)


MachineFit = RowFit | LandmarkFit


@dataclass(frozen=True, slots=True)
class KernelSystem:
    """The training problem of one split with its kernel, and the loss that scores its rows.

    Hyperparameters are the penalty, then those of the kernel.
    """

    split: Split
    kernel: KernelFunction
    loss: LossOfScored

    @property
    def solver(self) -> Literal["landmarks", "kernel_matrix"]:
        """Whether coefficients belong to landmarks or to all rows."""
        return "kernel_matrix" if self.split.landmarks is None else "landmarks"

    def fit(self, lam: Float[Array, " k"], start: Float[Array, " m1"] | None = None) -> MachineFit | None:
        """The minimizer, searched from the `start` of an earlier fit; None if no minimum is found."""
        return self.split.fit(self.kernel, lam, None if start is None else (start[1:], float(start[0])))
