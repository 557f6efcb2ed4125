"""From results to the table: losses in percent of the best shared penalty's on the same split."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.new_rows.results import Results

BASE, COST_BASE, OURS = "shared", "plain", "auto"


@dataclass(frozen=True)
class Comparison:
    """One method on one task: `percent` over the splits, and CPU seconds over those of plain tuning (NaN: unknown)."""

    percent: np.ndarray
    cost: float

    @property
    def mean(self) -> float:
        """Over the splits; negative is better than the best shared penalty."""
        return float(self.percent.mean())

    @property
    def error(self) -> float:
        """Standard error of the mean, NaN for one split."""
        count = len(self.percent)
        return float(self.percent.std(ddof=1) / np.sqrt(count)) if count > 1 else np.nan

    @property
    def worst(self) -> float:
        """The worst split."""
        return float(self.percent.max())


def compare(results: Results, task: int, method: str) -> Comparison | None:
    """The paired comparison on the splits that both have; None without any."""
    base, ours, plain = (results.of(task, name) for name in (BASE, method, COST_BASE))
    splits = sorted(base.keys() & ours.keys())
    if not splits:
        return None
    percent = np.array([100.0 * (ours[i].loss / base[i].loss - 1.0) for i in splits])
    timed = sorted(ours.keys() & plain.keys())
    cost = sum(ours[i].seconds for i in timed) / sum(plain[i].seconds for i in timed) if timed else np.nan
    return Comparison(percent, cost)


@dataclass(frozen=True)
class Summary:
    """One method over several tasks: `better` and `worse` count means beyond one standard error."""

    tasks: int
    mean: float
    worst: float
    worst_split: float
    better: int
    worse: int
    cost: float

    @classmethod
    def of(cls, rows: Sequence[Comparison]) -> Summary:
        """Each task counts the same. Cost is the median over the tasks."""
        means = [row.mean for row in rows]
        return cls(
            len(rows),
            float(np.mean(means)),
            max(means),
            max(row.worst for row in rows),
            sum(row.mean < -row.error for row in rows),
            sum(row.mean > row.error for row in rows),
            float(np.median([row.cost for row in rows])),
        )


@dataclass(frozen=True)
class Honesty:
    """In how many of the tasks the corrected value is closer to the loss on new rows than the selection value.

    `by_split`: by the mean over splits of the absolute difference; `by_mean`: by the difference of the means.
    """

    tasks: int
    by_split: int
    by_mean: int


def honesty(results: Results, tasks: Iterable[int], method: str) -> Honesty:
    """Of a method that says both values."""
    counted = by_split = by_mean = 0
    for task in tasks:
        found = [f for f in results.of(task, method).values() if f.value is not None and f.corrected is not None]
        if not found:
            continue
        loss, value, corrected = np.array([[f.loss, f.value, f.corrected] for f in found], float).T
        counted += 1
        by_split += int(np.abs(corrected - loss).mean() < np.abs(value - loss).mean())
        by_mean += int(abs((corrected - loss).mean()) < abs((value - loss).mean()))
    return Honesty(counted, by_split, by_mean)


def table(results: Results, names: Mapping[int, str], parts: Mapping[str, Sequence[int]]) -> Iterator[str]:
    """Lines of Markdown: each task, each method over the `parts` of the tasks, and the product beside each peer."""
    methods = [method for method in results.methods() if method != BASE]
    rows = {
        (task, method): row
        for task in names
        for method in methods
        if (row := compare(results, task, method)) is not None
    }
    yield "Loss on new rows in percent of the best shared penalty's: mean over splits (standard error), worst split;"
    yield "CPU time over plain tuning's"
    yield ""
    yield line("", "splits", *methods)
    yield line(*["---"] * (2 + len(methods)))
    for task, name in names.items():
        cells = [rows.get((task, method)) for method in methods]
        if any(cells):
            splits = max(len(cell.percent) for cell in cells if cell)
            yield line(f"{task} {name}", str(splits), *(shown(cell) for cell in cells))
    for title, part in parts.items():
        yield from [
            "",
            f"{title}: mean over tasks, worst task, worst split, better / worse by a standard error, cost",
            "",
        ]
        yield line("", "tasks", "mean", "worst task", "worst split", "better / worse", "cost")
        yield line(*["---"] * 7)
        for method in methods:
            if chosen := [rows[task, method] for task in part if (task, method) in rows]:
                yield summarized(method, Summary.of(chosen))
    yield from beside(rows, methods, next(iter(parts.values())))
    for method in methods:
        said = honesty(results, next(iter(parts.values())), method)
        if said.tasks and method != COST_BASE:
            yield ""
            yield (
                f"{method}: the corrected value is closer to the loss on new rows than the selection value in "
                f"{said.by_split} of {said.tasks} tasks (by means over splits: {said.by_mean})"
            )


def beside(rows: Mapping[tuple[int, str], Comparison], methods: Sequence[str], tasks: Sequence[int]) -> Iterator[str]:
    """The product and each other method on the tasks that both have."""
    pairs = {
        method: [
            (rows[task, OURS], rows[task, method]) for task in tasks if {(task, OURS), (task, method)} <= rows.keys()
        ]
        for method in methods
        if method != OURS
    }
    if any(pairs.values()):
        yield from ["", f"`{OURS}` beside each on the tasks that both have: means over tasks", ""]
        yield line("", "tasks", OURS, "the other", f"{OURS} has the lower mean in")
        yield line(*["---"] * 5)
    for method, both in pairs.items():
        if both:
            ours, theirs = (float(np.mean([pair[side].mean for pair in both])) for side in (0, 1))
            lower = sum(ours.mean < theirs.mean for ours, theirs in both)
            yield line(method, str(len(both)), f"{ours:+.2f}", f"{theirs:+.2f}", str(lower))


def line(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def shown(row: Comparison | None) -> str:
    if row is None:
        return ""
    return f"{row.mean:+.1f} ({row.error:.1f}), {row.worst:+.1f}; {row.cost:.1f}"


def summarized(method: str, s: Summary) -> str:
    counts = f"{s.better} / {s.worse}"
    return line(
        method, str(s.tasks), f"{s.mean:+.2f}", f"{s.worst:+.1f}", f"{s.worst_split:+.1f}", counts, f"{s.cost:.1f}"
    )
