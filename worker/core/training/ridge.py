"""Ridge regression with many penalties, a quadratic training criterion (Bengio 2000, section 3).

`C(theta; rho) = 1/(2n) sum_i (y_i - eta_i)^2 + 1/2 sum_j lam_j theta^T S_j theta`: a mean, not a sum, so that a penalty
means the same in a fold and in the refit on all rows. `lam` is scikit-learn's `Ridge(alpha)` divided by the number
of training rows. The intercept is not penalized.

The intercept is eliminated: rows are centred at the means of the split's training rows, theta are the slopes, and the
intercept follows. Slopes are those of the original columns; standardizing is a matter of the penalty only, whose `S_j`
carries the variance of the training rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import blas

from worker.core import cholesky
from worker.core.family import ByKind
from worker.core.hyperparameters import Hyperparameters
from worker.core.imputation import moments_of_splits, split_problems
from worker.core.losses import SquaredErrorOfMoments, SquaredErrorOfRows, ValidationLoss
from worker.core.penalties import DiagonalPenalty, Penalty, Shared
from worker.core.records import Array, Partition, Problem
from worker.core.statistics import CHUNK_VALUES, Moments, unexplained
from worker.core.systems import Fit, System
from worker.core.tables import Rows, SparseRows, centred, column_forms, gram, mean_and_variance

NEARLY_EXACT = 1e-4  # share of the variance of y left unexplained, below which moments of y lose too many digits


@dataclass(frozen=True, slots=True)
class Ridge:
    """Linear regression with squared error and one L2 penalty, or one for each group or feature."""

    intercept: bool = True
    standardize: bool = True
    penalty: Annotated[Penalty, ByKind()] = Shared()  # noqa: RUF009 - frozen
    weights: None = None
    kind: Literal["ridge"] = "ridge"

    def hyperparameters(self, features: tuple[str, ...]) -> Hyperparameters:
        """Names, boxes and initial values. Raises ValueError when a group does not fit the features."""
        return self.penalty.columns(features)[0]

    def prefers_dual(self, train_rows: int, p: int) -> bool:
        """Whether factoring an n x n matrix costs less than a p x p one: `n^2 p + n^3 / 3` flops against `p^3 / 3`."""
        return 3 * train_rows**2 * p + train_rows**3 < p**3

    def systems(
        self, problem: Problem, partition: Partition, *, dual: bool | None = None, score_rows: bool = False
    ) -> list[System]:
        """One training system with its validation loss for each split; `dual` None chooses by cost.

        With `score_rows` the losses keep the (centred) rows, for criteria that need more than their moments.
        """
        p = problem.X.shape[1]
        if dual is None:
            dual = self.prefers_dual(max(len(partition.rows(train)) for train, _ in partition.splits), p)
        problems = split_problems(problem, partition)
        if dual:
            return [
                self._dual(split, partition.rows(train), partition.rows(val))
                for split, (train, val) in zip(problems, partition.splits, strict=True)
            ]
        moments = moments_of_splits(problem, partition, problems)
        nearly_exact = not score_rows and unexplained(moments[0][0]) < NEARLY_EXACT
        return [
            self._primal(split, train, validation, partition.rows(rows), from_rows=nearly_exact, score_rows=score_rows)
            for split, (train, validation), (_, rows) in zip(problems, moments, partition.splits, strict=True)
        ]

    def refit(self, problem: Problem, rows: Int[Array, " m"], *, dual: bool | None = None) -> System:
        """The training system of all given rows; its validation loss scores the same rows."""
        block_of_row = np.full(len(problem.y), -1)
        block_of_row[rows] = 0
        return self.systems(problem, Partition(block_of_row, (((0,), (0,)),)), dual=dual)[0]

    def _primal(
        self,
        problem: Problem,
        train: Moments,
        validation: Moments,
        rows: Int[Array, " m"],
        *,
        from_rows: bool,
        score_rows: bool,
    ) -> System:
        centre = self._centre(train.mean())
        M = train.about(centre)
        penalty = self._penalty(problem, train.variance()[:-1])
        loss: ValidationLoss
        if score_rows or len(rows) < problem.X.shape[1]:
            loss = _loss_of_rows(problem, rows, centre, dense=score_rows)
        else:
            loss = SquaredErrorOfMoments(len(rows), validation.about(centre), np.zeros(problem.X.shape[1]))
        system = PrimalRidge(loss, penalty, centre, np.asfortranarray(M[:-1, :-1] / train.n), M[:-1, -1] / train.n)
        if from_rows and isinstance(loss, SquaredErrorOfMoments):
            lower = self.hyperparameters(problem.features).box[0]
            fit = system.fit(lower)
            return system if fit is None else replace(system, loss=_about(loss, problem, rows, centre, fit.theta))
        return system

    def _dual(self, problem: Problem, train: Int[Array, " m"], validation: Int[Array, " v"]) -> System:
        y = problem.y[train]
        mean, variance = mean_and_variance(problem.X, train)
        centre = self._centre(np.append(mean, y.mean()))
        loss = _loss_of_rows(problem, validation, centre)
        X = centred(problem.X, train, centre[:-1])
        return DualRidge(loss, self._penalty(problem, variance), centre, X, y - centre[-1])

    def _centre(self, mean: Float[Array, " p1"]) -> Float[Array, " p1"]:
        return mean if self.intercept else np.zeros_like(mean)

    def _penalty(self, problem: Problem, variance: Float[Array, " p"]) -> DiagonalPenalty:
        hyperparameters, index = self.penalty.columns(problem.features)
        scale2 = np.where(self.standardize & (variance > 0), variance, 1.0)
        return DiagonalPenalty.build(index, scale2, len(hyperparameters.names))


def _loss_of_rows(
    problem: Problem, rows: Int[Array, " v"], centre: Float[Array, " p1"], *, dense: bool = False
) -> ValidationLoss:
    X = centred(problem.X, rows, centre[:-1])
    return SquaredErrorOfRows(X.dense() if dense and isinstance(X, SparseRows) else X, problem.y[rows] - centre[-1])


def _about(
    loss: SquaredErrorOfMoments,
    problem: Problem,
    rows: Int[Array, " v"],
    centre: Float[Array, " p1"],
    reference: Float[Array, " p"],
) -> SquaredErrorOfMoments:
    """The same loss about a reference near the minimizers, whose residuals are taken from the rows, in chunks."""
    M = loss.M.copy(order="F")
    M[:, -1] = M[-1, :] = 0.0
    for some in np.array_split(rows, max(1, len(rows) * len(reference) // CHUNK_VALUES)):
        X = centred(problem.X, some, centre[:-1])
        residual = problem.y[some] - centre[-1] - X @ reference
        M[:-1, -1] += residual @ X
        M[-1, -1] += residual @ residual
    M[-1, :-1] = M[:-1, -1]
    return SquaredErrorOfMoments(loss.n, M, reference)


@dataclass(frozen=True, slots=True)
class _RidgeSystem:
    """`centre` holds the origin of `[X, y]` in original units: the training means, or zero without an intercept."""

    loss: ValidationLoss
    penalty: DiagonalPenalty
    centre: Float[Array, " p1"]

    def coefficients(self, theta: Float[Array, " p"]) -> tuple[float, Float[Array, " p"]]:
        """Intercept and slopes in original units."""
        return float(self.centre[-1] - self.centre[:-1] @ theta), theta


@dataclass(frozen=True, slots=True)
class _RidgeFit:
    penalty: DiagonalPenalty
    diagonal: Float[Array, " p"]
    theta: Float[Array, " p"]

    def contract(self, u: Float[Array, " p"]) -> Float[Array, " k"]:
        """`(d2C/dtheta drho)^T u`: entries `lam_j u^T S_j theta`."""
        return self.penalty.contract(self.diagonal, u * self.theta)

    def contract_matrix(self, H_bar: Float[Array, "p p"]) -> Float[Array, " k"]:
        """`<H_bar, dH/drho_j>` for each hyperparameter."""
        return self.penalty.contract(self.diagonal, np.diag(H_bar))

    def forms(self, W: Float[Array, "n p"]) -> Float[Array, "n k"]:
        """`w_i^T (dH/drho_j) w_i` for each row of W and each hyperparameter."""
        return self.penalty.sum_columns(W**2 * self.diagonal)

    def contract_pairs(self, P: Float[Array, "p p"], S: Float[Array, "p p"]) -> Float[Array, "k k"]:
        """`tr((dH/drho_j) P (dH/drho_l) S)` for each pair of hyperparameters; P and S symmetric."""
        scaled = self.diagonal[:, None] * (P * S) * self.diagonal
        return self.penalty.sum_columns(self.penalty.sum_columns(scaled).T)

    def contract_columns(self, u: Float[Array, " p"], D: Float[Array, "p f"]) -> Float[Array, "k f"]:
        """`u^T (dH/drho_j) D_l`: entries `lam_j u^T S_j D_l`."""
        return self.penalty.contract_columns(self.diagonal, u, D)


@dataclass(frozen=True, slots=True)
class PrimalRidge(_RidgeSystem):
    """`H theta = b` with `H = H0 + sum_j lam_j S_j`, `H0 = X^T X / n` and `b = X^T y / n` of centred rows."""

    H0: Float[Array, "p p"]
    b: Float[Array, " p"]
    solver: Literal["primal"] = "primal"

    def fit(self, lam: Float[Array, " k"]) -> Fit | None:
        """The minimizer, or None if H is not positive definite to working precision."""
        diagonal = self.penalty.diagonal(lam)
        H = self.H0.copy(order="F")
        cholesky.diagonal_of(H)[...] += diagonal
        L = cholesky.factor_in_place(H)
        return None if L is None else PrimalFit(self.penalty, diagonal, cholesky.solve(L, self.b), self, L)


@dataclass(frozen=True, slots=True)
class PrimalFit(_RidgeFit):
    """A minimizer with the factor of H."""

    system: PrimalRidge
    L: Float[Array, "p p"]

    def solve(self, b: Float[Array, " p *m"]) -> Float[Array, " p *m"]:
        """`H^-1 b`."""
        return cholesky.solve(self.L, b)

    def sensitivity(self, chosen: Int[Array, " f"]) -> Float[Array, "p f"]:
        """`dtheta/drho_j = -H^-1 lam_j S_j theta` for the chosen hyperparameters."""
        if self.penalty.one_column_each and 3 * len(chosen) > len(self.theta):
            return cholesky.inverse(self.L)[:, chosen] * (-self.diagonal * self.theta)[chosen]
        return -self.solve(self.penalty.products(self.diagonal, self.theta, chosen))

    def apply(self, v: Float[Array, " p"]) -> Float[Array, " p"]:
        """`H v`."""
        return self.system.H0 @ v + self.diagonal * v

    def gradient(self) -> Float[Array, " p"]:
        """`dC/dtheta`, zero up to round-off."""
        return self.apply(self.theta) - self.system.b

    def inverse(self) -> Float[Array, "p p"]:
        """`H^-1`."""
        return cholesky.inverse(self.L)

    def sweep(
        self,
        theta_bar: Float[Array, " p"],
        X: Float[Array, "n p"] | None = None,
        leverage_bar: Float[Array, " n"] | None = None,
    ) -> Float[Array, " k"]:
        """`rho_bar` by the reverse sweep through the factorization (Bengio 2000, section 3).

        The leverages are the squared norms of the columns of `V = L^-1 X^T`, so `V_bar = 2 V diag(leverage_bar)` adds
        `-L^-T V_bar V^T` to `L_bar`.
        """
        L_bar = _solve_bar(self.L, self.system.b, self.theta, theta_bar)
        if X is not None and leverage_bar is not None:
            V = blas.dtrsm(1.0, self.L, np.asfortranarray(X.T), lower=1)
            L_bar -= blas.dtrsm(1.0, self.L, np.asfortranarray(2.0 * V * leverage_bar), lower=1, trans_a=1) @ V.T
        return self.contract_matrix(cholesky.pullback(self.L, L_bar))


@dataclass(frozen=True, slots=True)
class DualRidge(_RidgeSystem):
    """The same minimizer through the n x n matrix `K = n I + X P^-1 X^T`, `P` the penalty's diagonal; for p > n.

    `theta = P^-1 X^T K^-1 y`, and `H^-1 = P^-1 - P^-1 X^T K^-1 X P^-1` (Woodbury).
    """

    X: Rows
    y: Float[Array, " n"]
    solver: Literal["dual"] = "dual"

    def fit(self, lam: Float[Array, " k"]) -> Fit | None:
        """The minimizer, or None if K is not positive definite to working precision."""
        diagonal = self.penalty.diagonal(lam)
        K = gram(self.X, diagonal, CHUNK_VALUES)
        cholesky.diagonal_of(K)[...] += len(self.y)
        L = cholesky.factor_in_place(K)
        if L is None:
            return None
        alpha = cholesky.solve(L, self.y)
        return DualFit(self.penalty, diagonal, (alpha @ self.X) / diagonal, self, L, alpha)


@dataclass(frozen=True, slots=True)
class DualFit(_RidgeFit):
    """A minimizer with the factor of K and the dual solution `alpha = K^-1 y`."""

    system: DualRidge
    L: Float[Array, "n n"]
    alpha: Float[Array, " n"]

    def solve(self, b: Float[Array, " p *m"]) -> Float[Array, " p *m"]:
        """`H^-1 b`."""
        X, P = self.system.X, self.diagonal
        scaled = (b.T / P).T
        inner = cholesky.solve(self.L, np.asfortranarray(X @ scaled))
        return scaled - ((X.T @ inner).T / P).T

    def sensitivity(self, chosen: Int[Array, " f"]) -> Float[Array, "p f"]:
        """`dtheta/drho_j = -H^-1 lam_j S_j theta` for the chosen hyperparameters."""
        return -self.solve(self.penalty.products(self.diagonal, self.theta, chosen))

    def apply(self, v: Float[Array, " p"]) -> Float[Array, " p"]:
        """`H v`."""
        X = self.system.X
        return (X @ v) @ X / len(X) + self.diagonal * v

    def gradient(self) -> Float[Array, " p"]:
        """`dC/dtheta`, zero up to round-off."""
        return self.apply(self.theta) - self.system.y @ self.system.X / len(self.system.y)

    def inverse(self) -> Float[Array, "p p"]:
        """`H^-1`."""
        return self.solve(np.eye(len(self.theta)))

    def sweep(
        self,
        theta_bar: Float[Array, " p"],
        X: Float[Array, "n p"] | None = None,  # noqa: ARG002 - see below
        leverage_bar: Float[Array, " n"] | None = None,
    ) -> Float[Array, " k"]:
        """`rho_bar` by the reverse sweep through the factorization of K. Raises ValueError for leverages.

        `K_bar` reaches `P^-1` through `diag(X^T K_bar X)`, and `P^-1` reaches rho by `d(P^-1)/drho_j = -P^-1`.
        """
        if leverage_bar is not None:
            raise ValueError("leverages are differentiated through the factor of H; use the primal solver")
        rows, P = self.system.X, self.diagonal
        K_bar = cholesky.pullback(self.L, _solve_bar(self.L, self.system.y, self.alpha, rows @ (theta_bar / P)))
        inverse_bar = theta_bar * (self.alpha @ rows) + column_forms(rows, K_bar, CHUNK_VALUES)
        return -self.penalty.contract(P, inverse_bar / P**2)


def _solve_bar(
    L: Float[Array, "m m"], b: Float[Array, " m"], x: Float[Array, " m"], x_bar: Float[Array, " m"]
) -> Float[Array, "m m"]:
    """Cotangent of the factor L in `x = (L L^T)^-1 b`, through both triangular solves.

    `L v = b` and `L^T x = v` give `v_bar = L^-1 x_bar`, `b_bar = L^-T v_bar`, `L_bar = -x v_bar^T - b_bar v^T`.
    """
    v = blas.dtrsv(L, b, lower=1)
    v_bar = blas.dtrsv(L, x_bar, lower=1)
    b_bar = blas.dtrsv(L, v_bar, lower=1, trans=1)
    return -np.outer(x, v_bar) - np.outer(b_bar, v)
