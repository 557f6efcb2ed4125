"""What a validation or a result says besides its numbers, for programs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

from pydantic import Field

from worker.contract.dataset import DatasetWarning
from worker.contract.wire import Wire
from worker.core.costs import Cost

MOST = 100  # notes of one kind
CLEARLY_BELOW = 0.5  # of an estimate: estimates are rough, and a limit just below one may be enough


class Note(Wire):
    """One thing to know: a code that does not change, and a sentence."""

    code: str
    severity: Literal["info", "warning"]
    text: str
    hyperparameters: list[str] = Field(default_factory=list, description="Those that it is about.")


def dataset_notes(warnings: Sequence[DatasetWarning]) -> list[Note]:
    """The warnings of the columns that a job uses."""
    return [Note(code="dataset_column", severity="warning", text=warning.text) for warning in warnings[:MOST]]


def warnings_about(warnings: Sequence[DatasetWarning], columns: Collection[str]) -> tuple[DatasetWarning, ...]:
    """Those about some columns, or about the whole file."""
    return tuple(warning for warning in warnings if warning.column is None or warning.column in columns)


def limit_notes(seconds: float, evaluations: int | None, cost: Cost) -> list[Note]:
    """Limits that are clearly below the estimated cost: the search would end before it converges."""
    notes = []
    if seconds < CLEARLY_BELOW * cost.seconds:
        text = (
            f"The job is estimated to take {cost.seconds:.3g} s of one core, and limits.seconds is {seconds:g}: it is "
            "likely to end early, with the best point that it has found. Raise the limit, or use fewer rows, splits "
            "or starts."
        )
        notes.append(Note(code="limit_below_estimate", severity="warning", text=text))
    if evaluations is not None and evaluations < CLEARLY_BELOW * cost.evaluations_needed:
        text = (
            f"A search like this one typically takes {cost.evaluations_needed} evaluations, and limits.evaluations is "
            f"{evaluations}: it is likely to end before it converges. Raise the limit, or leave it out."
        )
        notes.append(Note(code="limit_below_estimate", severity="warning", text=text))
    return notes
