"""The frozen records that pass between the rooms of the core."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from worker.core.criteria import Criteria
from worker.core.expansion import Expansion
from worker.core.tables import Table

Array = np.ndarray

ROUND_OFF = 4 * np.finfo(float).eps  # share of |J| below which a decrease cannot be seen
ALIKE = 1e-11  # share of |J| by which values of J may differ where only rounding and the end of iterations do


class Outcome(Enum):
    """How a search ended; the value is the sentence that the user reads."""

    CONVERGED = "The gradient of the selection criterion is below its tolerance."
    AT_BOUNDS = "Every hyperparameter ended at a bound of its box; widen the box if that is not intended."
    TARGET_VALUE = "The selection criterion reached the target value."
    MAX_ITERATIONS = "The iteration budget was spent before the gradient met its tolerance."
    MAX_EVALUATIONS = "The evaluation budget was spent before the gradient met its tolerance."
    MAX_SECONDS = "The time limit was reached before the gradient met its tolerance."
    STALLED = (
        "No step was found that lowers the selection criterion further, although the gradient exceeds its tolerance: "
        "rounding or corners of the criterion hide it."
    )
    SINGULAR = (
        "The training criterion is singular or indefinite to working precision at the starting hyperparameters; "
        "raise the lower bound or the initial value of the penalty, or remove linearly dependent features."
    )
    INDEFINITE = (
        "The matrix H of the training criterion is singular or indefinite at the starting hyperparameters, so that "
        "there is no minimizer; choose other initial values, or add a positive definite matrix to A_0."
    )
    NON_FINITE = (
        "The selection criterion is not a finite number at the starting hyperparameters: values overflow (rescale the "
        "features or the target), or a likelihood meets a fit without any error (of a constant target, say)."
    )

    @property
    def code(self) -> str:
        """The name on the wire, such as `max_iterations`."""
        return self.name.lower()

    @property
    def is_failure(self) -> bool:
        """Whether the search produced no usable point at all."""
        return self in {Outcome.SINGULAR, Outcome.INDEFINITE, Outcome.NON_FINITE}


@dataclass(frozen=True, slots=True)
class Imputation:
    """How missing values (NaN) are filled in each of the `columns` of a table that have any; none is filled twice.

    A mean or median is that of the values present in a split's training rows, zero where there are none.
    """

    columns: Int[Array, " q"]
    rules: tuple[Literal["mean", "median", "constant"], ...]
    constants: Float[Array, " q"]


@dataclass(frozen=True, slots=True)
class Problem:
    """The table: `X` has one column for each name in `features`, in their order and original units.

    `X` is an array, a memory map, a sparse array, or a table that makes its rows when asked; without an `imputation`
    it has no missing values. An `expansion` replaces columns by others once they are filled. The rest
    holds one entry a row where the caller gave the role: `time` in any unit,
    `weights` non-negative and fixed, `scoring` the same for validation rows where it differs; `source`, `groups` and
    `fold` are codes from 0 on, those of `source` counting through `source_names`. Where `y` is the number of a class,
    `classes` holds their names. `offset` is a known part of the linear predictor. `criteria` are what a caller brings
    instead of a table, which has no rows then.
    """

    X: Table | csr_array
    y: Float[Array, " n"]
    features: tuple[str, ...]
    imputation: Imputation | None = None
    expansion: Expansion | None = None
    time: Float[Array, " n"] | None = None
    weights: Float[Array, " n"] | None = None
    source: Int[Array, " n"] | None = None
    source_names: tuple[str, ...] = ()
    groups: Int[Array, " n"] | None = None
    fold: Int[Array, " n"] | None = None
    scoring: Float[Array, " n"] | None = None
    offset: Float[Array, " n"] | None = None
    classes: tuple[str, ...] = ()
    criteria: Criteria | None = None

    def base_weights(self, rows: Int[Array, " m"]) -> Float[Array, " m"]:
        """The fixed weights of the rows in the training criterion: one each where there are none."""
        return np.ones(len(rows)) if self.weights is None else self.weights[rows]

    def score_weights(self, rows: Int[Array, " m"]) -> Float[Array, " m"]:
        """The weights of the rows where they are scored: those of training unless the data has others."""
        return self.base_weights(rows) if self.scoring is None else self.scoring[rows]


@dataclass(frozen=True, slots=True)
class Partition:
    """Rows cut into blocks, and splits made of blocks.

    `block_of_row[i]` is the block of row i, or -1 for a row that no split uses. A split is a pair (training blocks,
    validation blocks). Every resampling scheme is one of these, so that statistics are built once a block.
    """

    block_of_row: Int[Array, " n"]
    splits: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return 1 + max(block for split in self.splits for part in split for block in part)

    def rows(self, blocks: tuple[int, ...]) -> Int[Array, " m"]:
        """Indices of the rows in the given blocks, ascending."""
        return np.flatnonzero(np.isin(self.block_of_row, blocks))


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Value and gradient of the selection criterion J at `rho`.

    Where the training criterion has no usable minimizer, `failure` says why, `value` is infinite and `gradient` zero.
    The errors bound those of J and the Euclidean norm of that of its gradient; zero where both are exact to rounding.
    """

    rho: Float[Array, " k"]
    value: float
    gradient: Float[Array, " k"]
    per_split: Float[Array, " splits"]
    failure: Outcome | None = None
    value_error: float = 0.0
    gradient_error: float = 0.0

    @property
    def ceiling(self) -> float:
        """J is at most this."""
        return self.value + self.value_error


