"""From results to the table: losses in percent of the best shared penalty's on the same split."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.new_rows.results import Results

BASE, COST_BASE, OURS = "shared", "plain", "auto"
NOTHING = 0.01  # percent: the same penalties, found by two searches


@dataclass(frozen=True)
class Comparison:
    """One method on one task: `percent` over the splits; CPU seconds, and those of plain tuning on the same splits."""

    percent: np.ndarray
    seconds: float
    plain: float

    @property
    def cost(self) -> float:
        """In units of plain tuning; NaN without it."""
        return self.seconds / self.plain if self.plain else np.nan

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
    return Comparison(percent, *(sum(one[i].seconds for i in timed) for one in (ours, plain)))


@dataclass(frozen=True)
class Summary:
    """One method over several tasks: `better` and `worse` count means beyond one standard error and 0.01 %.

    `cost` is the median over the tasks, `total` that of all CPU time together.
    """

    tasks: int
    mean: float
    worst: float
    worst_split: float
    better: int
    worse: int
    cost: float
    total: float

    @classmethod
    def of(cls, rows: Sequence[Comparison]) -> Summary:
        """Each task counts the same."""
        means = [row.mean for row in rows]
        return cls(
            len(rows),
            float(np.mean(means)),
            max(means),
            max(row.worst for row in rows),
            sum(row.mean < -max(row.error, NOTHING) for row in rows),
            sum(row.mean > max(row.error, NOTHING) for row in rows),
            float(np.median([row.cost for row in rows])),
            sum(row.seconds for row in rows) / (sum(row.plain for row in rows) or np.nan),
        )


@dataclass(frozen=True)
class Honesty:
    """In how many of the tasks the corrected value is closer to the loss on new rows than the selection value.

    `by_split`: by the mean over splits of the absolute difference; `by_mean`: by the difference of the means. `equal`:
    tasks where a shared penalty was chosen on every split, for which both values are J.
    """

    tasks: int
    by_split: int
    by_mean: int
    equal: int


def honesty(results: Results, tasks: Iterable[int], method: str) -> Honesty:
    """Of a method that says both values."""
    counted = by_split = by_mean = equal = 0
    for task in tasks:
        found = [f for f in results.of(task, method).values() if f.value is not None and f.corrected is not None]
        if not found:
            continue
        loss, value, corrected = np.array([[f.loss, f.value, f.corrected] for f in found], float).T
        counted += 1
        equal += int((corrected == value).all())
        by_split += int(np.abs(corrected - loss).mean() < np.abs(value - loss).mean())
        by_mean += int(abs((corrected - loss).mean()) < abs((value - loss).mean()))
    return Honesty(counted, by_split, by_mean, equal)


Rows = Mapping[tuple[int, str], Comparison]


def table(results: Results, names: Mapping[int, str], parts: Mapping[str, Sequence[int]]) -> Iterator[str]:
    """Lines of Markdown: each task, each method over the `parts` of the tasks, and the product beside each peer."""
    methods = [method for method in results.methods() if method != BASE]
    compared = {(task, method): compare(results, task, method) for task in names for method in methods}
    rows = {key: row for key, row in compared.items() if row is not None}
    yield from by_task(rows, names, methods)
    for title, part in parts.items():
        yield from over(rows, title, part, methods)
    every = next(iter(parts.values()))
    yield from beside(rows, methods, every)
    for method in methods:
        if (said := honesty(results, every, method)).tasks:
            yield ""
            yield f"{method}: the corrected value is closer to the loss on new rows than the selection value in"
            yield f"{said.by_split} of {said.tasks} tasks (by means over splits: {said.by_mean}), equal in {said.equal}"


def by_task(rows: Rows, names: Mapping[int, str], methods: Sequence[str]) -> Iterator[str]:
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


def over(rows: Rows, title: str, tasks: Sequence[int], methods: Sequence[str]) -> Iterator[str]:
    """Each method over these tasks; nothing if there is none."""
    chosen = {method: [rows[task, method] for task in tasks if (task, method) in rows] for method in methods}
    if any(chosen.values()):
        yield from ["", f"{title}: means over tasks, worst task and split, better / worse by a standard error,"]
        yield from ["median cost of a task and cost of all together", ""]
        yield line("", "tasks", "mean", "worst task", "worst split", "better / worse", "cost", "together")
        yield line(*["---"] * 8)
    yield from (summarized(method, Summary.of(found)) for method, found in chosen.items() if found)


def beside(rows: Rows, methods: Sequence[str], tasks: Sequence[int]) -> Iterator[str]:
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
    means = (f"{s.mean:+.2f}", f"{s.worst:+.1f}", f"{s.worst_split:+.1f}")
    return line(method, str(s.tasks), *means, f"{s.better} / {s.worse}", f"{s.cost:.1f}", f"{s.total:.1f}")
