"""Parts of a spec that are well by themselves and do not go with each other: the core judges, here are the pointers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from worker.contract.faults import Fault, pointer_of, sentence
from worker.core.losses.elementary import RowError
from worker.core.rows.present import present_rows
from worker.core.rows.problem import Problem
from worker.core.search.misfits import misfits
from worker.core.search.plan import Plan
from worker.core.training import Training


def combination_faults(plan: Plan, problem: Problem, rows: int) -> Iterator[Fault]:
    """What criteria, methods and columns ask of each other, whatever the values are."""
    for one in misfits(plan, problem, rows):
        text = one.text if one.text.endswith(".") else sentence(one.text)
        yield Fault(pointer_of(list(one.path)), one.code, text)


def target_faults(training: Training, problem: Problem) -> Iterator[Fault]:
    """Targets that the training criterion does not take, in rows that are not left out."""
    kept = present_rows(problem)
    y = np.full(len(problem.y), problem.y[kept[0]])  # a row that is left out may have any target
    y[kept] = problem.y[kept]
    try:
        training.check_target(replace(problem, y=y))
    except RowError as error:
        yield Fault(f"/data/y/{error.row}", "out_of_range", sentence(str(error)))
    except ValueError as error:
        yield Fault("/data/y", "out_of_range", sentence(str(error)))
