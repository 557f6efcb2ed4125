"""Training losses of one row as functions of its linear predictor, and rigorous bounds of how their derivatives change.

Every loss gives its value and its derivatives from the same few exponentials, without cancellation and at any scale.
Methods named `_change` bound a change for any move of the predictors by at most `radius` in each output, row by row:
where one direction is the worse one they are the largest change itself, so they are zero where nothing changes.

`concordance` is the kappa of `-kappa r H <= H' <= kappa r H` for the curvature H of a row along any move of its
predictors by at most r in each output (self-concordance: Bach 2010); None where the curvature jumps.

A loss states its `link`, its `excess`, which is half of its deviance, and whether it is a likelihood (`is_likelihood`:
minus the logarithm of a probability or density of the target, up to a constant). Predictions, reports and selection
criteria read them here. Losses that kernel machines train by also state their `largest_curvature`, a bound of the
second derivative, and their `kinks`: the margins `(2 y - 1) eta` at which the second derivative jumps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge
from jaxtyping import Float
from scipy.special import expit

from worker.core.hyperparameters import Positive
from worker.core.losses.derivatives import Elementwise, Softmax
from worker.core.losses.elementary import (
    TINY,
    Column,
    Outputs,
    PerRow,
    exp_less_line,
    growth,
    half_a_row,
    log_shares,
    logistic_fall,
    one_hot,
    probability_change,
    reached,
    refuse,
    refuse_binary,
    refuse_classes,
    softmax_terms,
)
from worker.core.losses.hinges import HuberizedHingeLoss, SquaredHingeLoss
from worker.core.losses.links import IdentityLink, Link, LogitLink, LogLink, SoftmaxLink
from worker.core.records import Array


@dataclass(frozen=True, slots=True)
class LogisticLoss:
    """`log(1 + e^eta) - y eta` with y in {0, 1}: the negative log-likelihood of `P(y = 1) = 1 / (1 + e^-eta)`."""

    outputs: ClassVar[int] = 1
    concordance: ClassVar[float | None] = 1.0
    link: ClassVar[Link] = LogitLink()
    is_likelihood: ClassVar[bool] = True
    largest_curvature: ClassVar[float] = 0.25
    kinks: ClassVar[tuple[float, ...]] = ()

    def at(self, y: PerRow, eta: Column, w: PerRow) -> Elementwise:
        """Losses and derivatives: with `sigma = mean(eta)` they are `sigma - y`, `sigma (1 - sigma)` and so on."""
        sign, size = 2.0 * y - 1.0, np.abs(eta[:, 0])
        wrong = -sign * eta[:, 0]
        e = np.exp(-size)
        second = e / (1.0 + e) ** 2
        first = -sign * np.where(wrong > 0, 1.0, e) / (1.0 + e)
        return Elementwise(np.maximum(wrong, 0.0) + np.log1p(e), first, second, -second * np.tanh(eta[:, 0] / 2), w)

    def excess(self, y: PerRow, eta: Column, losses: PerRow) -> PerRow:
        """The losses themselves: the least is zero."""
        return losses

    def check(self, y: PerRow) -> None:
        """Raises ValueError unless y holds zeros and ones."""
        refuse_binary(y)

    def constant(self, y: PerRow, w: PerRow) -> Float[Array, " 1"]:
        """The log-odds of class 1, a class without rows counted as half the lightest row."""
        return np.diff(log_shares(np.array([w @ (1.0 - y), w @ y]), w))

    def curvature_change(self, y: PerRow, eta: Column, radius: PerRow) -> PerRow:
        """Largest change of `sigma (1 - sigma)`, which falls with the distance from 0: that to either end."""
        size = np.abs(eta[:, 0])
        inwards = np.minimum(radius, size)
        return np.maximum(logistic_fall(size - inwards, size, inwards), logistic_fall(size, size + radius, radius))

    def slope_change(self, y: PerRow, eta: Column, radius: PerRow) -> PerRow:
        """Largest change of `sigma`: that of a move towards 0."""
        size = np.abs(eta[:, 0])
        return expit(radius - size) * expit(size) * -np.expm1(-radius)


@dataclass(frozen=True, slots=True)
class MultinomialLoss:
    """`log(sum_b e^eta_b) - eta_y` with y the number of the class, from 0: the log-loss of a softmax over classes."""

    classes: Annotated[int, Ge(2)]

    concordance: ClassVar[float | None] = 2.0
    link: ClassVar[Link] = SoftmaxLink()
    is_likelihood: ClassVar[bool] = True

    @property
    def outputs(self) -> int:
        """One predictor for each class."""
        return self.classes

    def at(self, y: PerRow, eta: Outputs, w: PerRow) -> Softmax:
        """Losses, probabilities and what the derivatives are made of."""
        behind, e, others = softmax_terms(eta)
        losses = np.log1p(others) + behind[np.arange(len(y)), y.astype(int)]
        return Softmax(losses, e / (1.0 + others)[:, None], one_hot(y, self.classes), w)

    def excess(self, y: PerRow, eta: Outputs, losses: PerRow) -> PerRow:
        """The losses themselves: the least is zero."""
        return losses

    def check(self, y: PerRow) -> None:
        """Raises ValueError unless y holds numbers of classes."""
        refuse_classes(y, self.classes)

    def constant(self, y: PerRow, w: PerRow) -> Float[Array, " m"]:
        """Logarithms of the shares of the classes less their mean, one without rows as half the lightest row."""
        shares = log_shares(np.bincount(y.astype(int), w, self.classes), w)
        return shares - shares.mean()

    def curvature_change(self, y: PerRow, eta: Outputs, radius: PerRow) -> PerRow:
        """`|H| (e^(2 r) - 1)`, at most 1/2: no `H = diag(p) - p p^T` has a larger norm, nor a difference of two.

        The third derivative is a third moment about the mean, so `-2 r H <= H' <= 2 r H` along any move; `|H|` is at
        most the largest absolute sum of a row, `2 p (1 - p)` of the likeliest class.
        """
        others = softmax_terms(eta)[2]
        norm = np.maximum(2.0 * others / (1.0 + others) ** 2, TINY)
        with np.errstate(over="ignore"):
            return np.minimum(norm * np.expm1(2.0 * radius), 0.5)

    def slope_change(self, y: PerRow, eta: Outputs, radius: PerRow) -> PerRow:
        """Bound of `|p' - p|`: the log-odds of any set of classes move by at most `2 r`.

        So does each class; and the total variation is at most `tanh(r / 2)`, times `sqrt(2)` a bound of the norm.
        """
        each = probability_change(eta, radius)
        return np.minimum(np.sqrt((each**2).sum(1)), np.sqrt(2.0) * np.tanh(radius / 2))


@dataclass(frozen=True, slots=True)
class PoissonLoss:
    """`e^eta - y eta`: counts (fractions allowed, as of rates) with the mean `e^eta`; infinite beyond about 709."""

    outputs: ClassVar[int] = 1
    concordance: ClassVar[float | None] = 1.0
    link: ClassVar[Link] = LogLink()
    is_likelihood: ClassVar[bool] = True

    def at(self, y: PerRow, eta: Column, w: PerRow) -> Elementwise:
        """Losses and derivatives: `e^eta - y`, `e^eta`, `e^eta`."""
        mu = self.link.mean(eta)[:, 0]
        return Elementwise(mu - y * np.minimum(eta[:, 0], 1e3), mu - y, mu, mu, w)

    def excess(self, y: PerRow, eta: Column, losses: PerRow) -> PerRow:
        """`mu - y + y log(y / mu)`, which is `y (e^t - 1 - t)` of `t = eta - log y`."""
        mu = self.link.mean(eta)[:, 0]
        t = np.minimum(eta[:, 0], 1e3) - np.log(np.where(y > 0, y, 1.0))
        near = (y > 0) & (np.abs(t) <= 0.5)
        return np.where(near, y * exp_less_line(np.where(near, t, 0.0)), mu - y - y * t)

    def check(self, y: PerRow) -> None:
        """Raises ValueError where y is negative."""
        refuse(~((y >= 0) & np.isfinite(y)), y, "the Poisson loss takes counts, zero or more")

    def constant(self, y: PerRow, w: PerRow) -> Float[Array, " 1"]:
        """Logarithm of the mean, of half an event in the lightest row where there are none."""
        total = w.sum()
        return np.log([max(w @ y, half_a_row(w)) / total]) if total > 0 else np.zeros(1)

    def curvature_change(self, y: PerRow, eta: Column, radius: PerRow) -> PerRow:
        """`e^(eta + r) - e^eta`."""
        return growth(eta[:, 0], radius)

    def slope_change(self, y: PerRow, eta: Column, radius: PerRow) -> PerRow:
        """The same: slope and curvature are `e^eta`, up to a constant."""
        return self.curvature_change(y, eta, radius)


@dataclass(frozen=True, slots=True)
class GammaLoss:
    """`y e^-eta + eta`: positive targets with the mean `e^eta` and a spread in proportion to it."""

    outputs: ClassVar[int] = 1
    concordance: ClassVar[float | None] = 1.0
    link: ClassVar[Link] = LogLink()
    is_likelihood: ClassVar[bool] = True

    def at(self, y: PerRow, eta: Column, w: PerRow) -> Elementwise:
        """Losses and derivatives: `1 - y e^-eta`, `y e^-eta`, `-y e^-eta`."""
        with np.errstate(over="ignore"):
            ratio = y * np.exp(-eta[:, 0])
        return Elementwise(ratio + eta[:, 0], 1.0 - ratio, ratio, -ratio, w)

    def excess(self, y: PerRow, eta: Column, losses: PerRow) -> PerRow:
        """`y / mu - 1 - log(y / mu)`."""
        return exp_less_line(np.log(y) - eta[:, 0])

    def check(self, y: PerRow) -> None:
        """Raises ValueError where y is not positive."""
        refuse(~((y > 0) & np.isfinite(y)), y, "the gamma loss takes positive targets; drop or shift the others")

    def constant(self, y: PerRow, w: PerRow) -> Float[Array, " 1"]:
        """Logarithm of the mean."""
        total = w.sum()
        return np.log([(w / total) @ y]) if total > 0 else np.zeros(1)

    def curvature_change(self, y: PerRow, eta: Column, radius: PerRow) -> PerRow:
        """`y (e^(r - eta) - e^-eta)`."""
        with np.errstate(over="ignore"):
            return y * growth(-eta[:, 0], radius)

    def slope_change(self, y: PerRow, eta: Column, radius: PerRow) -> PerRow:
        """The same: slope and curvature are `y e^-eta`, up to sign and a constant."""
        return self.curvature_change(y, eta, radius)


@dataclass(frozen=True, slots=True)
class HuberLoss:
    """`r^2 / 2` of the residual `r = y - eta` up to `|r| = delta`, `delta |r| - delta^2 / 2` beyond (Huber 1964).

    `delta` in units of the target. There is no third derivative at the two kinks of the slope; it counts as zero.
    """

    delta: Positive

    outputs: ClassVar[int] = 1
    concordance: ClassVar[float | None] = None
    link: ClassVar[Link] = IdentityLink()
    is_likelihood: ClassVar[bool] = True

    def at(self, y: PerRow, eta: Column, w: PerRow) -> Elementwise:
        """Losses and derivatives: `-r` clipped to `+-delta`, 1 inside and 0 outside, 0."""
        r = y - eta[:, 0]
        inside = np.clip(r, -self.delta, self.delta)
        second = (np.abs(r) <= self.delta).astype(float)
        above = self.delta / np.maximum(np.abs(r), self.delta)  # as of iteratively reweighted least squares
        return Elementwise(inside * (r - inside / 2), -inside, second, np.zeros_like(r), w, above)

    def excess(self, y: PerRow, eta: Column, losses: PerRow) -> PerRow:
        """The losses themselves: the least is zero."""
        return losses

    def check(self, y: PerRow) -> None:
        """Raises ValueError where y is not finite."""
        refuse(~np.isfinite(y), y, "the Huber loss takes finite numbers")

    def constant(self, y: PerRow, w: PerRow) -> Float[Array, " 1"]:
        """Huber's location of y: the zero of the sum of slopes, which is linear between the kinks `y +- delta`."""
        knots = np.concatenate([y - self.delta, y + self.delta])
        order = np.argsort(knots)
        knots = knots[order]
        inside = np.cumsum(np.concatenate([w, -w])[order])[:-1]
        pull = self.delta * w.sum() - np.append(0.0, np.cumsum(inside * np.diff(knots)))  # at each knot, falling
        last = int(np.argmax(pull <= 0))
        step = pull[last - 1] / inside[last - 1] if last > 0 else 0.0
        return np.array([knots[max(last - 1, 0)] + step])

    def curvature_change(self, y: PerRow, eta: Column, radius: PerRow) -> PerRow:
        """1 for rows that can reach a kink, else 0."""
        distance = np.abs(np.abs(y - eta[:, 0]) - self.delta)
        return reached(distance, radius, np.abs(y) + np.abs(eta[:, 0]) + self.delta)

    def slope_change(self, y: PerRow, eta: Column, radius: PerRow) -> PerRow:
        """Largest change of the clipped residual: that of a move towards 0."""
        size = np.abs(y - eta[:, 0])
        return np.minimum(size, self.delta) - np.clip(size - radius, -self.delta, self.delta)


TrainingLoss = LogisticLoss | MultinomialLoss | PoissonLoss | GammaLoss | HuberLoss | SquaredHingeLoss


@dataclass(frozen=True, slots=True)
class HalfSquaredError:
    """`(y - eta)^2 / 2`: the negative log-likelihood of a normal distribution of unit variance."""

    link: ClassVar[Link] = IdentityLink()
    is_likelihood: ClassVar[bool] = True
    largest_curvature: ClassVar[float] = 1.0
    kinks: ClassVar[tuple[float, ...]] = ()

    def at(self, y: PerRow, eta: Column, w: PerRow) -> Elementwise:
        """Losses and derivatives."""
        e = eta[:, 0] - y
        return Elementwise(e**2 / 2, e, np.ones_like(e), np.zeros_like(e), w)


MachineLoss = HalfSquaredError | HuberizedHingeLoss | LogisticLoss | SquaredHingeLoss
