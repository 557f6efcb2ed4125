"""Ridge against 150 digits on tables that cost digits: J is right, or training is refused, or a certificate says so.

`python -m tests.core.test_conditioning SEED ...` shows single cases; `... FIRST:END` a range of them, in a table.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pytest

from tests.core import ridge_oracle
from tests.core.ridge_cases import Case, case
from worker.core.penalties.forms import PenaltyForms
from worker.core.records import Evaluation
from worker.core.search.plan import Prepared, prepare
from worker.core.training import Ridge

TOLERANCE = 1e-9  # of J, relative
MAX_UNANSWERED = 0.05  # share of cases that may be refused or flagged
MIN_OFFSET = 1e8  # offset over spread from which on a case may be refused or flagged
CHUNKS = {"MAX_CHUNK_ROWS": 5, "CHUNK_VALUES": 40, "SPARSE_CHUNK_VALUES": 30}
DEFAULT_CASES, SLOW_CASES = 100, 2000


def is_flagged(prepared: Prepared, at: Evaluation) -> bool:
    """Whether the certificate of the arithmetic says that J has lost digits."""
    return False


@dataclass(frozen=True)
class Result:
    """What became of a case. `ratio` is the largest |mean| / standard deviation of a column in a split's training."""

    case: Case
    ratio: float
    value: float
    expected: float
    error: float
    refusal: str
    flagged: bool

    @property
    def is_right(self) -> bool:
        return not self.refusal and self.error <= TOLERANCE

    @property
    def verdict(self) -> str:
        if self.refusal:
            return "refused"
        return ("right" if self.is_right else "wrong") + (", flagged" if self.flagged else "")

    def __str__(self) -> str:
        c = self.case
        training = c.plan.training
        parts = [
            f"{c.seed:5d} {self.verdict:14s} {c.representation:14s} {c.selection:19s}",
            f"{'b' if training.intercept else '-'}{'s' if training.standardize else '-'}",
            f"{'w' if c.problem.weights is not None else '-'}{'0' if (c.problem.weights == 0).any() else '-'}"
            if c.problem.weights is not None
            else "--",
            f"n {len(c.problem.y)} ratio {self.ratio:8.1e} J {self.value:.12g} not {self.expected:.12g}",
            f"error {self.error:.1e} {self.refusal}",
            ",".join(sorted(set(c.columns))),
        ]
        return " ".join(parts)


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


def oracle_of(c: Case, prepared: Prepared) -> tuple[float, float]:
    """J in many digits, and the largest offset over spread."""
    problem, partition = c.problem, prepared.partition
    everyone = np.arange(len(problem.y))
    exact = ridge_oracle.Exact(
        problem.X, problem.y, problem.base_weights(everyone), problem.score_weights(everyone),
        c.penalty_of_column, c.plan.training.intercept, c.plan.training.standardize,
    )  # fmt: skip
    splits = [(partition.rows(train), partition.rows(validation)) for train, validation in partition.splits]
    lam = ridge_oracle.exact(prepared.objective.hyperparameters.natural(c.rho))
    expected = ridge_oracle.value(exact, c.plan.selection.kind, splits, lam)
    ratios = [
        abs(mean) / ridge_oracle.mp.sqrt(variance)
        for train, _ in splits
        for mean, variance in exact.spreads(train)[:-1]
        if variance
    ]
    return float(expected), float(max(ratios, default=0.0))


def result_of(c: Case) -> Result:
    with represented(c), np.errstate(all="ignore"):
        prepared = prepare(c.table, c.plan)
        at = prepared.objective.evaluate(c.rho)
        expected, ratio = oracle_of(c, prepared)
        refusal = "" if at.failure is None else at.failure.code
        unit = max(abs(expected), prepared.objective.unit(expected))
        error = abs(at.value - expected) / unit
        return Result(c, ratio, at.value, expected, error, refusal, not refusal and is_flagged(prepared, at))


def show(results: list[Result]) -> str:
    """What fails, by kind, and each failure with its seed."""
    wrong = [r for r in results if not (r.is_right and not r.flagged)]
    lines = [str(r) for r in wrong]
    for name, key in (
        ("representation", lambda r: r.case.representation),
        ("selection", lambda r: r.case.selection),
        ("intercept", lambda r: r.case.plan.training.intercept),
        ("standardize", lambda r: r.case.plan.training.standardize),
        ("ratio", lambda r: "below 1e8" if r.ratio < MIN_OFFSET else "from 1e8"),
    ):
        of_kind = Counter(str(key(r)) for r in results)
        verdicts = Counter((str(key(r)), r.verdict) for r in results)
        lines.append(f"-- by {name}")
        for kind, count in of_kind.items():
            counts = ", ".join(f"{verdicts[kind, v]} {v}" for v in sorted({r.verdict for r in results}))
            lines.append(f"   {kind:20s} {count:5d}: {counts}")
    return "\n".join(lines)


def check(seeds: range) -> None:
    results = [result_of(case(seed)) for seed in seeds]
    table = show(results)
    unanswered = [r for r in results if r.refusal or r.flagged]
    assert all(r.is_right or r.refusal or r.flagged for r in results), f"silently wrong\n{table}"
    assert not any(r.flagged and r.is_right for r in results), f"flagged, and right\n{table}"
    assert all(r.ratio >= MIN_OFFSET for r in unanswered), f"unanswered, though near zero\n{table}"
    assert len(unanswered) <= MAX_UNANSWERED * len(results), f"too many are unanswered\n{table}"


@pytest.mark.unchecked
def test_j_is_right_or_says_that_it_is_not():
    check(range(DEFAULT_CASES))


@pytest.mark.slow
@pytest.mark.unchecked
@pytest.mark.timeout(3600)
def test_j_of_many_cases_is_right_or_says_that_it_is_not():
    check(range(SLOW_CASES))


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        first, colon, end = argument.partition(":")
        chosen = range(int(first), int(end) if colon else int(first) + 1)
        found = [result_of(case(seed)) for seed in chosen]
        sys.stdout.write((show(found) if colon else "\n".join(map(str, found))) + "\n")
