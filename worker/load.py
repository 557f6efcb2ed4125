"""From what is stored of a job to its problem: inline data from the store, datasets from their storage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from worker.contract.columns import Selected, select
from worker.contract.dataset import DatasetWarning
from worker.contract.expansion import ColumnFeatures
from worker.contract.faults import sentence
from worker.contract.spec import dataset_of, work
from worker.core.search.plan import Prepared, prepare
from worker.datasets import DatasetGoneError, open_table, storage_from_environment
from worker.datasets.features import problem_of


class LoadError(Exception):
    """The job cannot run on its data, however often it is tried: a code, a title and a sentence."""

    def __init__(self, code: str, title: str, detail: str) -> None:
        super().__init__(detail)
        self.code, self.title = code, title


@dataclass(frozen=True, slots=True)
class Task:
    """A job that is ready to run, how its features come from columns, and the warnings of those columns."""

    prepared: Prepared
    made: tuple[ColumnFeatures, ...]
    warnings: tuple[DatasetWarning, ...] = ()


def load(description: bytes, data: bytes) -> Task:
    """Open the data and build the statistics. Raises LoadError; StorageError where trying again may help."""
    task = work(description, data)
    dataset = dataset_of(description)
    if dataset is None:
        return Task(prepare(task.problem, task.plan), ())
    try:
        table = open_table(storage_from_environment(), dataset.dataset_id)
    except DatasetGoneError as error:
        detail = "The dataset of the job is not in the storage any more; upload it again."
        raise LoadError("dataset-gone", "The dataset is gone", detail) from error
    selected = select(dataset, table.dataset, task.plan.training)
    if not isinstance(selected, Selected):
        raise _unfit(selected[0].detail)
    try:
        return Task(prepare(problem_of(table, selected), task.plan), selected.made, selected.warnings)
    except np.linalg.LinAlgError:
        raise
    except ValueError as error:  # what the record did not show: a fold without rows, a missing value
        raise _unfit(sentence(str(error))) from error


def _unfit(detail: str) -> LoadError:
    return LoadError("data-do-not-fit", "The data do not fit the spec", detail)
