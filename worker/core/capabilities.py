"""What members of one family need from a training criterion, and what does not fit in a plan."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal


class Capability(Enum):
    """Something that a training criterion can offer. The value says what it is."""

    ROWS = "a training criterion of rows"
    LEAST_SQUARES = "ridge, whose training criterion is quadratic"
    KERNEL_MATRIX = "kernel_ridge with an exact kernel matrix"
    CURVATURE = "a generalized linear model"
    LIKELIHOOD = "a likelihood of rows with fixed weights"
    OWN_MATRICES = "the training criterion quadratic"
    HESSIAN = "an exact Hessian"
    CHOLESKY_FACTOR = "a quadratic training criterion, ridge"


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
