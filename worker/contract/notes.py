"""What a validation or a result says besides its numbers, for programs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

from pydantic import Field

from worker.contract.dataset import DatasetWarning
from worker.contract.wire import Wire

MOST = 100  # notes of one kind


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
