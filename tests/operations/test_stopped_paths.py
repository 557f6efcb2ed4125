"""A job with a hyper-prior is stopped at any stage of its path: killed, cancelled, or left by a worker that died."""

from __future__ import annotations

import base64
import json
from functools import cache
from typing import Any, Literal

import numpy as np
import pytest
import redis

from tests.contract.specs import document, parsed
from tests.operations.test_algorithms import left
from tests.operations.versions import claimed, deliver, record
from worker import checkpoint, jobs, store
from worker.contract.description import describe, fingerprint
from worker.contract.inline import encode_data
from worker.contract.result import Result
from worker.contract.spec import ALGORITHM
from worker.core.records import Step
from worker.core.search.procedure import carry_out
from worker.load import load
from worker.report import step_record
from worker.store import CONTRACT, Status

pytestmark = pytest.mark.unchecked

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 10)).round(3)
Y = (X[:, :2] @ [3.0, 1.5] + 2.0 * RNG.normal(size=60)).round(3)
SPEC = document(
    data={"x": X.tolist(), "y": Y.tolist()}, training__penalty={"kind": "per_feature"},
    outer={"kind": "auto", "starts": 2}, nested={"folds": 2},
)  # fmt: skip
STAGES = {
    "shared": (1, 0), "half": (2, 0), "one": (3, 0), "further start": (4, 0), "before the folds": (4, None),
    "first fold": (4, 1), "last fold": (4, 2),
}  # fmt: skip
"""How many starts there are, and how many outer folds; None if the search is over and no fold has ended."""
DEFAULT = {"half", "one", "first fold"}  # stages of which long runs are made each time
stages = pytest.mark.parametrize("stage", STAGES)
each_stage = pytest.mark.parametrize(
    "stage", [pytest.param(stage, marks=[pytest.mark.slow] * (stage not in DEFAULT)) for stage in STAGES]
)


@cache
def job() -> dict[str, Any]:
    spec = parsed(SPEC)
    data = encode_data(spec.problem())
    description = describe(spec, data)
    return {
        "contract": CONTRACT, "algorithm": ALGORITHM, "description": description,
        "data": base64.b64encode(data).decode(), "fingerprint": fingerprint(description),
    }  # fmt: skip


@cache
def all_steps() -> list[Step]:
    """Those of an undisturbed run with a state."""
    task = load(json.dumps(job()["description"]).encode(), base64.b64decode(job()["data"]))
    return [step for step in carry_out(task.prepared) if step.state is not None]


def stopped_at(stage: str) -> int:
    """The place of the last step with a state at a stage."""

    def place(step: Step) -> tuple[int, int | None]:
        over = all(start.outcome for start in step.starts)
        return len(step.starts), None if over and not step.folds else len(step.folds)

    return max(i for i, step in enumerate(all_steps()) if place(step) == STAGES[stage])


def left_at(client: redis.Redis, stage: str) -> list[dict[str, Any]]:
    """A worker has got as far as that; the records of its steps."""
    deliver(client, job(), "j", CONTRACT)
    assert claimed(client, "j", CONTRACT, jobs.OURS) is not None
    task = load(json.dumps(job()["description"]).encode(), base64.b64decode(job()["data"]))
    last = stopped_at(stage)
    box, state = task.prepared.objective.hyperparameters, all_steps()[last].state
    assert state is not None
    told = [step_record(box, step, i) for i, step in enumerate(all_steps()[: last + 1], start=1)]
    steps = [json.dumps(one).encode() for one in told]
    packed = checkpoint.pack(state)
    store.run(client, store.beat("j", 1, progress=b"{}", elapsed=1.0, checkpoint=packed, steps=steps))
    return told


def result_of(client: redis.Redis) -> dict[str, Any]:
    document = store.run(client, store.result("j"))
    assert document is not None
    Result.model_validate_json(document)
    told = record(client, "j").progress
    assert told is not None
    result = json.loads(document)
    assert json.loads(told)["best_value"] == result["selection"]["value"]
    return dict(result)


@pytest.fixture(scope="module")
def undisturbed(operated: Any) -> dict[str, Any]:
    with store.connect(operated.url) as client:
        client.flushall()
        deliver(client, job(), "j", CONTRACT)
        claim = claimed(client, "j", CONTRACT, jobs.OURS)
        assert claim is not None
        jobs.run_claimed(client, claim)
        return {"result": result_of(client), "steps": steps_of(client)}


