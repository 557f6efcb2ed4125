"""What a job answers about tables drawn from a known population, and lines of JSON that keep such answers."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from worker.core.hypergradient import HypergradientAuto
from worker.core.inner.linear_model import LinearModel
from worker.core.kernels import WidthPerFeature
from worker.core.outer import OuterAuto
from worker.core.penalties import PerFeature, PerGroup
from worker.core.records import Step
from worker.core.rows.problem import Problem
from worker.core.search.descents import Descents
from worker.core.search.plan import Plan, Prepared, prepare
from worker.core.search.procedure import carry_out
from worker.core.selection import Selection
from worker.core.training import LinearTraining
from worker.core.verdict.baseline import worth
from worker.core.verdict.conclude import conclude

Spread = float | str | None  # of the hyper-prior; None is none
Family = TypeVar("Family", PerFeature, PerGroup, PerFeature | PerGroup, WidthPerFeature)
SPREADS: tuple[Spread, ...] = (None, 0.5, "auto")


@dataclass(frozen=True)
class Answer:
    """Of one job: the selection value, the one corrected for its choice, and the standard error.

    `low` and `high` are the ends of the intervals on the scale of rho, NaN for a hyperparameter that has none. `spread`
    is the one that was chosen. `notes` are the codes of what the result says besides its numbers.
    """

    value: float
    corrected: float
    standard_error: float
    low: np.ndarray
    high: np.ndarray
    rho: np.ndarray
    model: LinearModel
    spread: float | None = None
    notes: tuple[str, ...] = ()


def answer(problem: Problem, training: LinearTraining, selection: Selection) -> Answer:
    """What the service answers with its default methods."""
    prepared = prepare(problem, Plan(training, selection, HypergradientAuto(), OuterAuto()))
    *_, last = carry_out(prepared)
    return concluded(prepared, last)


def concluded(prepared: Prepared, last: Step) -> Answer:
    """The one place that knows which fields of a result hold what is measured here."""
    best = last.best
    conclusion = conclude(prepared, best, Descents(prepared).of(best, last.starts))
    judged = worth(prepared, last)
    k = len(best.best.rho)
    low, high = conclusion.intervals or (np.full(k, np.nan), np.full(k, np.nan))
    assert isinstance(conclusion.model, LinearModel)
    assert conclusion.standard_error is not None
    value = best.best.selection
    return Answer(
        value, value if judged.corrected is None else judged.corrected, conclusion.standard_error, np.log(low),
        np.log(high), best.best.rho, conclusion.model, last.choice.spread if last.choice else None,
        tuple(one.code for one in judged.findings),
    )  # fmt: skip


def with_spread(family: Family, spread: Spread) -> Family:
    """The same penalties or widths with this spread of their hyper-prior."""
    return replace(family, spread=spread)


class Lines:
    """Records by a key, each also a line of a file: a long run can stop, and go on from the file."""

    def __init__(self, path: Path | None) -> None:
        """Read the lines that there are. A last one that was cut off does not count, and is removed."""
        self._path, self._records = path, dict[str, dict[str, Any]]()
        if path is None or not path.exists():
            return
        *lines, rest = path.read_text().split("\n")
        for line in filter(None, lines):
            record = json.loads(line)
            self._records[json.dumps(record.pop("key"))] = record
        if rest:
            path.write_text("".join(f"{line}\n" for line in lines))

    def get(self, key: list[Any]) -> dict[str, Any] | None:
        """The record of this key, if it is there."""
        return self._records.get(json.dumps(key))

    def add(self, key: list[Any], record: dict[str, Any]) -> None:
        """Keep a record. Numbers that are not finite become null."""
        line = json.dumps({"key": key, **{name: _plain(value) for name, value in record.items()}})
        self._records[json.dumps(key)] = {name: value for name, value in json.loads(line).items() if name != "key"}
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(line + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [_plain(entry) for entry in value.tolist()]
    return None if isinstance(value, float) and not np.isfinite(value) else value
