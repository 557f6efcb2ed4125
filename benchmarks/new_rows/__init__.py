"""Does tuning many hyperparameters help on new rows? Each method beside the best shared penalty, on the same splits.

Twenty-seven tasks, and ten others that no choice was made on. Each run trains on some rows and scores all others.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.new_rows import ours, peers
from benchmarks.new_rows.ours import Found
from benchmarks.new_rows.own_tasks import OWN_TASKS
from benchmarks.new_rows.results import Results
from benchmarks.new_rows.table import table
from benchmarks.new_rows.task import Task
from benchmarks.new_rows.tasks import SPARSE, TASKS
from worker.core.training import LogisticRegression, MultinomialRegression, Ridge

CLASSIFIERS = (LogisticRegression, MultinomialRegression)
SHORT_TASKS, SHORT_SPLITS = (25, 27, 31), 2


@dataclass(frozen=True)
class Method:
    """A way to answer: for which training criteria, what it needs, whose CPU seconds on the same split it gets."""

    run: Callable[..., Found]
    trainings: tuple[type, ...] = (object,)
    needs: str | None = None
    seconds_of: str | None = None


METHODS = {
    "shared": Method(ours.shared),
    "plain": Method(functools.partial(ours.several, ours.PLAIN)),
    "auto": Method(functools.partial(ours.several, "auto")),
    "half": Method(functools.partial(ours.several, 0.5)),
    "RidgeCV": Method(peers.ridge_cv, (Ridge,), "sklearn"),
    "ARD": Method(peers.ard_regression, (Ridge,), "sklearn"),
    "ElasticNetCV": Method(peers.elastic_net_cv, (Ridge,), "sklearn"),
    "LogisticCV": Method(peers.logistic_cv, CLASSIFIERS, "sklearn"),
    "elastic net LogisticCV": Method(peers.logistic_elastic_net_cv, CLASSIFIERS, "sklearn"),
    "CMA-ES": Method(peers.cma_es, needs="cmaes", seconds_of="auto"),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the command line takes for this benchmark."""
    group = parser.add_argument_group("new_rows")
    group.add_argument("--tasks", type=numbers, metavar="1-5,22", help="numbers of tasks, by default all")
    group.add_argument("--methods", type=listed, metavar="A,B", help=f"of {', '.join(METHODS)}")
    group.add_argument("--table", action="store_true", help="only show what --results holds")


def numbers(text: str) -> tuple[int, ...]:
    """Numbers and ranges of them. Raises ValueError for another text."""
    ends = [part.partition("-") for part in text.split(",")]
    return tuple(n for first, _, last in ends for n in range(int(first), int(last or first) + 1))


def listed(text: str) -> tuple[str, ...]:
    """Names of methods. Raises ArgumentTypeError for one that there is not."""
    names = tuple(text.split(","))
    if unknown := [name for name in names if name not in METHODS]:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; there are {', '.join(METHODS)}")
    return names


def main(*, short: bool, data: Path | None, options: argparse.Namespace) -> None:
    every = {task.number: task for task in (*TASKS, *OWN_TASKS)}
    numbers = options.tasks or (SHORT_TASKS if short else tuple(every))
    chosen = [every[number] for number in numbers if number in every]
    results = Results.read(options.results)
    if not options.table:
        left_out = [task.name for task in chosen if not has_data(task, data)]
        if left_out:
            print(f"needs --data DIR or GRADTUNE_DATA with the folders of: {', '.join(left_out)}: left out")
        runnable = [task for task in chosen if task.name not in left_out]
        splits = options.splits or (SHORT_SPLITS if short else None)
        for name in options.methods or METHODS:
            run_all(name, runnable, splits, data or Path(), results)
    show(results, chosen)


def has_data(task: Task, data: Path | None) -> bool:
    return task.folder is None or (data is not None and (data / task.folder).exists())


def run_all(name: str, tasks: Sequence[Task], splits: int | None, data: Path, results: Results) -> None:
    """One method on all tasks that it is for, small ones first; what the results have is not run again."""
    method = METHODS[name]
    if method.needs is not None and importlib.util.find_spec(method.needs) is None:
        print(f"{name}: {method.needs} is not installed", flush=True)
        return
    for task in sorted(tasks, key=lambda task: task.size):
        if not isinstance(task.training, method.trainings):
            continue
        for i in range(min(task.splits, splits or task.splits)):
            key, rest = (task.number, i, name), ()
            if key in results.found:
                continue
            if method.seconds_of is not None:
                timed = results.found.get((task.number, i, method.seconds_of))
                if timed is None:
                    continue
                rest = (timed.seconds,)
            results.add(key, method.run(task, task.draw(data, i), i, *rest))


def show(results: Results, tasks: Sequence[Task]) -> None:
    names = {task.number: task.name for task in tasks}
    given = [number for number in names if number <= len(TASKS)]
    parts = {
        "All": given,
        "Odd": [number for number in given if number % 2],
        "Even": [number for number in given if number % 2 == 0],
        "Sparse": [number for number in given if number in SPARSE],
        "Tasks of our own, used for no choice": [number for number in names if number > len(TASKS)],
    }
    for line in table(results, names, parts):
        print(line)
