"""Ridge against 150 digits on tables that cost digits: J is right, or training is refused, or a certificate says so.

`python -m tests.core.test_conditioning SEED ...` shows single cases; `... FIRST:END` a range of them, in a table.
"""

from __future__ import annotations

import functools
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy.sparse import csr_array

from tests.core import ridge_oracle
from tests.core.ridge_cases import Case, case
from worker.core.penalties.forms import PenaltyForms
from worker.core.records import Evaluation
from worker.core.rows.problem import Partition, Problem
from worker.core.search.plan import Prepared, prepare
from worker.core.training import Ridge
from worker.core.verdict.arithmetic import arithmetic_error

TOLERANCE = 1e-9  # of J, relative
MAX_UNANSWERED = 0.05  # share of cases that may be refused or flagged
MIN_OFFSET = 1e8  # offset over spread from which on a case may be refused or flagged
CHUNKS = {"MAX_CHUNK_ROWS": 5, "CHUNK_VALUES": 40, "SPARSE_CHUNK_VALUES": 30}
SLOPE_TOLERANCE = 1e-8  # of the gradient, relative to J
MOST_SLOPES = 3  # hyperparameters whose gradient is compared
DEFAULT_CASES, SLOW_CASES = 100, 2000


def is_flagged(prepared: Prepared, at: Evaluation) -> bool:
    """Whether the certificate of the arithmetic says that J has lost digits."""
    return not arithmetic_error(prepared, at) <= TOLERANCE


@dataclass(frozen=True)
class Result:
    """What became of a case.

    `ratio` is the largest offset over spread of a column over the training rows of a split. Errors are
    relative to |J| (to the number of rows for a log likelihood); `slope_error` is that of the gradient.
    """

    case: Case
    ratio: float
    value: float
    expected: float
    error: float
    refusal: str
    flagged: bool
    slope_error: float = np.nan

    @property
    def is_right(self) -> bool:
        return not self.refusal and self.error <= TOLERANCE

    @property
    def verdict(self) -> str:
        if self.refusal:
            return "refused"
        return ("right" if self.is_right else "wrong") + (", flagged" if self.flagged else "")

    def __str__(self) -> str:
        training, weights = self.case.plan.training, self.case.problem.weights
        marks = (
            "b" if training.intercept else "-",
            "s" if training.standardize else "-",
            "w" if weights is not None else "-",
            "0" if weights is not None and not weights.all() else "-",
            "v" if self.case.problem.scoring is not None else "-",
        )
        return (
            f"{self.case.seed:5d} {self.verdict:14s} {self.case.representation:14s} {self.case.selection:19s} "
            f"{''.join(marks)} ratio {self.ratio:7.1e} error {self.error:7.1e} J {self.value:.12g}, not "
            f"{self.expected:.12g} {self.refusal} ({', '.join(sorted(set(self.case.columns)))})"
        )


def by_rows_if_possible(training: Ridge, train_rows: int, forms: PenaltyForms) -> bool:
    """`Ridge.prefers_dual` whatever it costs."""
    return training.weights is None and forms.is_positive_diagonal


@contextmanager
def represented(c: Case) -> Iterator[None]:
    """The core with small chunks or with row matrices, as the case asks for."""
    with pytest.MonkeyPatch.context() as patch:
        if "chunked" in c.representation:
            patched = 0
            for name, module in list(sys.modules.items()):
                if name.startswith("worker.core."):
                    for constant in CHUNKS.keys() & vars(module).keys():
                        patch.setattr(module, constant, CHUNKS[constant])
                        patched += 1
            assert patched
        if "dual" in c.representation:
            patch.setattr(Ridge, "prefers_dual", by_rows_if_possible)
        yield


def oracle_of(c: Case, partition: Partition) -> tuple[Callable[[ridge_oracle.Column], ridge_oracle.Number], float]:
    """J as a function of the hyperparameters, in many digits, and the largest offset over spread."""
    problem, training = present(c.problem), c.plan.training
    everyone = np.arange(len(problem.y))
    exact = ridge_oracle.Exact(
        problem.X, problem.y, problem.base_weights(everyone), problem.score_weights(everyone),
        c.penalty_of_column, training.intercept, training.standardize,
    )  # fmt: skip
    splits = [(partition.rows(train), partition.rows(validation)) for train, validation in partition.splits]
    columns = exact_columns(c)
    ratio = max((offset_over_spread(columns[train], c.plan.training.intercept) for train, _ in splits), default=0.0)
    return functools.partial(ridge_oracle.value, exact, c.plan.selection.kind, splits), ratio


def exact_columns(c: Case) -> np.ndarray:
    """The columns whose offset costs digits: those of X and, without an intercept, the target."""
    problem = present(c.problem)
    X = problem.X.toarray() if isinstance(problem.X, csr_array) else np.asarray(problem.X)
    return X if c.plan.training.intercept else np.column_stack([X, problem.y])


def present(problem: Problem) -> Problem:
    """The rows that train or are scored, which the core counts from 0."""
    rows = np.arange(len(problem.y))
    kept = (problem.base_weights(rows) > 0) | (problem.score_weights(rows) > 0)
    weights = {name: None if (w := getattr(problem, name)) is None else w[kept] for name in ("weights", "scoring")}
    return Problem(problem.X[kept], problem.y[kept], problem.features, **weights)


