"""No request holds the event loop for long: processor time of its thread, in an API process of its own.

The limits here are those of docs/deployment.md. Times of single turns are noise of a few milliseconds; what is looked
for is work that grows with the request.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import numpy as np
import orjson
import pytest
import redis

from tests.contract.specs import document
from tests.service.api import Api
from tests.service.raw import own_process
from tests.service.watched import PATH
from worker import store
from worker.contract.description import describe, fingerprint
from worker.contract.inline import encode_data
from worker.contract.spec import JobSpec
from worker.embedded import EmbeddedServer
from worker.queue import delivery
from worker.store import Status, Submission

MOST = 0.05  # seconds of processor time
SPARSE = 2_000_000


@pytest.fixture(scope="module")
def own(idle_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with own_process(idle_server.url, tmp_path_factory.mktemp("watched")) as api:
        yield api


def held(api: Api, call: Callable[[], Any]) -> float:
    """Most seconds for which the loop was held by a call: of two, since anything may fall into one of them."""
    times = []
    for _ in range(2):
        api.get(PATH)
        call()
        times.append(float(api.get(PATH).json()))
    return min(times)


def numbers(count: int) -> dict[str, Any]:
    """An inline table of 20 columns."""
    rows = count // 21
    X = np.random.default_rng(0).normal(size=(rows, 20))
    return {"x": X.tolist(), "y": (X @ np.arange(20.0)).tolist()}


@pytest.fixture(scope="module")
def plain(own: Api) -> Iterator[httpx2.Client]:
    """A client for replies that take long to check."""
    with httpx2.Client(base_url=own.base_url, timeout=120, trust_env=False) as client:
        yield client


def post(api: httpx2.Client, path: str, body: bytes, status: int) -> Callable[[], None]:
    def call() -> None:
        reply = api.post(path, content=body, headers={"Content-Type": "application/json"})
        assert reply.status_code == status, reply.text

    return call


def test_the_watch_sees_what_holds_the_loop(own: Api) -> None:
    assert held(own, lambda: own.get("/healthz")) < MOST
    assert held(own, lambda: own.get("/test/hold")) > MOST


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/jobs?validate_only=true"])
def test_tables_in_requests(own: Api, client: redis.Redis, path: str) -> None:
    spec = document(data=numbers(100_000), training__penalty={"kind": "per_feature"})
    body = orjson.dumps(spec)
    assert held(own, post(own, path, body, 202 if path == "/v1/jobs" else 200)) < MOST
    assert held(own, post(own, path, body[:-9], 422)) < MOST
    spec["data"]["x"][-1][-1] = "a text"
    assert held(own, post(own, path, orjson.dumps(spec), 422)) < MOST


# Short bodies that take some tenths of a second or more: matrices that are made one by one, splits of splits.
LONG = [
    {
        "data": {"matrices": [[[1]]] * 80, "vectors": [[1]], "selection": {"matrix": [[1]], "vector": [1]}},
        "training": {"kind": "quadratic"},
    },
    {
        "data": {
            "x": [[n % 7] for n in range(600)], "y": [n % 5 for n in range(600)], "groups": list(range(600))
        },
        "training": {"kind": "ridge"},
        "selection": {"kind": "group_k_fold", "folds": 300},
        "nested": {"folds": 20},
    },
]  # fmt: skip


@pytest.mark.parametrize("spec", LONG, ids=["matrices", "splits"])
def test_short_bodies_that_take_long(own: Api, client: redis.Redis, spec: dict[str, Any]) -> None:
    body = json.dumps(spec, separators=(",", ":")).encode()
    assert len(body) < 16_384
    assert held(own, post(own, "/v1/jobs?validate_only=true", body, 200)) < MOST


def finished(client: redis.Redis, hyperparameters: int, steps: int) -> str:
    """A job with so many hyperparameters and steps, as a worker would have stored it."""
    job_id = f"job_{hyperparameters:012x}{steps:012x}"
    spec = JobSpec.model_validate_json(
        orjson.dumps(
            {
                "data": {
                    "matrices": [[[1.0]]],
                    "vectors": [[1.0]] * (hyperparameters + 1),
                    "selection": {"matrix": [[1.0]], "vector": [1.0]},
                },
                "training": {"kind": "quadratic"},
            }
        )
    )
    data = encode_data(spec.problem())
    description = describe(spec, data, None)
    submission = Submission(job_id, orjson.dumps(description), data, fingerprint(description), 60.0)
    store.run(client, store.submit(submission, delivery(job_id)))
    claim = store.run(client, store.claim(job_id, "somebody"))
    assert claim is not None
    names = [f"multiplier[{n}]" for n in range(1, hyperparameters + 1)]
    values = np.random.default_rng(0).lognormal(size=hyperparameters).tolist()
    rest = {"start": 0, "value": 1.0, "best_value": 1.0, "gradient_norm": 0.5, "gradient_error": 0.0}
    made = [
        orjson.dumps({"sequence": n + 1, "iteration": n, "evaluations": n + 1, **rest, "hyperparameters": values})
        for n in range(steps)
    ]
    for begin in range(0, steps, 1000):
        part = made[begin : begin + 1000]
        beat = store.beat(job_id, claim.attempt, elapsed=1.0, checkpoint=b"{}", steps=part, steps_before=begin)
        store.run(client, beat)
    entries = [
        {"name": name, "value": value, "initial": 1.0, "at_bound": None, "gradient": 1e-9, "interval": None}
        for name, value in zip(names, values, strict=True)
    ]
    result = orjson.dumps({"job_id": job_id, "hyperparameters": entries})
    store.run(client, store.finish(job_id, claim.attempt, Status.SUCCEEDED, result=result))
    return job_id


@pytest.mark.slow
@pytest.mark.parametrize(("hyperparameters", "steps"), [(50_000, 10), (100, 10_000)])
def test_wide_and_long_searches(
    own: Api, plain: httpx2.Client, client: redis.Redis, hyperparameters: int, steps: int
) -> None:
    job_id = finished(client, hyperparameters, steps)

    def trajectory() -> None:
        seen = 0
        while True:  # in one page, or in many
            reply = plain.get(f"/v1/jobs/{job_id}/steps", params={"after": seen})
            data = reply.json()["data"]
            if not data:
                break
            seen = data[-1]["sequence"]
        assert seen == steps

    for path in (f"/v1/jobs/{job_id}", "/v1/jobs", f"/v1/jobs/{job_id}/result"):
        took = held(own, lambda path=path: plain.get(path).raise_for_status())
        print(f"{path}: {1e3 * took:.1f} ms")
        assert took < MOST, path
    took = held(own, trajectory)
    print(f"steps: {1e3 * took:.1f} ms")
    assert took < MOST


@pytest.mark.slow
def test_sparse_columns(own: Api, plain: httpx2.Client, client: redis.Redis) -> None:
    """A file of a few bytes has millions of columns."""
    file = b"".join(b"%d 1:%d %d:1\n" % (n % 3, n + 1, SPARSE - n) for n in range(30))
    dataset = plain.post("/v1/datasets", content=file, headers={"Content-Type": "text/x-libsvm"})
    assert dataset.status_code in {200, 201}, dataset.text
    name = dataset.json()["id"]
    spec = orjson.dumps({"data": {"dataset_id": name, "target": "label"}, "training": {"kind": "ridge"}})
    for path, status in (("/v1/jobs?validate_only=true", 200), ("/v1/jobs", 202)):
        took = held(own, lambda path=path, status=status: post(plain, path, spec, status)())
        print(f"{path}: {1e3 * took:.1f} ms")
        assert took < MOST, path
    assert held(own, lambda: plain.get(f"/v1/datasets/{name}").raise_for_status()) < MOST