@dataclass(frozen=True, slots=True)
class Trial:
    """One evaluation inside a search. `state` is set where an outer iteration ends: the search resumes from it.

    `gradient_norm` is the largest component of the projected gradient over |J|.
    """

    evaluation: Evaluation
    iteration: int
    gradient_norm: float
    state: Mapping[str, Array] | None


@dataclass(frozen=True, slots=True)
class Start:
    """What has become of one starting point so far; `outcome` is None while its search goes on.

    `refused` counts the evaluations at which training had no minimizer, where the search turned back.
    """

    initial: Evaluation
    best: Evaluation
    gradient_norm: float
    iterations: int
    evaluations: int
    outcome: Outcome | None
    refused: int = 0

    @classmethod
    def begin(cls, trial: Trial) -> Start:
        """The record after the first evaluation of a search."""
        refused = int(trial.evaluation.failure is not None)
        return cls(trial.evaluation, trial.evaluation, trial.gradient_norm, trial.iteration, 1, None, refused)

    def after(self, trial: Trial) -> Start:
        """The record after one more evaluation."""
        new = trial.evaluation
        same = new.value_error == 0 < self.best.value_error and (new.rho == self.best.rho).all()
        exact = new.value_error == self.best.value_error == 0
        alike = exact and abs(new.value - self.best.value) <= ALIKE * abs(self.best.value)
        flatter = trial.gradient_norm < self.gradient_norm
        better = same or (flatter if alike else new.ceiling < self.best.ceiling)
        return Start(
            self.initial,
            trial.evaluation if better else self.best,
            trial.gradient_norm if better else self.gradient_norm,
            trial.iteration,
            self.evaluations + 1,
            None,
            self.refused + (trial.evaluation.failure is not None),
        )


@dataclass(frozen=True, slots=True)
class FoldScore:
    """One outer fold of nested cross-validation: the mean loss on its rows, and what its own tuning had promised.

    `weight` is the sum of the scoring weights of its `rows`.
    """

    value: float
    weight: float
    rows: int
    selection_value: float
    iterations: int
    evaluations: int


@dataclass(frozen=True, slots=True)
class State:
    """Everything that is needed to go on where a run stopped, bit for bit: the running search, all starts so far.

    Where every start has an outcome, the search is over, and `folds` holds the outer folds that are done.
    """

    search: Mapping[str, Array]
    starts: tuple[Start, ...]
    folds: tuple[FoldScore, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """One evaluation as the job loop sees it. `starts` ends with the one that is running.

    `state` is set at the end of an outer iteration: a point to show and resume from. `ended` is set on the last step.
    """

    at: Evaluation
    gradient_norm: float
    starts: tuple[Start, ...]
    state: State | None
    ended: Outcome | None
    folds: tuple[FoldScore, ...] = ()

    @property
    def iterations(self) -> int:
        """Outer iterations over all starts, and over the outer folds that are done."""
        return sum(s.iterations for s in self.starts) + sum(f.iterations for f in self.folds)

    @property
    def evaluations(self) -> int:
        """Evaluations of J over all starts, and over the outer folds that are done."""
        return sum(s.evaluations for s in self.starts) + sum(f.evaluations for f in self.folds)

    @property
    def best(self) -> Start:
        """The start that holds the lowest value so far."""
        return min(self.starts, key=lambda start: start.best.value)
