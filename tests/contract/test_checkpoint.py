"""A checkpoint gives back every bit of the state, and the search goes on from it as if it had never stopped."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest

from tests.contract.specs import document, parsed, table
from worker import checkpoint
from worker.core.records import Evaluation, Outcome, Start, State, Step
from worker.core.search.plan import Prepared, prepare
from worker.core.search.tune import tune


def bits(value: Any) -> Any:
    """Something that compares equal only if every bit is equal."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: bits(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, (np.ndarray, np.generic)):
        return (value.shape, value.dtype.str, value.tobytes())
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, dict):
        return {key: bits(item) for key, item in value.items()}
    return [bits(item) for item in value] if isinstance(value, tuple) else value


def prepared(kind: str, penalty: str = "per_feature", **settings: Any) -> Prepared:
    given = document(
        data=table(30, 6),
        training__penalty={"kind": penalty, **settings},
        outer={"kind": kind, "starts": 3, "tolerance": 1e-10, "max_iterations": 8},
    )
    spec = parsed(given)
    return prepare(spec.problem(), spec.plan())


def states(steps: list[Step]) -> list[State]:
    return [step.state for step in steps if step.state is not None]


@pytest.mark.parametrize("penalty", ["shared", "per_feature"])
@pytest.mark.parametrize("kind", ["newton", "lbfgs"])
def test_every_state_of_a_search_survives_packing(kind: str, penalty: str) -> None:
    found = states(list(tune(prepared(kind, penalty))))
    assert len(found) > 5
    for state in found:
        again = checkpoint.unpack(checkpoint.pack(state))
        assert bits(dict(again.search)) == bits(dict(state.search))
        assert bits(again.starts) == bits(state.starts)


@pytest.mark.parametrize("spread", ["auto", None])
@pytest.mark.parametrize("kind", ["newton", "lbfgs"])
def test_a_search_resumed_from_bytes_ends_in_the_same_bits(kind: str, spread: str | None) -> None:
    whole = list(tune(prepared(kind, spread=spread)))
    found = states(whole)
    for state in (found[0], found[len(found) // 2], found[-1]):
        *_, last = tune(prepared(kind, spread=spread), checkpoint.unpack(checkpoint.pack(state)))
        assert bits(last) == bits(whole[-1])


def test_odd_values_survive() -> None:
    values = np.array([np.nan, -np.nan, np.inf, -np.inf, -0.0, 5e-324, 1.0])
    failed = Evaluation(values, np.inf, np.zeros(7), np.array([np.inf]), Outcome.SINGULAR)
    fine = Evaluation(values + 1, -0.0, values, np.array([0.5]))
    for outcome, spread in zip((None, *Outcome), itertools.cycle([None, 0.0, 0.5, 1e-300]), strict=False):
        given = dataclasses.replace(fine, prior=0.1, value_error=0.2, gradient_error=5e-324)
        start = Start(given, failed, np.inf, 2, 3, outcome, refused=1, scanned=2, spread=spread)
        state = State({"a": values, "b": np.array(3)}, (start,))
        again = checkpoint.unpack(checkpoint.pack(state))
        assert bits(dict(again.search)) == bits(dict(state.search))
        assert again.starts[0].outcome is outcome
        kept = dataclasses.replace(failed, failure=None)  # what failed is not resumed: only its numbers are kept
        assert bits(again.starts[0]) == bits(dataclasses.replace(state.starts[0], best=kept))
