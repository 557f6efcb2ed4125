"""The base of criteria from one kernel ridge fit on all rows: leave-one-out and Gaussian-process evidence.

With the shares `s` of the rows in C and `A = K + lam diag(1 / s)`, the coefficients are `theta = P y`. P is `A^-1`, or
with an intercept `A^-1 - A^-1 1 1^T A^-1 / (1^T A^-1 1)`. In both cases `dP = -P dA P`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import InitVar, dataclass, field

import numpy as np
from jaxtyping import Float

from worker.core.hyperparameters import Hyperparameters
from worker.core.inner.kernel.kernel_fit import Split
from worker.core.kernels import Evaluated, KernelFunction
from worker.core.linalg import cholesky
from worker.core.linalg.norms import relative
from worker.core.objective.objective import Found, Residuals
from worker.core.records import Array


@dataclass(frozen=True, slots=True)
class KernelSolution:
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


@dataclass(frozen=True, slots=True)
class OneKernelFit(ABC):
    """J of one fit of kernel ridge regression on all rows."""

    split: Split
    box: Hyperparameters
    kernel: KernelFunction

    def value(self, rho: Float[Array, " k"]) -> float:
        """J alone; infinite if training is singular."""
        at = self._solve(rho)
        return np.inf if at is None else self._value(rho, at)

    def found(self, rho: Float[Array, " k"]) -> Found | None:
        """J and `dJ/drho`."""
        at = self._solve(rho)
        if at is None:
            return None
        value, (A_bar, direct) = self._value(rho, at), self._pullback(rho, at)
        lam = self._training_hyperparameters(rho)
        log_lam_bar = lam[0] * float(cholesky.diagonal_of(A_bar) @ (1.0 / self.split.shares))
        direct[0] += log_lam_bar
        direct[1 : len(lam)] += at.kernel.contract(A_bar)
        return Found(value, direct, np.array([value]))

    def residuals(self, rho: Float[Array, " k"]) -> Residuals | None:
        """Of `A theta + b 1 = y`. The adjoint system has the same matrix; its right-hand side is random here."""
        at, y = self._solve(rho), self._y
        if at is None:
            return None
        b = float(at.a @ y) / at.total if at.total else 0.0
        residual = (
            at.kernel.K @ at.theta + self._training_hyperparameters(rho)[0] / self.split.shares * at.theta + b - y
        )
        v = np.random.default_rng(0).normal(size=len(y))
        x = at.project(v)
        c = float(at.a @ v) / at.total if at.total else 0.0
        adjoint = at.kernel.K @ x + self._training_hyperparameters(rho)[0] / self.split.shares * x + c - v
        return Residuals(relative(residual, y), relative(adjoint, v))

    def _training_hyperparameters(self, rho: Float[Array, " k"]) -> Float[Array, " h"]:
        """The penalty and the hyperparameters of the kernel, in natural units."""
        return self.box.natural(rho)[: 1 + len(self.kernel.box.names)]

    def _solve(self, rho: Float[Array, " k"]) -> KernelSolution | None:
        lam, split = self._training_hyperparameters(rho), self.split
        evaluated = self.kernel.at(split.X, split.X, lam[1:])
        A = np.array(evaluated.K, order="F")
        cholesky.diagonal_of(A)[...] += lam[0] / split.shares
        L = cholesky.factor_in_place(A)
        if L is None:
            return None
        a = cholesky.solve(L, np.ones(len(split.y))) if split.intercept else np.zeros(len(split.y))
        return KernelSolution(evaluated, L, a, float(a.sum()), y=self._y)

    @property
    def _y(self) -> Float[Array, " n"]:
        """The target, centred if there is an intercept: a large mean would cost digits."""
        y = self.split.y
        return y - y.mean() if self.split.intercept else y

    @abstractmethod
    def _value(self, rho: Float[Array, " k"], at: KernelSolution) -> float:
        """J."""

    @abstractmethod
    def _pullback(self, rho: Float[Array, " k"], at: KernelSolution) -> tuple[Float[Array, "n n"], Float[Array, " k"]]:
        """The cotangent of A, and `dJ/drho` at fixed A."""
