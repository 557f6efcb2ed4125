"""Example problems: a small table with every role, and a target that fits a training criterion.

Each training criterion makes its own with `example()`, so that whatever is said of all criteria can be tried on a new
one. Everything is drawn with fixed seeds.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy.sparse import csr_array

from worker.core.records import Array
from worker.core.rows.matrices import Criteria
from worker.core.rows.problem import Problem

ROWS = 48
FEATURES = ("a", "b", "c", "d")
TWO_CLASSES, THREE_CLASSES = ("no", "yes"), ("low", "mid", "top")
PARAMETERS = 3
Predictors = Float[Array, "n m"]
Draw = Callable[[Predictors, np.random.Generator], Float[Array, " n"]]


def example_table(draw: Draw, classes: tuple[str, ...] = (), *, offset: bool = False) -> Problem:
    """48 rows of four features of different scales, one of them far from zero and one that bends the predictor.

    `draw` makes the target of each row from its predictors, one for all rows or one for each of several classes.
    Every role is there (`offset` if asked for): times out of order of which each occurs twice, nine groups, three
    folds and three sources, weights of which none is zero, and scoring weights of which some are.
    """
    rng = np.random.default_rng(20)
    X = np.round(rng.normal(size=(ROWS, 4)) @ np.diag([1.0, 3.0, 0.5, 1.0]) + [0.0, 5.0, -1.0, 0.0], 3)
    known = np.round(0.3 * rng.normal(size=ROWS), 3)
    eta = 0.6 * (0.9 * X[:, 0] - 0.4 * (X[:, 1] - 5.0) + np.sin(2.0 * X[:, 3])) + (known if offset else 0.0)
    several = np.column_stack([eta, -eta, X[:, 2] + 1.0])[:, : len(classes)] if len(classes) > 2 else eta[:, None]
    return Problem(
        X,
        np.round(draw(several, rng), 3),
        FEATURES,
        time=rng.permutation(ROWS) // 2 + 0.0,
        weights=np.round(rng.uniform(0.5, 3.0, size=ROWS), 2),
        scoring=rng.integers(0, 3, size=ROWS) + 0.0,
        source=rng.integers(0, 3, size=ROWS),
        source_names=("new", "old", "other"),
        groups=rng.integers(0, 9, size=ROWS),
        fold=np.arange(ROWS) % 3,
        offset=known if offset else None,
        classes=classes,
    )


def example_of_matrices() -> Problem:
    """Criteria of the caller's own with two multipliers: one of a matrix, one of a matrix and a vector."""
    rng = np.random.default_rng(3)
    root = rng.normal(size=(PARAMETERS, PARAMETERS))
    last = np.diag([0.0, 0.0, 1.0])
    vectors = rng.normal(size=(PARAMETERS, 3)) * [1.0, 0.0, 1.0]
    matrices = tuple(csr_array(A) for A in (np.eye(PARAMETERS), root @ root.T, last))
    criteria = Criteria(matrices, vectors, csr_array(np.eye(PARAMETERS)), -0.4 * rng.normal(size=PARAMETERS), 0.5)
    return Problem(np.empty((0, 0)), np.empty(0), (), criteria=criteria)


def normal_errors(eta: Predictors, rng: np.random.Generator) -> Float[Array, " n"]:
    """The predictor with normal errors."""
    return eta[:, 0] + 0.5 * rng.normal(size=len(eta))


def heavy_tails(eta: Predictors, rng: np.random.Generator) -> Float[Array, " n"]:
    """The predictor with errors of Student's t distribution with two degrees of freedom."""
    return eta[:, 0] + 0.5 * rng.standard_t(2, size=len(eta))


def likely_classes(eta: Predictors, rng: np.random.Generator) -> Float[Array, " n"]:
    """Class numbers: of two classes with the log-odds eta, of several with the probabilities of a softmax."""
    both = np.hstack([np.zeros_like(eta), eta]) if eta.shape[1] == 1 else eta
    return (both + rng.gumbel(size=both.shape)).argmax(axis=1).astype(float)


def counts(eta: Predictors, rng: np.random.Generator) -> Float[Array, " n"]:
    """Poisson counts with the mean `e^eta`."""
    return rng.poisson(np.exp(eta[:, 0])).astype(float)


def amounts(eta: Predictors, rng: np.random.Generator) -> Float[Array, " n"]:
    """Positive amounts with the mean `e^eta`, nearly."""
    return rng.gamma(3.0, np.exp(eta[:, 0]) / 3.0) + 0.01
