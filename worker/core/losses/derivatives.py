"""A weighted sum of losses of rows as a function of the linear predictors, with its derivatives up to the third.

The predictors `eta` have one row for each row of the table and one column for each output: one, or one for each class.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from worker.core.losses.elementary import residuals
from worker.core.records import Array


@runtime_checkable
class ScoreDerivatives(Protocol):
    """A function f of all predictors at one point; everything except `losses` includes the row weights.

    f is `sum_i w_i loss_i(eta_i)`, or `sum_i w_i` times a score of all rows together.
    """

    @property
    def losses(self) -> Float[Array, " n"] | None:
        """The loss of each row, without its weight; None if single rows have no loss."""

    @property
    def value(self) -> float:
        """`f`."""

    @property
    def slope(self) -> Float[Array, "n m"]:
        """`df/d eta`."""

    def bend(self, V: Float[Array, "n m f"]) -> Float[Array, "n m f"]:
        """The second derivative of f times each of the directions `V[:, :, j]`."""


@runtime_checkable
class RowDerivatives(ScoreDerivatives, Protocol):
    """`f(eta) = sum_i w_i loss_i(eta_i)` at one point, as training needs it."""

    @property
    def losses(self) -> Float[Array, " n"]:
        """The loss of each row, without its weight."""

    def with_losses(self, losses: Float[Array, " n"]) -> RowDerivatives:
        """The same with other losses, which differ from these by a constant for each row."""

    def least_curvature(self) -> Float[Array, " n"]:
        """For each row, without its weight, a number a with `d2 loss[v, v] >= a |Q v|^2`.

        Q subtracts the mean over the outputs, if there are several.
        """

    def curvatures(self) -> Float[Array, "n m m"]:
        """The second derivative of each row's loss, without its weight."""

    def third_contract(self, A: Float[Array, "n m m"]) -> Float[Array, "n m"]:
        """The third derivative of each row's loss, without its weight, contracted with a symmetric matrix."""

    def majorized(self) -> RowDerivatives | None:
        """The same with curvatures of parabolas above the losses; None if the curvatures do not jump."""

    def part(self, rows: slice) -> RowDerivatives:
        """The same for a slice of the rows."""

    def twist(self, U: Float[Array, "n m"], V: Float[Array, "n m f"]) -> Float[Array, "f f"]:
        """The third derivative of f along U and each pair of the directions in V."""

    def blocks(self) -> Iterator[tuple[int, int, Float[Array, " n"]]]:
        """`d2f / d eta_ia d eta_ib` for each pair of outputs `a <= b`, unless it is zero for all rows."""


@dataclass(frozen=True, slots=True)
class Elementwise:
    """One output: the derivatives of a row are scalars; `first`, `second`, `third` exclude the weights `w`.

    If curvatures jump, `upper` are the curvatures of parabolas that touch the losses here and are nowhere below them.
    """

    losses: Float[Array, " n"]
    first: Float[Array, " n"]
    second: Float[Array, " n"]
    third: Float[Array, " n"]
    w: Float[Array, " n"]
    upper: Float[Array, " n"] | None = None

    @property
    def value(self) -> float:
        """`f`."""
        return float(self._weighted(self.losses).sum())

    @property
    def slope(self) -> Float[Array, "n 1"]:
        """`df/d eta`."""
        return self._weighted(self.first)[:, None]

    def bend(self, V: Float[Array, "n 1 f"]) -> Float[Array, "n 1 f"]:
        """The second derivative of f times each direction."""
        return self._weighted(self.second)[:, None, None] * V

    def curvatures(self) -> Float[Array, "n 1 1"]:
        """The second derivative."""
        return self.second[:, None, None]

    def third_contract(self, A: Float[Array, "n 1 1"]) -> Float[Array, "n 1"]:
        """The third derivative times A."""
        return self.third[:, None] * A[:, :, 0]

    def with_losses(self, losses: Float[Array, " n"]) -> Elementwise:
        """The same with other losses."""
        return replace(self, losses=losses)

    def least_curvature(self) -> Float[Array, " n"]:
        """The second derivative."""
        return self.second

    def majorized(self) -> Elementwise | None:
        """The same with the curvatures `upper`; None if the loss has continuous curvature."""
        return None if self.upper is None else replace(self, second=self.upper, upper=None)

    def part(self, rows: slice) -> Elementwise:
        """The same for a slice of the rows."""
        return Elementwise(self.losses[rows], self.first[rows], self.second[rows], self.third[rows], self.w[rows])

    def twist(self, U: Float[Array, "n 1"], V: Float[Array, "n 1 f"]) -> Float[Array, "f f"]:
        """The third derivative of f along U and each pair of the directions in V."""
        flat = V[:, 0, :]
        return (flat.T * (self._weighted(self.third) * U[:, 0])) @ flat

    def blocks(self) -> Iterator[tuple[int, int, Float[Array, " n"]]]:
        """The one block."""
        yield 0, 0, self._weighted(self.second)

    def _weighted(self, a: Float[Array, " n"]) -> Float[Array, " n"]:
        """`w a`; zero for a row of weight zero, even if a is infinite."""
        return np.multiply(self.w, a, out=np.zeros_like(a), where=self.w != 0)


