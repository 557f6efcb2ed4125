"""Links: how the linear predictor `eta` of a row gives the mean of its target.

Each link is defined here only. A training loss states its link; a result document stores the link's kind, and
predictions look the link up by its kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import expit, softmax

from worker.core.family import kind_of, members
from worker.core.losses.elementary import Column, Outputs, exponential


@dataclass(frozen=True, slots=True)
class IdentityLink:
    """The predictor is the mean, or the decision value of a classification loss without probabilities."""

    kind: Literal["identity"] = "identity"

    def mean(self, eta: Column) -> Column:
        """`eta`."""
        return eta

    def probabilities(self, eta: Column) -> None:
        """None: the predictor gives no probabilities."""


@dataclass(frozen=True, slots=True)
class LogLink:
    """The predictor is the logarithm of the mean."""

    kind: Literal["log"] = "log"

    def mean(self, eta: Column) -> Column:
        """`e^eta`, infinite beyond about 709."""
        return exponential(eta)

    def probabilities(self, eta: Column) -> None:
        """None: the target is not a class."""


@dataclass(frozen=True, slots=True)
class LogitLink:
    """The predictor is the log-odds of class 1 of two classes."""

    kind: Literal["logit"] = "logit"

    def mean(self, eta: Column) -> Column:
        """The probability of class 1, `1 / (1 + e^-eta)`."""
        return expit(eta)

    def probabilities(self, eta: Column) -> Outputs:
        """The probabilities of both classes, each without cancellation."""
        return np.hstack([expit(-eta), expit(eta)])


@dataclass(frozen=True, slots=True)
class SoftmaxLink:
    """The predictors are the logarithms of the probabilities of the classes, up to a common constant."""

    kind: Literal["softmax"] = "softmax"

    def mean(self, eta: Outputs) -> Outputs:
        """The probabilities of the classes."""
        return softmax(eta, axis=1)

    def probabilities(self, eta: Outputs) -> Outputs:
        """The same as the mean."""
        return self.mean(eta)


ColumnLink = IdentityLink | LogitLink | LogLink  # of one predictor
Link = ColumnLink | SoftmaxLink
LINKS: dict[str, Link] = {kind_of(link): link() for link in members(Link)}