def offset_over_spread(Z: np.ndarray, intercept: bool) -> float:
    """The largest |mean| / standard deviation of a column, with all rows or without one: an outlier hides a spread.

    A constant column does not count, or without an intercept, for which it stands, in units of its own.
    """
    constant = np.inf if intercept else 1.0
    parts = [Z, *(np.delete(Z, i, axis=0) for i in range(len(Z)) if len(Z) > 2)]
    spreads = np.min([np.where(np.ptp(part, axis=0) > 0, part.std(axis=0), constant) for part in parts], axis=0)
    return float((np.abs(Z.mean(axis=0)) / spreads).max(initial=0.0))


def result_of(c: Case, *, with_gradient: bool = False) -> Result:
    """What the core makes of the case. The oracle follows its partition of the rows."""
    with represented(c), np.errstate(all="ignore"):
        try:
            prepared = prepare(c.table, c.plan)
        except ValueError as error:
            problem = present(c.problem)
            rows = np.arange(len(problem.y))
            _, ratio = oracle_of(c, c.plan.selection.partition(rows, len(rows), problem))
            return Result(c, ratio, np.nan, np.nan, np.nan, str(error), flagged=False)
        at = prepared.objective.evaluate(c.rho)
        flagged = at.failure is None and is_flagged(prepared, at)
    oracle, ratio = oracle_of(c, prepared.partition)
    if at.failure is not None:
        return Result(c, ratio, np.nan, np.nan, np.nan, at.failure.code, flagged=False)
    expected = float(oracle(ridge_oracle.exact(prepared.objective.hyperparameters.natural(c.rho))))
    unit = max(
        abs(expected), prepared.objective.unit(expected)
    )  # a log likelihood of n rows has no zero: its unit is n
    slope_error = np.nan
    if with_gradient and len(c.rho) <= MOST_SLOPES:
        slope_error = float(np.abs(at.gradient - ridge_oracle.gradient(oracle, c.rho)).max()) / unit
    return Result(c, ratio, at.value, expected, abs(at.value - expected) / unit, "", flagged, slope_error)


def show(results: list[Result]) -> str:
    """Each case that is not right or flagged, with its seed; then how many of each kind."""
    lines = [str(r) for r in results if not r.is_right or r.flagged]
    verdicts = sorted({r.verdict for r in results})
    kinds: dict[str, Callable[[Result], object]] = {
        "representation": lambda r: r.case.representation,
        "selection": lambda r: r.case.selection,
        "intercept": lambda r: r.case.plan.training.intercept,
        "standardize": lambda r: r.case.plan.training.standardize,
        "offset over spread": lambda r: "below 1e8" if r.ratio < MIN_OFFSET else "from 1e8",
    }
    for name, kind in kinds.items():
        counts = Counter((str(kind(r)), r.verdict) for r in results)
        lines.append(f"{name:20s}" + "".join(f"{verdict:>16s}" for verdict in verdicts))
        lines += [
            f"  {k:18s}" + "".join(f"{counts[k, verdict]:16d}" for verdict in verdicts)
            for k in dict.fromkeys(k for k, _ in counts)
        ]
    return "\n".join(lines)


def check(seeds: Iterable[int]) -> None:
    results = [result_of(case(seed)) for seed in seeds]
    table = show(results)
    unanswered = [r for r in results if r.refusal or r.flagged]
    assert all(r.is_right or r.refusal or r.flagged for r in results), f"silently wrong:\n{table}"
    assert not any(r.flagged and r.is_right for r in results), f"flagged, and right:\n{table}"
    assert all(r.ratio >= MIN_OFFSET for r in unanswered), f"no answer, and no large offset:\n{table}"
    assert len(unanswered) <= MAX_UNANSWERED * len(results), f"too many have no answer:\n{table}"


@pytest.mark.unchecked
def test_j_is_right_or_says_that_it_is_not():
    check(range(DEFAULT_CASES))


@pytest.mark.slow
@pytest.mark.unchecked
@pytest.mark.timeout(3600)
def test_j_of_many_cases_is_right_or_says_that_it_is_not():
    check(range(SLOW_CASES))


@pytest.mark.unchecked
def test_tables_that_cost_no_digits_lose_none():
    """The oracle and the core agree in every selection and representation."""
    for seed in range(0, 2 * DEFAULT_CASES, 7):
        c, rng = case(seed), np.random.default_rng(seed)
        X = rng.normal(size=c.problem.X.shape) + 1.0
        benign = replace(c.problem, X=X, y=X @ np.ones(X.shape[1]) + rng.normal(size=len(X)))
        result = result_of(replace(c, problem=benign, rho=c.rho / 4))
        assert result.error <= 1e-12, str(result)


@pytest.mark.unchecked
def test_the_gradient_is_as_right_as_j():
    results = [result_of(case(seed), with_gradient=True) for seed in range(0, DEFAULT_CASES, 5)]
    right = [r for r in results if r.is_right and not np.isnan(r.slope_error)]
    assert len(right) > len(results) // 4
    assert all(r.slope_error <= SLOPE_TOLERANCE for r in right), [(r.case.seed, r.slope_error) for r in right]


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        first, colon, end = argument.partition(":")
        found = [result_of(case(seed)) for seed in range(int(first), int(end) if colon else int(first) + 1)]
        sys.stdout.write((show(found) if colon else str(found[0])) + "\n")
