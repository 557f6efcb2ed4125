"""What members of one family need from a training criterion, and what does not fit in a plan."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal


class Capability(Enum):
    """Something that a training criterion can offer. The value says what it is."""

    ROWS = "training on rows of a table, with a loss of each row"
    LEAST_SQUARES = "a mean squared error of rows plus quadratic penalties"
    KERNEL_MATRIX = "squared loss in the space of a kernel, with the whole kernel matrix"
    CURVATURE = "a smooth loss of linear predictors, with the factor of the Hessian"
    LIKELIHOOD = "the same, where the loss is a likelihood of rows with fixed weights"
    OWN_MATRICES = "a criterion that the caller brings as matrices"
    HESSIAN = "an exact Hessian of J as a mean over splits"
    CHOLESKY_FACTOR = "fits by one Cholesky factorization, which can be differentiated"


Need = frozenset[Capability]  # one of these is enough


def unmet(needs: tuple[Need, ...], offers: frozenset[Capability]) -> Need | None:
    """The first need that none of the offers meets; None if all are met."""
    return next((need for need in needs if not need & offers), None)


@dataclass(frozen=True, slots=True)
class Misfit:
    """Something in a plan that does not fit the rest of it or the columns.

    `path`: names of fields from the plan down, such as `("selection", "kind")`. `text`: what is wrong, with the remedy.
    """

    path: tuple[str | int, ...]
    text: str
    code: Literal["does_not_fit", "too_large", "unknown_class"] = "does_not_fit"
