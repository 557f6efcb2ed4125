"""The written interface of training losses: of one row, as functions of its linear predictors.

A loss is `loss(y, eta)` of n rows with m predictors `eta` each; targets `y`, weights `w` and radii have one number for
each row. Every loss computes its value and its derivatives from the same few exponentials, without cancellation at any
scale: an overflow is infinite, and no finite predictor makes a NaN. The bounds are rigorous up to rounding.

Each loss has a file of its own. It states its link, its likelihood and its deviance here and nowhere else: predictions,
reports and selection criteria read them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from jaxtyping import Float

from worker.core.losses.derivatives import Elementwise, RowDerivatives
from worker.core.losses.elementary import Column, Outputs, PerRow
from worker.core.losses.links import Link
from worker.core.records import Array


class RowLoss(ABC):
    """What every training loss states."""

    __slots__ = ()

    @property
    @abstractmethod
    def link(self) -> Link:
        """How the predictors give the mean of the target, or the probabilities of its classes."""

    @property
    @abstractmethod
    def is_likelihood(self) -> bool:
        """Whether it is minus the logarithm of a probability or density of y, up to a term of y alone."""

    @property
    @abstractmethod
    def straight_beyond(self) -> float | None:
        """The size of a residual beyond which it is straight, in units of y; None if it is not a loss of residuals."""


class TrainingLoss(RowLoss):
    """The loss of a generalized linear model.

    Methods named `..._change` bound the change, row by row, for any move of the predictors by at most `radius` in each
    output. With one output the bound is the largest change itself, so it is zero if nothing changes.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def outputs(self) -> int:
        """The number m of predictors of a row."""

    @property
    @abstractmethod
    def concordance(self) -> float | None:
        """The kappa of `-kappa r H <= H' <= kappa r H` (self-concordance: Bach 2010); None if the curvature jumps.

        H is the curvature of a row and H' its derivative along any move of the predictors by at most r in each output.
        """

    @property
    @abstractmethod
    def straight(self) -> MachineLoss | None:
        """Itself where its curvature can be zero, with kinks at the ends of that part; None if it is always curved."""

    @property
    @abstractmethod
    def example_targets(self) -> tuple[float, ...]:
        """Targets of several sizes that it takes, for checks of its derivatives and bounds."""

    @abstractmethod
    def at(self, y: PerRow, eta: Outputs, w: PerRow) -> RowDerivatives:
        """The weighted sum of the losses with derivatives up to the third. At a kink the third counts as zero."""

    @abstractmethod
    def normalizer(self, y: PerRow) -> PerRow:
        """What a likelihood adds: `-log p(y | eta) = loss + normalizer`, in nats. NaN if there is no likelihood."""

    @abstractmethod
    def excess(self, y: PerRow, eta: Outputs, losses: PerRow) -> PerRow:
        """The losses less their minimum over eta for each y: half the deviance. `losses` are those at eta."""

    @abstractmethod
    def check(self, y: PerRow) -> None:
        """Raises RowError for the first target that the loss does not take."""

    @abstractmethod
    def lacks(self, y: PerRow, w: PerRow, rows: str) -> str | None:
        """Why no finite intercept fits rows with these weights, and the remedy; None if one does.

        `rows` is what the sentence calls them, such as `split 1 of 5`. Classes without rows are not its subject: the
        training criterion knows their names.
        """

    @abstractmethod
    def constant(self, y: PerRow, w: PerRow) -> Float[Array, " m"]:
        """The predictors that minimize the weighted loss without features. Finite, even if no weight is positive."""

    @abstractmethod
    def curvature_change(self, y: PerRow, eta: Outputs, radius: PerRow) -> PerRow:
        """Bound on the norm of the change of a row's second derivative."""

    @abstractmethod
    def slope_change(self, y: PerRow, eta: Outputs, radius: PerRow) -> PerRow:
        """Bound on the norm of the change of a row's first derivative."""


class MachineLoss(RowLoss):
    """A loss of one predictor whose curvature is constant between kinks, or smooth: for kernel machines."""

    __slots__ = ()

    @property
    @abstractmethod
    def largest_curvature(self) -> float:
        """The largest second derivative at any predictor."""

    @abstractmethod
    def at(self, y: PerRow, eta: Column, w: PerRow) -> Elementwise:
        """The weighted sum of the losses with derivatives. At a kink the third counts as zero."""

    @abstractmethod
    def kinks_of(self, y: PerRow) -> Float[Array, "q n"]:
        """The predictors of each row at which its curvature jumps; none (q = 0) if it is continuous."""
