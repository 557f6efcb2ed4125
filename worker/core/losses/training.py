"""Training losses of one row as functions of its linear predictor, and rigorous bounds on changes of their derivatives.

Every loss computes its value and its derivatives from the same few exponentials, without cancellation at any scale.
Methods named `..._change` bound the change, row by row, for any move of the predictors by at most `radius` in each
output. With one output the bound is the largest change itself, so it is zero if nothing changes.

`concordance` is the kappa of `-kappa r H <= H' <= kappa r H` (self-concordance: Bach 2010), H the curvature of a row
and H' its derivative along any move of the predictors by at most r in each output. It is None if the curvature jumps.

A loss states its `link`, its `excess` (half its deviance) and `is_likelihood`: whether it is minus the logarithm of a
probability or density of the target, up to `normalizer`, which depends on the target alone. Predictions, reports and
selection criteria read them here.
A loss is `straight` where its curvature can be zero, with kinks at the ends of that part, else None. One of residuals
that are straight beyond some size states it as `straight_beyond`.
Losses of kernel machines also state `largest_curvature`, a bound of the second derivative, and `kinks_of`: the
predictors of each row at which it jumps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge
from jaxtyping import Float
from scipy.special import erf, expit, gammaln

from worker.core.hyperparameters import Positive
from worker.core.losses.derivatives import Elementwise, Softmax
from worker.core.losses.elementary import (
    SMALLEST_NORMAL,
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
    straight: ClassVar[None] = None
    straight_beyond: ClassVar[float | None] = None
    largest_curvature: ClassVar[float] = 0.25

    def at(self, y: PerRow, eta: Column, w: PerRow) -> Elementwise:
        """Losses and derivatives; with `sigma = mean(eta)` the first two are `sigma - y` and `sigma (1 - sigma)`."""
        sign, size = 2.0 * y - 1.0, np.abs(eta[:, 0])
        wrong = -sign * eta[:, 0]
        e = np.exp(-size)
        second = e / (1.0 + e) ** 2
        first = -sign * np.where(wrong > 0, 1.0, e) / (1.0 + e)
        return Elementwise(np.maximum(wrong, 0.0) + np.log1p(e), first, second, -second * np.tanh(eta[:, 0] / 2), w)

    def kinks_of(self, y: PerRow) -> Float[Array, "q n"]:
        """None: the curvature is continuous."""
        return np.empty((0, len(y)))

    def normalizer(self, y: PerRow) -> PerRow:
        """Zero: the loss is minus the logarithm of the probability."""
        return np.zeros(len(y))

    def excess(self, y: PerRow, eta: Column, losses: PerRow) -> PerRow:
        """The losses: their minimum is zero."""
        return losses

    def lacks(self, y: PerRow, w: PerRow) -> None:
        """None: a finite intercept fits any rows."""

    def check(self, y: PerRow) -> None:
        """Raises ValueError unless y holds zeros and ones."""
        refuse_binary(y)

    def constant(self, y: PerRow, w: PerRow) -> Float[Array, " 1"]:
        """The log-odds of class 1; a class without rows counts as half the lightest row."""
        return np.diff(log_shares(np.array([w @ (1.0 - y), w @ y]), w))

    def curvature_change(self, y: PerRow, eta: Column, radius: PerRow) -> PerRow:
        """Largest change of `sigma (1 - sigma)`: at one end of the move, because it falls with the distance from 0."""
        size = np.abs(eta[:, 0])
        inwards = np.minimum(radius, size)
        return np.maximum(logistic_fall(size - inwards, size, inwards), logistic_fall(size, size + radius, radius))

    def slope_change(self, y: PerRow, eta: Column, radius: PerRow) -> PerRow:
        """Largest change of `sigma`: by a move towards 0."""
        size = np.abs(eta[:, 0])
        return expit(radius - size) * expit(size) * -np.expm1(-radius)


@dataclass(frozen=True, slots=True)
class MultinomialLoss:
    """`log(sum_b e^eta_b) - eta_y` with y the class number, from 0: the log-loss of a softmax over classes."""

    classes: Annotated[int, Ge(2)]

    concordance: ClassVar[float | None] = 2.0
    link: ClassVar[Link] = SoftmaxLink()
    is_likelihood: ClassVar[bool] = True
    straight: ClassVar[None] = None
    straight_beyond: ClassVar[float | None] = None

    @property
    def outputs(self) -> int:
        """One predictor for each class."""
        return self.classes

    def at(self, y: PerRow, eta: Outputs, w: PerRow) -> Softmax:
        """Losses and probabilities, which give the derivatives."""
        gap, e, others = softmax_terms(eta)
        losses = np.log1p(others) + gap[np.arange(len(y)), y.astype(int)]
        return Softmax(losses, e / (1.0 + others)[:, None], one_hot(y, self.classes), w)

    def normalizer(self, y: PerRow) -> PerRow:
        """Zero: the loss is minus the logarithm of the probability."""
        return np.zeros(len(y))

    def excess(self, y: PerRow, eta: Outputs, losses: PerRow) -> PerRow:
        """The losses: their minimum is zero."""
        return losses

    def lacks(self, y: PerRow, w: PerRow) -> None:
        """None: a finite intercept fits any rows."""

    def check(self, y: PerRow) -> None:
        """Raises ValueError unless y holds class numbers."""
        refuse_classes(y, self.classes)

    def constant(self, y: PerRow, w: PerRow) -> Float[Array, " m"]:
        """Log frequencies of the classes minus their mean; a class without rows counts as half the lightest row."""
        shares = log_shares(np.bincount(y.astype(int), w, self.classes), w)
        return shares - shares.mean()

    def curvature_change(self, y: PerRow, eta: Outputs, radius: PerRow) -> PerRow:
        """`|H| (e^(2 r) - 1)`, at most 1/2: the largest norm of any `H = diag(p) - p p^T`, or of a difference of two.

        The third derivative is a third moment about the mean, so `-2 r H <= H' <= 2 r H` along any move. `|H|` is at
        most its largest absolute row sum, `2 p (1 - p)` of the likeliest class.
        """
        others = softmax_terms(eta)[2]
        norm = np.maximum(2.0 * others / (1.0 + others) ** 2, SMALLEST_NORMAL)
        with np.errstate(over="ignore"):
            return np.minimum(norm * np.expm1(2.0 * radius), 0.5)

    def slope_change(self, y: PerRow, eta: Outputs, radius: PerRow) -> PerRow:
        """Bound on `|p' - p|`: the log-odds of any set of classes move by at most `2 r`.

        This bounds the change of each probability. The total variation is at most `tanh(r / 2)`, so the norm is at most
        `sqrt(2) tanh(r / 2)`.
        """
        each = probability_change(eta, radius)
        return np.minimum(np.sqrt((each**2).sum(1)), np.sqrt(2.0) * np.tanh(radius / 2))


@dataclass(frozen=True, slots=True)
class PoissonLoss:
    """`e^eta - y eta`: counts (fractions such as rates allowed) with the mean `e^eta`; infinite beyond about 709."""

    outputs: ClassVar[int] = 1
    concordance: ClassVar[float | None] = 1.0
    link: ClassVar[Link] = LogLink()
    is_likelihood: ClassVar[bool] = True
    straight: ClassVar[None] = None
    straight_beyond: ClassVar[float | None] = None

    def at(self, y: PerRow, eta: Column, w: PerRow) -> Elementwise:
        """Losses and derivatives: `e^eta - y`, `e^eta`, `e^eta`."""
        mu = self.link.mean(eta)[:, 0]
        return Elementwise(mu - y * np.minimum(eta[:, 0], 1e3), mu - y, mu, mu, w)

    def normalizer(self, y: PerRow) -> PerRow:
        """`log y!`."""
        return gammaln(y + 1.0)

    def excess(self, y: PerRow, eta: Column, losses: PerRow) -> PerRow:
        """`mu - y + y log(y / mu)`, which is `y (e^t - 1 - t)` with `t = eta - log y`."""
        mu = self.link.mean(eta)[:, 0]
        t = np.minimum(eta[:, 0], 1e3) - np.log(np.where(y > 0, y, 1.0))
        near = (y > 0) & (np.abs(t) <= 0.5)
        return np.where(near, y * exp_less_line(np.where(near, t, 0.0)), mu - y - y * t)

    def lacks(self, y: PerRow, w: PerRow) -> str | None:
        """Why no finite intercept fits these rows; `{split}` stands for the split that they train."""
        if (w * y).any():
            return None
        return (
            "all counts that {split} trains on are zero, so that the intercept has no finite value; use other folds, "
            "leave these rows out, or set intercept to false"
        )

    def check(self, y: PerRow) -> None:
        """Raises ValueError if a target is negative."""
        refuse(~((y >= 0) & np.isfinite(y)), y, "the Poisson loss takes counts, zero or more")

    def constant(self, y: PerRow, w: PerRow) -> Float[Array, " 1"]:
        """Logarithm of the mean; without any event, of half an event in the lightest row."""
        total = w.sum()
        return np.log([max(w @ y, half_a_row(w)) / total]) if total > 0 else np.zeros(1)

    def curvature_change(self, y: PerRow, eta: Column, radius: PerRow) -> PerRow:
        """`e^(eta + r) - e^eta`."""
        return growth(eta[:, 0], radius)

    def slope_change(self, y: PerRow, eta: Column, radius: PerRow) -> PerRow:
        """The same as `curvature_change`: slope and curvature are `e^eta`, up to a constant."""
        return self.curvature_change(y, eta, radius)


@dataclass(frozen=True, slots=True)
class GammaLoss:
    """`y e^-eta + eta`: positive targets with the mean `e^eta` and a spread proportional to it."""

    outputs: ClassVar[int] = 1
    concordance: ClassVar[float | None] = 1.0
    link: ClassVar[Link] = LogLink()
    is_likelihood: ClassVar[bool] = True
    straight: ClassVar[None] = None
    straight_beyond: ClassVar[float | None] = None

    def at(self, y: PerRow, eta: Column, w: PerRow) -> Elementwise:
        """Losses and derivatives: `1 - y e^-eta`, `y e^-eta`, `-y e^-eta`."""
        with np.errstate(over="ignore"):
            ratio = y * np.exp(-eta[:, 0])
        return Elementwise(ratio + eta[:, 0], 1.0 - ratio, ratio, -ratio, w)

    def normalizer(self, y: PerRow) -> PerRow:
        """Zero: the loss is minus the logarithm of the density of an exponential distribution, a gamma of shape 1."""
        return np.zeros(len(y))

    def excess(self, y: PerRow, eta: Column, losses: PerRow) -> PerRow:
        """`y / mu - 1 - log(y / mu)`."""
        return exp_less_line(np.log(y) - eta[:, 0])

    def lacks(self, y: PerRow, w: PerRow) -> None:
        """None: a finite intercept fits any rows."""

    def check(self, y: PerRow) -> None:
        """Raises ValueError if a target is not positive."""
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
        """The same as `curvature_change`: slope and curvature are `y e^-eta`, up to sign and a constant."""
        return self.curvature_change(y, eta, radius)


@dataclass(frozen=True, slots=True)
class HuberLoss:
    """`r^2 / 2` of the residual `r = y - eta` up to `|r| = delta`, `delta |r| - delta^2 / 2` beyond (Huber 1964).

    `delta` is in units of the target. At the two kinks of the slope the missing third derivative counts as zero.
    """

    delta: Positive

    outputs: ClassVar[int] = 1
    concordance: ClassVar[float | None] = None
    link: ClassVar[Link] = IdentityLink()
    is_likelihood: ClassVar[bool] = True
    largest_curvature: ClassVar[float] = 1.0

    @property
    def straight(self) -> HuberLoss:
        """Itself."""
        return self

    @property
    def straight_beyond(self) -> float:
        """Delta."""
        return self.delta

    def kinks_of(self, y: PerRow) -> Float[Array, "2 n"]:
        """The predictors of each row at which its curvature jumps."""
        return np.stack([y - self.delta, y + self.delta])

    def at(self, y: PerRow, eta: Column, w: PerRow) -> Elementwise:
        """Losses and derivatives: `-r` clipped to `+-delta`, 1 inside and 0 outside, 0."""
        r = y - eta[:, 0]
        inside = np.clip(r, -self.delta, self.delta)
        second = (np.abs(r) <= self.delta).astype(float)
        above = self.delta / np.maximum(np.abs(r), self.delta)  # the weights of iteratively reweighted least squares
        return Elementwise(inside * (r - inside / 2), -inside, second, np.zeros_like(r), w, above)

    def normalizer(self, y: PerRow) -> PerRow:
        """`log` of the integral of `e^-loss`: a normal density with exponential tails (Huber 1964)."""
        inside = np.sqrt(2.0 * np.pi) * erf(self.delta / np.sqrt(2.0))
        return np.full(len(y), np.log(inside + 2.0 / self.delta * np.exp(-(self.delta**2) / 2.0)))

    def excess(self, y: PerRow, eta: Column, losses: PerRow) -> PerRow:
        """The losses: their minimum is zero."""
        return losses

    def lacks(self, y: PerRow, w: PerRow) -> None:
        """None: a finite intercept fits any rows."""

    def check(self, y: PerRow) -> None:
        """Raises ValueError if a target is not finite."""
        refuse(~np.isfinite(y), y, "the Huber loss takes finite numbers")

    def constant(self, y: PerRow, w: PerRow) -> Float[Array, " 1"]:
        """Huber's location of y: the zero of the sum of slopes, which is linear between the kinks `y +- delta`."""
        knots = np.concatenate([y - self.delta, y + self.delta])
        order = np.argsort(knots)
        knots = knots[order]
        inside = np.cumsum(np.concatenate([w, -w])[order])[:-1]
        pull = self.delta * w.sum() - np.append(
            0.0, np.cumsum(inside * np.diff(knots))
        )  # sum of slopes at each knot, decreasing
        last = int(np.argmax(pull <= 0))
        step = pull[last - 1] / inside[last - 1] if last > 0 else 0.0
        return np.array([knots[max(last - 1, 0)] + step])

    def curvature_change(self, y: PerRow, eta: Column, radius: PerRow) -> PerRow:
        """1 for rows that can reach a kink, else 0."""
        distance = np.abs(np.abs(y - eta[:, 0]) - self.delta)
        return reached(distance, radius, np.abs(y) + np.abs(eta[:, 0]) + self.delta)

    def slope_change(self, y: PerRow, eta: Column, radius: PerRow) -> PerRow:
        """Largest change of the clipped residual: by a move towards 0."""
        size = np.abs(y - eta[:, 0])
        return np.minimum(size, self.delta) - np.clip(size - radius, -self.delta, self.delta)


TrainingLoss = LogisticLoss | MultinomialLoss | PoissonLoss | GammaLoss | HuberLoss | SquaredHingeLoss


@dataclass(frozen=True, slots=True)
class HalfSquaredError:
    """`(y - eta)^2 / 2`: the negative log-likelihood of a normal distribution of unit variance."""

    link: ClassVar[Link] = IdentityLink()
    is_likelihood: ClassVar[bool] = True
    largest_curvature: ClassVar[float] = 1.0

    def kinks_of(self, y: PerRow) -> Float[Array, "q n"]:
        """None: the curvature is continuous."""
        return np.empty((0, len(y)))

    def at(self, y: PerRow, eta: Column, w: PerRow) -> Elementwise:
        """Losses and derivatives."""
        e = eta[:, 0] - y
        return Elementwise(e**2 / 2, e, np.ones_like(e), np.zeros_like(e), w)


MachineLoss = HalfSquaredError | HuberizedHingeLoss | LogisticLoss | SquaredHingeLoss
