"""Starts searched at the same time: what is told is what one process would tell, whatever becomes of the forks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from tests.contract.specs import document, parsed, table
from worker import ahead, checkpoint
from worker.ahead import Ahead
from worker.core.outer.descend import Search, Trials
from worker.core.records import Outcome, Step
from worker.core.search.one_start import search
from worker.core.search.plan import Prepared, prepare
from worker.core.search.procedure import carry_out
from worker.core.search.tune import tune


def prepared(kind: str = "newton", starts: int = 4, **changes: Any) -> Prepared:
    outer = {"kind": kind, "starts": starts, "tolerance": 1e-9, "max_iterations": 4}
    penalty = {"kind": "per_feature", "initial": 1e4, "spread": None}  # the later starts are better
    given = {"selection": {"kind": "holdout", "fraction": 0.4}, **changes}
    spec = parsed(document(data=table(40, 4), training__penalty=penalty, outer=outer, **given))
    return prepare(spec.problem(), spec.plan())


def bits(step: Step) -> tuple[Any, ...]:
    return (
        step.at.rho.tobytes(), step.at.value, step.at.gradient.tobytes(), step.gradient_norm, step.ended,
        step.evaluations, step.iterations, [start.outcome for start in step.starts],
        None if step.state is None else {name: a.tobytes() for name, a in step.state.search.items()},
    )  # fmt: skip


def forks() -> list[int]:
    return [child.pid for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    before = set(forks())
    yield
    assert set(forks()) == before


@pytest.mark.parametrize("kind", ["newton", "lbfgs"])
@pytest.mark.parametrize("at_once", [1, 2, 8])
def test_every_step_is_the_same(kind: str, at_once: int) -> None:
    job = prepared(kind)
    expected = [bits(step) for step in tune(job)]
    with Ahead(at_once, 0.0) as searches:
        assert [bits(step) for step in tune(job, None, searches)] == expected


def test_they_do_run_at_the_same_time() -> None:
    job = prepared()
    with Ahead(3, 0.0) as searches:
        steps = tune(job, None, searches)
        next(steps)
        own = set(searches._forks)
        assert own >= {0, 1, 2}
        for _ in steps:
            own |= set(searches._forks)
        assert own == set(range(4))
        assert not searches._forks


@pytest.mark.parametrize("kind", ["newton", "lbfgs"])
def test_resumed_anywhere_in_several_starts(kind: str) -> None:
    job = prepared(kind, starts=3)
    whole = list(tune(job))
    for i in [i for i, step in enumerate(whole) if step.state is not None][::5]:
        state = whole[i].state
        assert state is not None
        with Ahead(2, 0.0) as searches:
            rest = list(tune(job, checkpoint.unpack(checkpoint.pack(state)), searches))
        assert [bits(step) for step in rest] == [bits(step) for step in whole[i + 1 :]]


@pytest.mark.parametrize("ended", [Outcome.MAX_EVALUATIONS, Outcome.TARGET_VALUE])
def test_budgets_stop_at_the_same_evaluation(ended: Outcome) -> None:
    values = [start.best.value for start in list(tune(prepared()))[-1].starts if start.spread is None]
    target = min(value for value in values[1:] if value < values[0])  # the first start does not reach it
    limits = {"evaluations": 12} if ended is Outcome.MAX_EVALUATIONS else {"target_value": target * (1 + 1e-9)}
    job = prepared(limits=limits)
    expected = [bits(step) for step in tune(job)]
    assert expected[-1][4] is ended
    with Ahead(2, 0.0) as searches:
        assert [bits(step) for step in tune(job, None, searches)] == expected


@pytest.mark.parametrize("after", [0, 7])
def test_the_death_of_a_fork_changes_nothing(after: int) -> None:
    job = prepared(starts=4)
    expected = [bits(step) for step in tune(job)]
    with Ahead(2, 0.0) as searches:
        told = []
        for number, step in enumerate(tune(job, None, searches)):
            told.append(bits(step))
            if number == after:
                for fork in searches._forks.values():
                    if fork.running:
                        os.kill(fork.pid, signal.SIGKILL)
        assert told == expected


@pytest.mark.parametrize("error", [MemoryError, ZeroDivisionError])
def test_a_fork_that_fails_is_replaced(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    job, here = prepared(starts=3), os.getpid()
    expected = [bits(step) for step in tune(job)]

    def failing(*arguments: Any) -> Search:
        trials = Trials(search(*arguments))
        for number, trial in enumerate(trials):
            if number == 2 and os.getpid() != here:
                raise error
            yield trial
        return trials.outcome

    monkeypatch.setattr(ahead, "search", failing)
    with Ahead(3, 0.0) as searches:
        assert [bits(step) for step in tune(job, None, searches)] == expected


def test_left_in_the_middle_it_leaves_no_process() -> None:
    with Ahead(3, 0.0) as searches:
        for _ in zip(range(3), tune(prepared(), None, searches), strict=False):
            pass
        assert len(forks()) >= 1


def test_the_folds_of_nested_cross_validation() -> None:
    job = prepared(starts=2, nested={"folds": 2})
    expected = [bits(step) for step in carry_out(job)]
    with Ahead(2, 0.0) as searches:
        assert [bits(step) for step in carry_out(job, None, searches)] == expected


def test_evaluations_that_take_no_time_are_not_worth_a_fork() -> None:
    with Ahead(2, 1e3) as searches:
        for _ in tune(prepared(), None, searches):
            assert not searches._forks


def test_what_waits_to_be_told_is_bounded() -> None:
    job = prepared(starts=9)
    with Ahead(2, 0.0) as searches:
        steps = tune(job, None, searches)
        most = 0
        for _ in steps:
            most = max(most, len(searches._forks))
    assert most <= 2 * ahead.AHEAD


SHARED = """
import numpy as np
from worker.queue import memory
memory.limit(64 * 2**20)
memory.divide(2)
np.ones(3 * 2**20)  # 24 MiB: fits
try:
    np.ones(6 * 2**20)
except MemoryError:
    print("refused")
"""


def test_a_limit_of_memory_is_shared_by_the_forks() -> None:
    # in a process of its own: what a large one has free would be used first
    said = subprocess.run([sys.executable, "-c", SHARED], capture_output=True, text=True, timeout=60, check=False)
    assert (said.stdout, said.returncode) == ("refused\n", 0), said.stderr