@dataclass(frozen=True, slots=True)
class Softmax:
    """The log-loss of a softmax over classes: `probabilities[i, a] = exp(eta_ia) / sum_b exp(eta_ib)`."""

    losses: Float[Array, " n"]
    probabilities: Float[Array, "n m"]
    observed: Float[Array, "n m"]
    w: Float[Array, " n"]

    @property
    def value(self) -> float:
        """`f`."""
        return float(self.w @ self.losses)

    @property
    def slope(self) -> Float[Array, "n m"]:
        """`df/d eta`."""
        return self.w[:, None] * residuals(self.probabilities, self.observed)

    def bend(self, V: Float[Array, "n m f"]) -> Float[Array, "n m f"]:
        """The second derivative of f times each direction: `w p (v - mean of v)`, means under the probabilities."""
        return (self.w[:, None] * self.probabilities)[:, :, None] * self._centred(V)

    def curvatures(self) -> Float[Array, "n m m"]:
        """`diag(p) - p p^T`."""
        p = self.probabilities
        out = -p[:, :, None] * p[:, None, :]
        np.einsum("naa->na", out)[...] += p
        return out

    def third_contract(self, A: Float[Array, "n m m"]) -> Float[Array, "n m"]:
        """`sum_k p_k (d_k^T A d_k) d_k` with `d_k = e_k - p`: a third central moment."""
        p = self.probabilities
        Ap = np.einsum("nab,nb->na", A, p)
        forms = np.einsum("naa->na", A) - 2.0 * Ap + np.sum(p * Ap, axis=1, keepdims=True)
        return p * (forms - np.sum(p * forms, axis=1, keepdims=True))

    def with_losses(self, losses: Float[Array, " n"]) -> Softmax:
        """The same with other losses."""
        return replace(self, losses=losses)

    def least_curvature(self) -> Float[Array, " n"]:
        """The smallest probability: `sum_a p_a (v_a - c)^2 >= min p sum_a (v_a - c)^2` for every c."""
        return self.probabilities.min(axis=1)

    def majorized(self) -> None:
        """None: the curvature is continuous."""

    def part(self, rows: slice) -> Softmax:
        """The same for a slice of the rows."""
        return Softmax(self.losses[rows], self.probabilities[rows], self.observed[rows], self.w[rows])

    def twist(self, U: Float[Array, "n m"], V: Float[Array, "n m f"]) -> Float[Array, "f f"]:
        """The third central moment under the probabilities, along U and each pair of the directions in V."""
        centred = self._centred(V).reshape(-1, V.shape[2])
        factor = self.w[:, None] * self.probabilities * self._centred(U[:, :, None])[:, :, 0]
        return (centred.T * factor.ravel()) @ centred

    def blocks(self) -> Iterator[tuple[int, int, Float[Array, " n"]]]:
        """`w p_a (delta_ab - p_b)`."""
        p = self.probabilities
        likely = p > 0.5
        rest = np.where(likely, np.where(likely, 0.0, p).sum(1, keepdims=True), 1.0 - p)
        for a in range(p.shape[1]):
            scaled = self.w * p[:, a]
            yield a, a, scaled * rest[:, a]
            for b in range(a + 1, p.shape[1]):
                yield a, b, -scaled * p[:, b]

    def _centred(self, V: Float[Array, "n m f"]) -> Float[Array, "n m f"]:
        return _centred(self.probabilities, V)


@dataclass(frozen=True, slots=True)
class ProbabilityDerivatives:
    """A function g of the softmax probabilities of `scale * eta`; `inner = dg/dp`, `d2g/dp2 = inner_second * I`."""

    losses: Float[Array, " n"]
    probabilities: Float[Array, "n m"]
    inner: Float[Array, "n m"]
    inner_second: float
    scale: float
    w: Float[Array, " n"]

    @property
    def value(self) -> float:
        """`f`."""
        return float(self.w @ self.losses)

    @property
    def slope(self) -> Float[Array, "n m"]:
        """`df/d eta = w scale p (inner - mean of inner)`, means under the probabilities."""
        return self.scale * self.w[:, None] * self.probabilities * self._centred_inner

    def bend(self, V: Float[Array, "n m f"]) -> Float[Array, "n m f"]:
        """The second derivative of f times each direction: the product rule along the change of the probabilities."""
        p_dot = self.probabilities[:, :, None] * _centred(self.probabilities, V)
        inner_dot = self.inner_second * _centred(self.probabilities, p_dot)
        mean_dot = np.einsum("na,naf->nf", self.inner, p_dot)[:, None, :]
        change = p_dot * self._centred_inner[:, :, None] + self.probabilities[:, :, None] * (inner_dot - mean_dot)
        return self.scale**2 * self.w[:, None, None] * change

    @property
    def _centred_inner(self) -> Float[Array, "n m"]:
        return _centred(self.probabilities, self.inner[:, :, None])[:, :, 0]


@dataclass(frozen=True, slots=True)
class Scaled:
    """`factor` times another function."""

    of: ScoreDerivatives
    factor: float

    @property
    def losses(self) -> Float[Array, " n"] | None:
        """The loss of each row, without its weight."""
        return None if self.of.losses is None else self.factor * self.of.losses

    @property
    def value(self) -> float:
        """`f`."""
        return self.factor * self.of.value

    @property
    def slope(self) -> Float[Array, "n m"]:
        """`df/d eta`."""
        return self.factor * self.of.slope

    def bend(self, V: Float[Array, "n m f"]) -> Float[Array, "n m f"]:
        """The second derivative of f times each direction."""
        return self.factor * self.of.bend(V)


def _centred(p: Float[Array, "n m"], V: Float[Array, "n m f"]) -> Float[Array, "n m f"]:
    return V - np.einsum("na,naf->nf", p, V)[:, None, :]
