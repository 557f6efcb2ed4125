"""The log-loss of a softmax over classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge
from jaxtyping import Float

from worker.core.losses.derivatives import Softmax
from worker.core.losses.elementary import (
    SMALLEST_NORMAL,
    Outputs,
    PerRow,
    log_shares,
    one_hot,
    probability_change,
    refuse_classes,
    softmax_terms,
)
from worker.core.losses.links import Link, SoftmaxLink
from worker.core.losses.training_loss import TrainingLoss
from worker.core.records import Array


@dataclass(frozen=True, slots=True)
class MultinomialLoss(TrainingLoss):
    """`log(sum_b e^eta_b) - eta_y` with y the class number, from 0: the log-loss of a softmax over classes."""

    classes: Annotated[int, Ge(2)]

    concordance: ClassVar[float | None] = 2.0
    link: ClassVar[Link] = SoftmaxLink()
    is_likelihood: ClassVar[bool] = True
    straight: ClassVar[None] = None
    straight_beyond: ClassVar[None] = None

    @property
    def outputs(self) -> int:
        """One predictor for each class."""
        return self.classes

    @property
    def example_targets(self) -> tuple[float, ...]:
        """The classes."""
        return tuple(map(float, range(self.classes)))

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

    def check(self, y: PerRow) -> None:
        """Raises ValueError unless y holds class numbers."""
        refuse_classes(y, self.classes)

    def lacks(self, y: PerRow, w: PerRow, rows: str) -> None:
        """None: only classes without rows have no finite intercept."""

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
