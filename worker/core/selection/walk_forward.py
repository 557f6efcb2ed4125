"""Walk-forward validation: train on the past, score what comes next, move on.

A border is a place between two rows in the order of time, and never lies between two rows of equal time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from jaxtyping import Int, Shaped

from worker.core.durations import RowsOrDuration, microseconds
from worker.core.records import Array
from worker.core.rows.problem import Partition, Problem
from worker.core.rows.time_order import in_order, microseconds_of, run_starts
from worker.core.selection.clusters import by_block
from worker.core.selection.outer_folds import folds_in_time
from worker.core.selection.resampled import Resampled
from worker.core.selection.selection_criterion import RowsOfSplits
from worker.core.selection.splits import MAX_FOLDS, unassigned_blocks

MAX_ORIGINS = 100_000  # origins that are looked at; those with nothing to score count here and not among the splits
MIN_TRAINING_ROWS = 2
Amount = int | str  # a number of rows, or a duration
EQUAL_TIMES = (
    "Rows of equal time stay together, so that borders of walk_forward moved to the end of such rows: no row is scored "
    "by a model that was trained on rows of its own time."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WalkForward(Resampled):
    """Sequential validation for time series: train on the past, score the next rows, move on (Bengio 2000, section 5).

    Rows are ordered by the data's `time` column, else as in the table. The first origin comes after `initial` rows, the
    next ones every `step` rows. At each origin the rows before it train (all, or the last `window`), `gap` rows are
    left out, and the next `horizon` rows are scored. Without `step` each scored part begins where the one before it
    ended. An untouched test part is the end of the series.

    Rows of equal time stay together: a border that falls between them moves to the end of their run, and the beginning
    of a window to its beginning. So a number of rows is a least number. Each of the five may also be a duration of ISO
    8601 (P7D, PT12H; weeks to seconds) if `time` is a column of dates: `initial` counts from the first row, the others
    from the border before. Origins with no row to score are left out.
    """

    initial: Annotated[Amount, RowsOrDuration(MIN_TRAINING_ROWS)]
    horizon: Annotated[Amount, RowsOrDuration(1)] = 1
    step: Annotated[Amount, RowsOrDuration(1)] | None = None
    gap: Annotated[Amount, RowsOrDuration(0)] = 0
    window: Annotated[Amount, RowsOrDuration(MIN_TRAINING_ROWS)] | None = None
    kind: Literal["walk_forward"] = "walk_forward"

    ordered: ClassVar[bool] = True
    entry_per_row: ClassVar[bool] = False
    enough_rows: ClassVar[int | None] = None

    @property
    def durations(self) -> tuple[str, ...]:
        """Names of the settings that are durations."""
        amounts: dict[str, Amount | None] = {
            "initial": self.initial,
            "horizon": self.horizon,
            "step": self.step,
            "gap": self.gap,
            "window": self.window,
        }
        return tuple(name for name, amount in amounts.items() if isinstance(amount, str))

    def partition(self, rows: Int[Array, " m"], n: int, roles: Problem | None = None) -> Partition:
        """Blocks of consecutive rows, cut at every border. Raises ValueError if nothing is left to score.

        Raises ValueError for durations without a time column of dates, and where a split trains on too few rows.
        """
        rows, clock = in_order(rows, self._clock(rows, roles))
        m = len(rows)
        spans = list(self._spans(_Axis.of(clock)))
        if not spans:
            told = f"initial {self.initial} and gap {self.gap} leave none of the {m} rows to score"
            ties = len(run_starts(clock)) < m
            raise ValueError(f"{told}, as rows of equal time stay together" if ties else told)
        cuts = np.unique([border for span in spans for border in span])
        block_of_row = unassigned_blocks(n)
        block_of_row[rows] = np.searchsorted(cuts, np.arange(m), side="right") - 1
        block_of_row[rows[cuts[-1] :]] = -1
        block_at = {int(cut): block for block, cut in enumerate(cuts)}
        splits = tuple(
            (tuple(range(block_at[begin], block_at[origin])), tuple(range(block_at[first], block_at[last])))
            for begin, origin, first, last in spans
        )
        return self.weighted(Partition(block_of_row, splits))

    def outer_folds(self, rows: Int[Array, " m"], folds: int, seed: int, problem: Problem) -> RowsOfSplits:
        """Parts of the series, each scored after tuning on the parts before it."""
        return folds_in_time(rows, folds, problem)

    def clusters(self, problem: Problem, partition: Partition) -> Int[Array, " n"]:
        """Blocks of rows that follow each other, as those that a split scores."""
        return by_block(partition, np.arange(len(problem.y)) if problem.time is None else problem.time)

    def settings_of_rows(self, kept: Int[Array, " m"], problem: Problem) -> dict[str, Any]:
        """None lists rows: amounts count those that are there."""
        return {}

    def split_remarks(self, problem: Problem, rows: Int[Array, " m"], partition: Partition) -> tuple[str, ...]:
        """Borders that moved because rows have equal times."""
        if problem.time is None or self.durations:
            return ()
        ordered = rows[np.argsort(problem.time[rows], kind="stable")]
        untied = self.partition(np.arange(len(rows)), len(rows))
        moved = not np.array_equal(untied.block_of_row, partition.block_of_row[ordered])
        return (EQUAL_TIMES,) if moved else ()

    def _clock(self, rows: Int[Array, " m"], roles: Problem | None) -> Shaped[Array, " m"]:
        """The time of each row, in microseconds if there are durations; without a time column its place."""
        time, dated = (None, False) if roles is None else (roles.time, roles.time_in_days)
        if self.durations and not (dated and time is not None):
            raise ValueError(DURATION_WITHOUT_DATES.format(", ".join(self.durations)))
        if time is None:
            return np.arange(len(rows))
        return microseconds_of(time[rows]) if self.durations else time[rows]

    def _spans(self, axis: _Axis) -> Iterator[tuple[int, int, int, int]]:
        """The borders of each split: of its training rows (from, to), then of its scored rows."""
        origin, count = axis.after(axis.start, self.initial), 0
        first = axis.after(origin, self.gap)
        for _ in range(MAX_ORIGINS):
            if first.place >= axis.size:
                return
            last, idle = axis.after(first, self.horizon), 0
            if last.place > first.place:
                begin = 0 if self.window is None else axis.before(origin, self.window).place
                if origin.place - begin < MIN_TRAINING_ROWS:
                    raise ValueError(_too_few(begin, origin.place, count))
                count += 1
                if count > MAX_FOLDS:
                    raise ValueError(f"there are more than {MAX_FOLDS} origins; raise horizon or step")
                yield begin, origin.place, first.place, last.place
            else:
                idle = axis.time_at(first.place) - last.time
            if self.step is None:
                first = axis.later(last, self.horizon, idle)
                origin = axis.before(first, self.gap)
            else:
                origin = axis.later(axis.after(origin, self.step), self.step, idle)
                first = axis.after(origin, self.gap)
        raise ValueError(f"there are more than {MAX_ORIGINS} origins; raise step")


def _too_few(begin: int, end: int, number: int) -> str:
    rows, setting = end - begin, "initial" if end < MIN_TRAINING_ROWS else "window"
    told = f"split {number + 1} would train on {rows} row{'' if rows == 1 else 's'}, and two are needed"
    return f"{told}; make {setting} longer"


DURATION_WITHOUT_DATES = (
    "{} of walk_forward is a duration, which needs a `time` column of dates in a dataset; give a number of rows instead"
)


@dataclass(frozen=True, slots=True)
class _Border:
    """The place of a border: rows before it. `time` is that of the first row after it, or a moment between two rows."""

    place: int
    time: int


@dataclass(frozen=True, slots=True)
class _Axis:
    """The times of the rows, ascending, and the places where a run of equal times begins, with the end of the table."""

    clock: Shaped[Array, " m"]
    borders: Int[Array, " r"]

    @classmethod
    def of(cls, clock: Shaped[Array, " m"]) -> _Axis:
        """The axis of rows in order."""
        return cls(clock, np.append(run_starts(clock), len(clock)))

    @property
    def size(self) -> int:
        """Number of rows."""
        return len(self.clock)

    @property
    def start(self) -> _Border:
        """The border before the first row."""
        return _Border(0, self.time_at(0))

    def time_at(self, place: int) -> int:
        """The time of the row after a border; zero at the end and where times are no whole numbers."""
        return int(self.clock[place]) if place < self.size and self.clock.dtype.kind == "i" else 0

    def after(self, border: _Border, amount: Amount) -> _Border:
        """The border that comes so many rows, or so much time, after another; a run of equal times is completed."""
        if isinstance(amount, str):
            return self._at_time(border.time + microseconds(amount)) if border.place < self.size else border
        place = int(self.borders[np.searchsorted(self.borders, min(border.place + amount, self.size))])
        return _Border(place, border.time if place == border.place else self.time_at(place))

    def before(self, border: _Border, amount: Amount) -> _Border:
        """The border that comes so many rows, or so much time, before another; a run of equal times is completed."""
        if isinstance(amount, str):
            return self._at_time(border.time - microseconds(amount))
        place = int(self.borders[np.searchsorted(self.borders, max(border.place - amount, 0), side="right") - 1])
        return _Border(place, border.time if place == border.place else self.time_at(place))

    def later(self, border: _Border, amount: Amount, idle: int) -> _Border:
        """The same border, or whole durations later if no row follows for `idle` microseconds."""
        if not isinstance(amount, str):
            return border
        return self._at_time(border.time + idle // microseconds(amount) * microseconds(amount))

    def _at_time(self, time: int) -> _Border:
        return _Border(int(np.searchsorted(self.clock, time)), time)
