"""From what is stored of a job to its problem: inline data from the store, datasets from their storage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from worker.contract.classes import left_classes_fault
from worker.contract.columns import Selected, select
from worker.contract.data import DatasetData
from worker.contract.dataset import DatasetWarning
from worker.contract.description import StoredJob, Work
from worker.contract.expansion import Made
from worker.contract.faults import sentence
from worker.core.rows.problem import Problem
from worker.core.search.plan import Prepared, prepare
from worker.datasets import DamagedError, DatasetGoneError, open_table, storage_from_environment
from worker.datasets.features import problem_of


class LoadError(Exception):
    """The job cannot run on its data, however often it is tried: a code, a title and a sentence.

    `damaged`: the dataset whose files are not what was stored, if that is why.
    """

    def __init__(self, code: str, title: str, detail: str, damaged: str = "") -> None:
        super().__init__(detail)
        self.code, self.title, self.damaged = code, title, damaged


@dataclass(frozen=True, slots=True)
class Task:
    """A job that is ready to run, how its features come from columns, and the warnings of those columns."""

    prepared: Prepared
    made: tuple[Made, ...]
    warnings: tuple[DatasetWarning, ...] = ()


def load(description: bytes, data: bytes) -> Task:
    """Open the data and build the statistics. Raises LoadError; StorageError where trying again may help."""
    stored = StoredJob(description)
    task, dataset = stored.work(data), stored.dataset
    if dataset is None:
        return Task(prepare(task.problem, task.plan), ())
    try:
        table = open_table(storage_from_environment(), dataset.dataset_id)
    except DatasetGoneError as error:
        detail = "The dataset of the job is not in the storage any more; upload it again."
        raise LoadError("dataset-gone", "The dataset is gone", detail) from error
    except DamagedError as error:
        raise LoadError("dataset-damaged", "The dataset is damaged", str(error), error.dataset_id) from error
    selected = select(dataset, table.dataset, task.plan.training)
    if not isinstance(selected, Selected):
        raise _unfit(selected[0].detail)
    try:
        problem = problem_of(table, selected)
        if task.plan.training.classifies:
            _check_classes(dataset, task, problem)
        return Task(prepare(problem, task.plan), selected.made, selected.warnings)
    except np.linalg.LinAlgError:
        raise
    except ValueError as error:  # what the record did not show: a fold without rows, a missing value
        raise _unfit(sentence(str(error))) from error


def _check_classes(dataset: DatasetData, task: Work, problem: Problem) -> None:
    """Raises LoadError if rows of weight 0 leave too few or too many classes, or a penalty without its class."""
    if fault := left_classes_fault(task.plan.training, dataset, problem.classes):
        raise _unfit(fault.detail)
    if task.plan.hyperparameters(problem).names != task.plan.hyperparameters(task.problem).names:
        gone = next(name for name in task.problem.classes if name not in problem.classes)
        raise _unfit(
            f"All rows of class {gone[:60]!r} have weight 0, and a penalty is named by it; send the data without these "
            "rows, or choose a penalty that all classes share."
        )


def _unfit(detail: str) -> LoadError:
    return LoadError("data-do-not-fit", "The data do not fit the spec", detail)
