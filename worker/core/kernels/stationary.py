"""Kernels of the scaled distance `s = sum_j (x_j - z_j)^2 / width_j^2`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Float, Int

from worker.core.family import ByKind
from worker.core.hyperparameters import Box, Hyperparameters, Positive
from worker.core.kernels.function import Evaluated, KernelFunction, columns_of
from worker.core.kernels.points import Points, gap_forms, gap_products, outer_gap_forms, squared_distances
from worker.core.kernels.widths import Grouped, SharedWidth, Widths
from worker.core.records import Array


@dataclass(frozen=True, slots=True)
class Profile:
    """`K = phi(s)`; `slope()` is `phi'(s) / factor`, `of_shape()` the derivative in the logarithm of a shape parameter.

    If `phi'` is infinite at s = 0, it is set to zero: it only multiplies squared differences, which are zero there.
    """

    K: Float[Array, "n m"]
    slope: Callable[[], Float[Array, "n m"]]
    factor: float = 1.0
    of_shape: Callable[[], Float[Array, "n m"]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _KernelOfFeatures:
    """`features`: the features that the kernel uses, all by default. `name` identifies a term of a sum or product."""

    features: tuple[str, ...] | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stationary(_KernelOfFeatures, ABC):
    widths: Annotated[Widths, ByKind(named=True)] = SharedWidth()  # noqa: RUF009 - frozen

    @abstractmethod
    def shape(self) -> Hyperparameters | None:
        """The hyperparameter of the profile, if it has one."""

    @abstractmethod
    def profile(self, s: Float[Array, "n m"], shape: float) -> Profile:
        """The kernel at scaled squared distances s; it may overwrite s."""

    def over(self, features: Sequence[str], variances: Float[Array, " p"] | None = None) -> StationaryFunction:
        """The kernel of rows with these features. Raises ValueError when it does not fit them."""
        columns = columns_of(self.features, features)
        own = None if variances is None else variances[columns]
        widths = self.widths.over(features if self.features is None else self.features, own)
        shape = self.shape()
        return StationaryFunction(widths.box if shape is None else widths.box + shape, self, columns, widths)


@dataclass(frozen=True, slots=True)
class StationaryFunction(KernelFunction):
    """A stationary kernel of given columns."""

    form: _Stationary
    columns: Int[Array, " q"]
    widths: Grouped

    def at(self, X: Points, Z: Points, lam: Float[Array, " k"]) -> Evaluated:
        """The kernel of each pair."""
        h = self.widths.inverse(lam)
        A, B = X.scaled[:, self.columns] * h, Z.scaled[:, self.columns] * h
        profile = self.form.profile(squared_distances(A, B), float(lam[-1]))

        def contract(K_bar: Float[Array, "n m"]) -> Float[Array, " k"]:
            of_shape = () if profile.of_shape is None else (np.vdot(K_bar, profile.of_shape()),)
            M = profile.slope() * K_bar
            return np.append(self.widths.sums(-2.0 * profile.factor * gap_forms(A, B, M)), of_shape)

        def products(c: Float[Array, " m"], F: Float[Array, "n m"] | None) -> Float[Array, "n k"]:
            M = profile.slope() if F is None else profile.slope() * F
            found = self.widths.sums_of_rows(-2.0 * profile.factor * gap_products(A, B, M, c))
            if profile.of_shape is None:
                return found
            of_shape = profile.of_shape() if F is None else profile.of_shape() * F
            return np.column_stack([found, of_shape @ c])

        def of_outer(a: Float[Array, " n"], c: Float[Array, " m"]) -> Float[Array, " k"]:
            of_shape = () if profile.of_shape is None else (a @ profile.of_shape() @ c,)
            forms = outer_gap_forms(A, B, profile.slope(), a, c)
            return np.append(self.widths.sums(-2.0 * profile.factor * forms), of_shape)

        return Evaluated(profile.K, contract, products, of_outer)

    def diagonal(self, X: Points, lam: Float[Array, " k"]) -> Float[Array, " n"]:
        """Ones."""
        return np.ones(len(X))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rbf(_Stationary):
    """The Gaussian kernel `exp(-s / 2)`, for infinitely differentiable functions."""

    kind: Literal["rbf"] = "rbf"

    def shape(self) -> None:
        """None."""

    def profile(self, s: Float[Array, "n m"], shape: float) -> Profile:
        """`phi' = -phi / 2`."""
        s *= -0.5
        K = np.exp(s, out=s)
        return Profile(K, lambda: K, -0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Matern(_Stationary):
    """The Matern kernel of smoothness `nu`: functions are smoother for a larger `nu`.

    `e^-r` with `r = sqrt(s)` for 1/2, `(1 + a) e^-a` with `a = sqrt(3 s)` for 3/2, `(1 + a + a^2 / 3) e^-a` with
    `a = sqrt(5 s)` for 5/2.
    """

    nu: Literal["1/2", "3/2", "5/2"] = "5/2"
    kind: Literal["matern"] = "matern"

    def shape(self) -> None:
        """None: `nu` is fixed."""

    def profile(self, s: Float[Array, "n m"], shape: float) -> Profile:
        """The kernel with `phi' = -e^-r / (2 r)`, `-3/2 e^-a`, `-5/6 (1 + a) e^-a` for 1/2, 3/2, 5/2."""
        s *= int(self.nu[0])
        a = np.sqrt(s, out=s)
        decay = np.exp(-a)
        if self.nu == "1/2":
            return Profile(decay, lambda: np.divide(decay, a, out=np.zeros_like(a), where=a > 0), -0.5)
        if self.nu == "3/2":
            return Profile((1.0 + a) * decay, lambda: decay, -1.5)
        return Profile((1.0 + a + a**2 / 3.0) * decay, lambda: (1.0 + a) * decay, -5.0 / 6.0)


@dataclass(frozen=True, slots=True)
class MixtureShape(Box):
    """The box of the shape of a rational quadratic kernel."""

    initial: Positive = 1.0
    lower: Positive = 1e-2
    upper: Positive = 1e3


@dataclass(frozen=True, slots=True, kw_only=True)
class RationalQuadratic(_Stationary):
    """`(1 + s / (2 alpha))^-alpha`, a mixture of Gaussian kernels of many widths; `alpha` is tuned."""

    alpha: MixtureShape = MixtureShape()
    kind: Literal["rational_quadratic"] = "rational_quadratic"

    def shape(self) -> Hyperparameters | None:
        """`alpha`."""
        return self.alpha.hyperparameters(("alpha",))

    def profile(self, s: Float[Array, "n m"], shape: float) -> Profile:
        """`t = s / 2 alpha`, `phi' = -phi / (2 (1 + t))`, `dphi/dlog(alpha) = alpha phi (t / (1 + t) - log(1 + t))`."""
        s /= 2.0 * shape
        t, logarithm = s, np.log1p(s)
        K = np.exp(-shape * logarithm)
        return Profile(K, lambda: K / (1.0 + t), -0.5, lambda: shape * K * (t / (1.0 + t) - logarithm))


@dataclass(frozen=True, slots=True)
class Period(Box):
    """The box of a period, in the original units of the features."""

    initial: Positive = 1.0
    lower: Positive = 1e-3
    upper: Positive = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Periodic(_KernelOfFeatures):
    """`exp(-2 sum_j sin^2(pi (x_j - z_j) / period) / width_j^2)` with a tuned period, in original units.

    It is the Gaussian kernel of points on circles. J has many local minima in the period: start near the right one.
    """

    widths: Annotated[Widths, ByKind(named=True)] = SharedWidth()  # noqa: RUF009 - frozen
    period: Period = Period()
    kind: Literal["periodic"] = "periodic"

    def over(self, features: Sequence[str], variances: Float[Array, " p"] | None = None) -> PeriodicFunction:
        """The kernel of rows with these features. Raises ValueError when it does not fit them.

        Chords and their widths have no unit.
        """
        columns = columns_of(self.features, features)
        widths = self.widths.over(features if self.features is None else self.features)
        return PeriodicFunction(widths.box + self.period.hyperparameters(("period",)), columns, widths)


@dataclass(frozen=True, slots=True)
class PeriodicFunction(KernelFunction):
    """A periodic kernel of given columns."""

    columns: Int[Array, " q"]
    widths: Grouped

    def at(self, X: Points, Z: Points, lam: Float[Array, " k"]) -> Evaluated:
        """The kernel of each pair."""
        (A, A_dot), (B, B_dot) = self._circles(X, lam), self._circles(Z, lam)
        S = squared_distances(A, B)
        S *= -0.5
        K = np.exp(S, out=S)

        def contract(K_bar: Float[Array, "n m"]) -> Float[Array, " k"]:
            M = -0.5 * K * K_bar
            forms = gap_forms(A, B, M).reshape(2, -1).sum(0)
            A_bar = 2.0 * (M.sum(1)[:, None] * A - M @ B)
            B_bar = 2.0 * (M.sum(0)[:, None] * B - M.T @ A)
            return np.append(self.widths.sums(-2.0 * forms), np.vdot(A_bar, A_dot) + np.vdot(B_bar, B_dot))

        def products(c: Float[Array, " m"], F: Float[Array, "n m"] | None) -> Float[Array, "n k"]:
            M = -0.5 * K if F is None else -0.5 * K * F
            gaps = gap_products(A, B, M, c)
            found = self.widths.sums_of_rows(-2.0 * (gaps[:, : len(self.columns)] + gaps[:, len(self.columns) :]))
            # the period moves a squared distance by `2 (a_i - b_k) . (a_dot_i - b_dot_k)`
            own, both = np.einsum("ij,ij->i", A, A_dot), np.einsum("ij,ij->i", B, B_dot)
            of_rows = own * (M @ c) + M @ (c * both)
            of_rows -= np.einsum("ij,ij->i", A, M @ (c[:, None] * B_dot))
            of_rows -= np.einsum("ij,ij->i", A_dot, M @ (c[:, None] * B))
            return np.column_stack([found, 2.0 * of_rows])

        return Evaluated(K, contract, products)

    def diagonal(self, X: Points, lam: Float[Array, " k"]) -> Float[Array, " n"]:
        """Ones."""
        return np.ones(len(X))

    def _circles(self, X: Points, lam: Float[Array, " k"]) -> tuple[Float[Array, "n q2"], Float[Array, "n q2"]]:
        """Points on circles, with chords `2 sin(pi x / period) / width`, and their derivative in log period."""
        h, angle = self.widths.inverse(lam), 2.0 * np.pi / lam[-1] * X.original[:, self.columns]
        cosine, sine = np.cos(angle) * h, np.sin(angle) * h
        return np.hstack([cosine, sine]), np.hstack([sine * angle, -cosine * angle])