def steps_of(client: redis.Redis) -> list[dict[str, Any]]:
    return [json.loads(step) for step in store.run(client, store.steps("j"))]


def numbers(result: dict[str, Any]) -> dict[str, Any]:
    return {name: part for name, part in result.items() if name not in {"job_id", "timing"}}


@each_stage
def test_a_run_that_goes_on_ends_with_the_same_numbers(
    client: redis.Redis, undisturbed: dict[str, Any], stage: str
) -> None:
    left_at(client, stage)
    left(client)
    claim = claimed(client, "j", CONTRACT, jobs.OURS)
    assert claim is not None
    assert claim.attempt == 2
    jobs.run_claimed(client, claim)
    assert numbers(result_of(client)) == numbers(undisturbed["result"])
    assert steps_of(client) == undisturbed["steps"]


@stages
@pytest.mark.parametrize("reason", ["cancelled", "max_seconds"])
def test_a_killed_run_tells_what_its_checkpoint_holds(
    client: redis.Redis, undisturbed: dict[str, Any], stage: str, reason: Literal["cancelled", "max_seconds"]
) -> None:
    told = left_at(client, stage)
    if reason == "cancelled":
        store.run(client, store.cancel("j"))
    jobs.conclude_killed(client, "j", 1, reason)
    result, whole = result_of(client), undisturbed["result"]
    assert record(client, "j").status is (Status.CANCELLED if reason == "cancelled" else Status.SUCCEEDED)
    assert (result["partial"], result["model"], result["selection"]["corrected_value"]) == (True, None, None)
    assert check_of_stage(result, whole, stage) in [one["hyperparameters"] for one in told]
    if stage not in {"shared", "half"}:  # no row is read, so that none can judge what goes further
        assert result["spread"]["chosen"] == 0.5
        assert result["selection"]["value"] == whole["spread"]["path"][1]["value"]
    notes = {note["code"]: note["text"] for note in result["notes"]}
    assert set(notes) == ({"baseline_unavailable"} if stage == "shared" else set())
    assert set(notes.values()) <= set(result["messages"])


@each_stage
def test_a_cancelled_run_is_refitted_with_what_has_ended(
    client: redis.Redis, undisturbed: dict[str, Any], stage: str
) -> None:
    told = left_at(client, stage)
    store.run(client, store.cancel("j"))
    left(client)
    claim = claimed(client, "j", CONTRACT, jobs.OURS)
    assert claim is not None
    jobs.run_claimed(client, claim)
    result, whole = result_of(client), undisturbed["result"]
    assert record(client, "j").status is Status.CANCELLED
    assert result["partial"]
    assert result["model"] is not None
    assert check_of_stage(result, whole, stage) in [one["hyperparameters"] for one in told]
    points = {"shared": 0, "half": 1, "one": 2}.get(stage, 3)
    assert result["spread"]["path"] == whole["spread"]["path"][:points]
    if points == 3:
        assert (result["spread"]["by"], result["spread"]["chosen"]) == ("jackknife", whole["spread"]["chosen"])
        assert result["selection"]["corrected_value"] is not None
    if stage in {"before the folds", "first fold", "last fold"}:
        for part in ("hyperparameters", "model", "baseline", "selection"):
            assert result[part] == whole[part]
    folds = {"first fold": 1, "last fold": 2}.get(stage, 0)
    assert len((result["nested"] or {"folds": []})["folds"]) == folds


def check_of_stage(result: dict[str, Any], whole: dict[str, Any], stage: str) -> list[float]:
    """What holds with and without a refit; the hyperparameters."""
    values = [one["value"] for one in result["hyperparameters"]]
    if stage == "shared":
        assert result["baseline"] is None
        assert (result["spread"]["chosen"], result["spread"]["by"]) == (0.0, None)
    else:
        for part in ("value", "hyperparameters"):
            assert result["baseline"][part] == whole["baseline"][part]
        difference = result["selection"]["value"] - whole["baseline"]["value"]
        assert result["baseline"]["difference"] == pytest.approx(difference)
    if stage in {"shared", "half"}:
        assert len(set(values)) == 1
    if stage == "half":
        assert values == [one["value"] for one in whole["baseline"]["hyperparameters"]]
        assert (result["spread"]["chosen"], result["spread"]["by"]) == (0.0, None)
    return values
