"""Selection criteria of kernel ridge regression from one fit on all rows: leave-one-out, and Gaussian-process evidence.

With the shares `s` of the rows in C and `A = K + lam diag(1 / s)`, the coefficients are `theta = P y`, where P is
`A^-1`, or with an intercept `A^-1 - A^-1 1 1^T A^-1 / (1^T A^-1 1)`; `dP = -P dA P` in both cases.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import InitVar, dataclass, field

import numpy as np
from jaxtyping import Float

from worker.core import cholesky
from worker.core.hyperparameters import Hyperparameters
from worker.core.kernels import Evaluated, KernelFunction
from worker.core.losses import ResidualLoss
from worker.core.machines.learning import of_learning
from worker.core.machines.system import Split
from worker.core.outer_objective import UNKNOWN, Objective, Residuals, Scores, failed, relative
from worker.core.records import Array, Evaluation, Outcome, Partition, Problem
from worker.core.systems import Solver


@dataclass(frozen=True, slots=True)
class _Solved:
    """The kernel, the factor of A, `a = A^-1 1` and its sum (both zero without an intercept), `theta = P y`."""

    kernel: Evaluated
    L: Float[Array, "n n"]
    a: Float[Array, " n"]
    total: float
    theta: Float[Array, " n"] = field(init=False)
    y: InitVar[Float[Array, " n"]]

    def __post_init__(self, y: Float[Array, " n"]) -> None:
        object.__setattr__(self, "theta", self.project(y))

    def project(self, v: Float[Array, " n"]) -> Float[Array, " n"]:
        """`P v`."""
        x = cholesky.solve(self.L, v)
        return x - (self.a @ v / self.total) * self.a if self.total else x

    def inverse(self) -> Float[Array, "n n"]:
        """`A^-1`."""
        return cholesky.inverse(self.L)


@dataclass(slots=True)
class _OneFit(Objective):
    """What both criteria share."""

    split: Split
    hyperparameters: Hyperparameters
    kernel: KernelFunction
    loss: ResidualLoss

    @property
    def solver(self) -> Solver:
        """A matrix with a row for each training row."""
        return "kernel_matrix"

    def value(self, rho: Float[Array, " k"]) -> float:
        """J alone; infinite where training is singular."""
        at = self._solve(rho)
        return np.inf if at is None else self._value(rho, at)

    def evaluate(self, rho: Float[Array, " k"]) -> Evaluation:
        """J and `dJ/drho`."""
        at = self._solve(rho)
        if at is None:
            return failed(rho, 1, Outcome.SINGULAR)
        value, (A_bar, direct) = self._value(rho, at), self._pullback(rho, at)
        lam = self._of_training(rho)
        of_lam = lam[0] * float(cholesky.diagonal_of(A_bar) @ (1.0 / self.split.shares))
        direct[0] += of_lam
        direct[1 : len(lam)] += at.kernel.contract(A_bar)
        if not (np.isfinite(value) and np.isfinite(direct).all()):
            return failed(rho, 1, Outcome.NON_FINITE)
        return Evaluation(rho.copy(), value, direct, np.array([value]))

    def remarks(self, rho: Float[Array, " k"]) -> tuple[str, ...]:
        """Whether little was learnt."""
        return of_learning(self, self.kernel, self.split.X, rho, self._alone)

    def residuals(self, rho: Float[Array, " k"]) -> Residuals:
        """Of `A theta + b 1 = y`, which is both the training system and, A being symmetric, the adjoint one."""
        at, y = self._solve(rho), self._y
        if at is None:
            return UNKNOWN
        b = float(at.a @ y) / at.total if at.total else 0.0
        off = at.kernel.K @ at.theta + self._of_training(rho)[0] / self.split.shares * at.theta + b - y
        v = np.random.default_rng(0).normal(size=len(y))
        x = at.project(v)
        c = float(at.a @ v) / at.total if at.total else 0.0
        adjoint = at.kernel.K @ x + self._of_training(rho)[0] / self.split.shares * x + c - v
        return Residuals(relative(off, y), relative(adjoint, v))

    def _of_training(self, rho: Float[Array, " k"]) -> Float[Array, " h"]:
        """The penalty and the hyperparameters of the kernel, in natural units."""
        return self.hyperparameters.natural(rho)[: 1 + len(self.kernel.box.names)]

    def natural(self, rho: Float[Array, " k"]) -> Float[Array, " h"]:
        """The hyperparameters of the training criterion, in natural units."""
        return self._of_training(rho)

    def _solve(self, rho: Float[Array, " k"]) -> _Solved | None:
        lam, split = self._of_training(rho), self.split
        evaluated = self.kernel.at(split.X, split.X, lam[1:])
        A = np.array(evaluated.K, order="F")
        cholesky.diagonal_of(A)[...] += lam[0] / split.shares
        L = cholesky.factor_in_place(A)
        if L is None:
            return None
        a = cholesky.solve(L, np.ones(len(split.y))) if split.intercept else np.zeros(len(split.y))
        return _Solved(evaluated, L, a, float(a.sum()), y=self._y)

    @property
    def _y(self) -> Float[Array, " n"]:
        """The target; about its mean where there is an intercept, so that its level costs no digits."""
        y = self.split.y
        return y - y.mean() if self.split.intercept else y

    def _alone(self, constant: Float[Array, " k"]) -> float:
        """J where the penalty leaves the intercept alone."""
        return self.value(constant)

    @abstractmethod
    def _value(self, rho: Float[Array, " k"], at: _Solved) -> float:
        """J."""

    @abstractmethod
    def _pullback(self, rho: Float[Array, " k"], at: _Solved) -> tuple[Float[Array, "n n"], Float[Array, " k"]]:
        """The cotangent of A, and `dJ/drho` where A stays as it is."""


@dataclass(slots=True)
class KernelLeaveOneOut(_OneFit):
    """Mean loss of `e_i = theta_i / P_ii`, the residual of row i under the fit without it (Allen 1974).

    As for linear ridge regression, the fit without a row keeps the total penalty and the shares of the others.
    """

    def row_scores(self, problem: Problem, partition: Partition, rho: Float[Array, " k"]) -> Scores | None:
        """The scores of single rows."""
        del problem, partition
        at = self._solve(rho)
        return None if at is None else Scores(self.loss.of(self._left_out(at)[0])[0], self._weights())

    def _value(self, rho: Float[Array, " k"], at: _Solved) -> float:
        del rho
        return float(self._weights() @ self.loss.of(self._left_out(at)[0])[0])

    def _pullback(self, rho: Float[Array, " k"], at: _Solved) -> tuple[Float[Array, "n n"], Float[Array, " k"]]:
        """`A_bar = -(P theta_bar) theta^T - P diag(q_bar) P` with `theta_bar = e_bar / q`, `q_bar = -e_bar e / q`."""
        e, q, P = self._left_out(at)
        e_bar = self._weights() * self.loss.of(e)[1]
        A_bar = (P * (e_bar * e / q)) @ P
        pulled = np.outer(at.project(e_bar / q), at.theta)
        A_bar -= (pulled + pulled.T) / 2
        return A_bar, np.zeros(len(rho))

    def _weights(self) -> Float[Array, " n"]:
        return self.split.w_scored / self.split.weight

    def _left_out(self, at: _Solved) -> tuple[Float[Array, " n"], Float[Array, " n"], Float[Array, "n n"]]:
        """Residuals of rows left out, the diagonal of P, and P."""
        P = at.inverse()
        if at.total:
            P -= np.outer(at.a, at.a / at.total)
        q = cholesky.diagonal_of(P).copy()
        return at.theta / q, q, P


@dataclass(slots=True)
class GaussianProcessEvidence(_OneFit):
    """Minus the log marginal likelihood in nats of `y = b + f + noise`, `f ~ N(0, s2 / (n lam) K)` (MacKay 1992).

    `N = s2 / (n lam) A` is the covariance of y where row i has the noise variance `s2 / (n s_i)`. An intercept b is
    the best one, or integrated out with a flat prior; s2 the best one for the rest, or the last hyperparameter.
    """

    noise: bool = False
    integrate_intercept: bool = False

    def unit(self, value: float) -> float:
        """Nats a row."""
        del value
        return float(len(self.split.y))

    @property
    def is_mean_loss(self) -> bool:
        """No: one value of the whole sample."""
        return False

    def noticeable(self, standard_error: float | None) -> float | None:
        """Half a nat."""
        del standard_error
        return 0.5

    def noise_variance(self, rho: Float[Array, " k"]) -> float | None:
        """`s2`."""
        at = self._solve(rho)
        return None if at is None else self._noise(rho, at)

    def _alone(self, constant: Float[Array, " k"]) -> float:
        """With the noise variance that is best then; not known of a target without any."""
        best = float(self.split.shares @ self._y**2)
        if not self.noise or best == 0:
            return np.nan if best == 0 else self.value(constant)
        return self.value(np.append(constant[:-1], np.log(best)))

    @property
    def _degrees(self) -> int:
        return len(self.split.y) - (self.split.intercept and self.integrate_intercept)

    def _noise(self, rho: Float[Array, " k"], at: _Solved) -> float:
        lam = self._of_training(rho)
        if self.noise:
            return float(self.hyperparameters.natural(rho)[-1])
        fitted = lam[0] * float(self._y @ at.theta) * len(self.split.y) / self._degrees
        return fitted if fitted > 0 else np.nan

    def _value(self, rho: Float[Array, " k"], at: _Solved) -> float:
        n, lam, s2 = len(self.split.y), self._of_training(rho)[0], self._noise(rho, at)
        scale = s2 / (n * lam)
        twice = n * np.log(2.0 * np.pi * scale) + 2.0 * np.log(np.diag(at.L)).sum() + self._y @ at.theta / scale
        if self._degrees < n:
            twice += np.log(at.total / scale) - np.log(2.0 * np.pi)
        return float(twice) / 2

    def _pullback(self, rho: Float[Array, " k"], at: _Solved) -> tuple[Float[Array, "n n"], Float[Array, " k"]]:
        """`2 A_bar = A^-1 - theta theta^T n lam / s2`, with P for `A^-1` where the intercept is integrated out."""
        n, lam, s2 = len(self.split.y), self._of_training(rho)[0], self._noise(rho, at)
        scale = s2 / (n * lam)
        A_bar = at.inverse()
        if self._degrees < n:
            A_bar -= np.outer(at.a, at.a / at.total)
        A_bar -= np.outer(at.theta, at.theta / scale)
        A_bar /= 2
        direct = np.zeros(len(rho))
        of_scale = (self._degrees - float(self._y @ at.theta) / scale) / 2  # dJ / d log scale
        direct[0] = -of_scale
        if self.noise:  # otherwise s2 is the best one, and J does not change with it
            direct[-1] = of_scale
        return A_bar, direct
