"""The frozen records that pass between the rooms of the core."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Literal

import numpy as np
from jaxtyping import Float

Array = np.ndarray
ROUND_OFF = 4 * np.finfo(float).eps  # relative to |J|; a smaller decrease is lost in rounding
EQUAL_VALUES = 1e-11  # values of J closer than this (relative) count as equal: rounding and inner stopping differ by it


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
class Evaluation:
    """Value and gradient of the selection criterion J at `rho`.

    If the training criterion has no usable minimizer, `failure` is the reason, `value` is infinite and `gradient` zero.
    `value_error` bounds the error of J, `gradient_error` the Euclidean norm of the gradient's error; zero if exact.
    `prior`: the part of the value that is a hyper-prior and not J, as far as a search tells it.
    """

    rho: Float[Array, " k"]
    value: float
    gradient: Float[Array, " k"]
    per_split: Float[Array, " splits"]
    failure: Outcome | None = None
    value_error: float = 0.0
    gradient_error: float = 0.0
    prior: float = 0.0

    @property
    def selection(self) -> float:
        """J alone."""
        return self.value - self.prior if self.prior else self.value

    @property
    def ceiling(self) -> float:
        """Upper bound on J."""
        return self.value + self.value_error


@dataclass(frozen=True, slots=True)
class Trial:
    """One evaluation inside a search. `state` is set when an outer iteration ends; a search can resume from it.

    `gradient_norm` is the largest component of the projected gradient relative to |J|. `scanned`: of a coarse scan.
    """

    evaluation: Evaluation
    iteration: int
    gradient_norm: float
    state: Mapping[str, Array] | None
    scanned: bool = False


@dataclass(frozen=True, slots=True)
class Start:
    """The search from one starting point so far; `outcome` is None while it runs.

    `refused` counts the evaluations at which training had no minimizer, so that the search turned back, and `scanned`
    those of the coarse scan. Both are among `evaluations`. `spread` is that of the hyper-prior: None without one, zero
    if each family of like hyperparameters shared one value.
    """

    initial: Evaluation
    best: Evaluation
    gradient_norm: float
    iterations: int
    evaluations: int
    outcome: Outcome | None
    refused: int = 0
    scanned: int = 0
    spread: float | None = None

    @classmethod
    def begin(cls, trial: Trial, spread: float | None = None) -> Start:
        """The record after the first evaluation of a search."""
        refused = int(trial.evaluation.failure is not None)
        return cls(
            trial.evaluation, trial.evaluation, trial.gradient_norm, trial.iteration, 1, None,
            refused, int(trial.scanned), spread,
        )  # fmt: skip

    def after(self, trial: Trial) -> Start:
        """The record after one more evaluation."""
        new = trial.evaluation
        now_exact = new.value_error == 0 < self.best.value_error and (new.rho == self.best.rho).all()
        both_exact = new.value_error == self.best.value_error == 0 and np.isfinite(self.best.value)
        equal = both_exact and abs(new.value - self.best.value) <= EQUAL_VALUES * abs(self.best.value)
        flatter = trial.gradient_norm < self.gradient_norm
        better = now_exact or (flatter if equal else new.ceiling < self.best.ceiling)
        return Start(
            self.initial,
            trial.evaluation if better else self.best,
            trial.gradient_norm if better else self.gradient_norm,
            trial.iteration,
            self.evaluations + 1,
            None,
            self.refused + (trial.evaluation.failure is not None),
            self.scanned + trial.scanned,
            self.spread,
        )


@dataclass(frozen=True, slots=True)
class SpreadScore:
    """What a `FoldScore` says of the refit with one spread of the hyper-prior."""

    spread: float
    value: float
    selection_value: float
    clusters: Float[Array, "2 c"] = field(compare=False)


@dataclass(frozen=True, slots=True)
class FoldScore:
    """One outer fold of nested cross-validation: the mean loss on its rows, and the J of the tuning on the other rows.

    `weight` is the sum of the scoring weights of its `rows`. `clusters` holds the sums of weighted losses and of
    weights over the rows of each cluster (`clustered.sums_by_cluster`); NaN if they are not known. `path` has the same
    for each spread of the hyper-prior, ascending, if the folds choose one.
    """

    value: float
    weight: float
    rows: int
    selection_value: float
    iterations: int
    evaluations: int
    scanned: int = 0
    clusters: Float[Array, "2 c"] = field(default_factory=lambda: np.full((2, 1), np.nan), compare=False)
    path: tuple[SpreadScore, ...] = ()

    def at(self, spread: float) -> FoldScore:
        """The score with this spread; as it is if the fold does not have it."""
        one = next((one for one in self.path if one.spread == spread), None)
        if one is None:
            return self
        return replace(self, value=one.value, selection_value=one.selection_value, clusters=one.clusters)


@dataclass(frozen=True, slots=True)
class PathPoint:
    """A point on the path of hyper-priors: J there, and what new rows can expect, as far as it is known."""

    spread: float
    value: float
    corrected: float | None


@dataclass(frozen=True, slots=True)
class Choice:
    """The spread of the hyper-prior that a search ends with, how it was chosen, and from which."""

    spread: float
    by: Literal["jackknife", "nested", "fixed", "given"] | None
    path: tuple[PathPoint, ...]


@dataclass(frozen=True, slots=True)
class State:
    """Everything needed to resume a stopped run bit for bit: the running search and all starts so far.

    If every start has an outcome, the search is over, and `folds` holds the finished outer folds.
    """

    search: Mapping[str, Array]
    starts: tuple[Start, ...]
    folds: tuple[FoldScore, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """One evaluation as the job loop sees it. The last of `starts` is the running one.

    `state` is set at the end of an outer iteration: a point to show and resume from. `ended` is set on the last step,
    and with it the `choice` of a hyper-prior, if there was one.
    """

    at: Evaluation
    gradient_norm: float
    starts: tuple[Start, ...]
    state: State | None
    ended: Outcome | None
    folds: tuple[FoldScore, ...] = ()
    choice: Choice | None = None

    @property
    def iterations(self) -> int:
        """Outer iterations over all starts and all finished outer folds."""
        return sum(s.iterations for s in self.starts) + sum(f.iterations for f in self.folds)

    @property
    def evaluations(self) -> int:
        """Evaluations of J over all starts and all finished outer folds."""
        return sum(s.evaluations for s in self.starts) + sum(f.evaluations for f in self.folds)

    @property
    def scanned(self) -> int:
        """Those of coarse scans among them."""
        return sum(s.scanned for s in self.starts) + sum(f.scanned for f in self.folds)

    @property
    def best(self) -> Start:
        """The start that holds the lowest value so far, of those with the chosen hyper-prior or that of the last one.

        What a plain search is compared with, a shared value for all, is none of its results.
        """
        spread = self.choice.spread if self.choice else self.starts[-1].spread
        if self.starts[0].spread is None:
            spread = None
        return min((start for start in self.starts if start.spread == spread), key=lambda start: start.best.value)
