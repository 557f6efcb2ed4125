"""What a caller may ask of the machine: time, estimated cost and memory, bytes in the queue; and a full job store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from service.caps import MARGIN, SIDE
from service.settings import Settings
from tests.contract.specs import document, own_criteria
from tests.datasets.files import npy
from tests.service.api import Api, faults, serving
from tests.service.tabular import upload
from worker.embedded import EmbeddedServer
from worker.queue import memory
from worker.store import FULL, keys

MAX_SECONDS = 100.0
MEMORY = 64.0


@pytest.fixture(scope="module")
def settings(idle_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(redis_url=idle_server.url, data_dir=tmp_path_factory.mktemp("caps"), max_seconds=MAX_SECONDS)


@pytest.fixture(scope="module")
def capped_api(settings: Settings) -> Iterator[Api]:
    tight = {"max_queued_mb": 16 / 1024, "max_estimated_seconds": 50.0, "job_memory_mb": MEMORY}
    with serving(settings.model_copy(update=tight)) as running:
        yield running


@pytest.fixture
def capped(capped_api: Api, client: redis.Redis) -> Api:
    """An API with narrow caps on an empty store."""
    return capped_api


@pytest.fixture(scope="module")
def small_machine(settings: Settings) -> Iterator[Api]:
    """An API on whose machine time is no matter, but memory is."""
    with serving(settings.model_copy(update={"max_estimated_seconds": 1e12, "job_memory_mb": MEMORY})) as running:
        yield running


def kernel(rows: int) -> dict[str, Any]:
    column = [[i / rows] for i in range(rows)]
    return document(data={"x": column, "y": [x[0] for x in column]}, training={"kind": "kernel_ridge"})


def test_a_job_may_ask_for_so_much_time(capped: Api) -> None:
    for path in ("/v1/jobs", "/v1/jobs?validate_only=true"):
        refused = capped.post(path, json=document(limits__seconds=MAX_SECONDS + 1))
        assert faults(refused) == [("/limits/seconds", "above_maximum")]
        assert "GRADTUNE_MAX_SECONDS" in refused.json()["errors"][0]["detail"]
    assert capped.created(document(limits__seconds=MAX_SECONDS))["spec"]["limits"]["seconds"] == MAX_SECONDS
    validated = capped.post("/v1/jobs?validate_only=true", json=document(limits__evaluations=7)).json()
    assert (validated["spec"]["limits"]["seconds"], validated["spec"]["limits"]["evaluations"]) == (MAX_SECONDS, 7)
    assert capped.created(document())["spec"]["limits"]["seconds"] == MAX_SECONDS


def test_the_time_that_a_job_may_ask_for_is_a_day(api: Api) -> None:
    assert api.create(document(limits__seconds=86_400)).status_code == 202
    assert faults(api.create(document(limits__seconds=86_401))) == [("/limits/seconds", "above_maximum")]
    assert api.created(document())["spec"]["limits"]["seconds"] == 600


def test_what_would_take_too_long_is_refused(capped: Api) -> None:
    for path in ("/v1/jobs", "/v1/jobs?validate_only=true"):
        refused = capped.post(path, json=kernel(8_000))
        assert (refused.status_code, refused.json()["code"]) == (413, "too-large")
        assert "s of one core" in refused.json()["detail"]
        assert "GRADTUNE_MAX_ESTIMATED_SECONDS" in refused.json()["detail"]
    assert capped.post("/v1/jobs?validate_only=true", json=kernel(SIDE)).status_code == 200  # is not looked at


def test_what_can_never_have_the_memory_is_refused(small_machine: Api, client: redis.Redis) -> None:
    refused = small_machine.create(kernel(8_000))
    assert (refused.status_code, refused.json()["code"]) == (413, "too-large")
    assert "GRADTUNE_JOB_MEMORY_MB" in refused.json()["detail"]
    rows = 2_700  # twice the memory, by the estimate, which may be wrong by that
    bytes_held = small_machine.post("/v1/jobs?validate_only=true", json=kernel(rows)).json()["cost"]["bytes"]
    assert 2 * MEMORY < bytes_held / 2**20 < MARGIN * MEMORY
    assert small_machine.create(kernel(rows)).status_code == 202


def test_datasets_and_criteria_are_looked_at_too(small_machine: Api, client: redis.Redis) -> None:
    dataset = upload(small_machine, npy(np.random.default_rng(0).normal(size=(9_000, 2))), "application/x-npy")
    spec = {"data": {"dataset_id": dataset["id"], "target": "x0"}, "training": {"kind": "kernel_ridge"}}
    refused = small_machine.create(spec)
    assert refused.status_code == 413, refused.text
    wide = own_criteria()
    p = 6_000
    diagonal = {"rows": list(range(p)), "columns": list(range(p)), "values": [1.0] * p}
    wide["data"] = {"matrices": [diagonal], "vectors": [[1.0] * p], "selection": {"vector": [1.0] * p}}
    wide["data"]["matrices"].append(diagonal)
    assert small_machine.create(wide).status_code == 202
    swept = small_machine.create({**wide, "hypergradient": {"kind": "cholesky_backprop"}})  # a dense factor
    assert swept.status_code == 413, swept.text


def test_the_data_of_waiting_jobs_take_so_much(capped: Api, client: redis.Redis) -> None:
    ids = []
    while (reply := capped.create(document())).status_code == 202:
        ids.append(reply.json()["id"])
        assert len(ids) < 50
    assert (reply.status_code, reply.json()["code"]) == (429, "queue-full")
    assert int(reply.headers["retry-after"]) > 0
    assert "GRADTUNE_MAX_QUEUED_MB" in reply.json()["detail"]
    stored = sum(client.strlen(f"{keys.JOB}{i}:data") + client.hstrlen(f"{keys.JOB}{i}", "spec") for i in ids)
    assert 12_000 < stored <= 16_384
    capped.post(f"/v1/jobs/{ids[0]}/cancel")
    assert capped.create(document()).status_code == 202
    larger = capped.create(document(data={"x": [[float(i)] for i in range(3_000)], "y": [0.0] * 2_999 + [1.0]}))
    assert (larger.status_code, larger.json()["code"]) == (413, "too-large")
    assert "GRADTUNE_MAX_QUEUED_MB" in larger.json()["detail"]


def test_a_full_job_store_says_so_and_lets_callers_make_room(api: Api, client: redis.Redis) -> None:
    ended, waiting = (api.created(document())["id"] for _ in range(2))
    api.post(f"/v1/jobs/{ended}/cancel")
    client.config_set("maxmemory", 1)
    try:
        refused = api.create(document())
        assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
        assert "memory of the job store is full; nothing was changed. Delete jobs" in refused.json()["detail"]
        ready = api.get("/readyz")
        assert (ready.status_code, ready.json()["detail"]) == (503, FULL)
        assert api.post(f"/v1/jobs/{waiting}/cancel").json()["status"] == "cancelled"
        assert [api.delete(f"/v1/jobs/{name}").status_code for name in (ended, waiting)] == [204, 204]
    finally:
        client.config_set("maxmemory", 0)
    assert api.create(document()).status_code == 202


def test_shares_of_the_machine(tmp_path: Path) -> None:
    total = memory.total() / 2**20
    assert Settings().job_memory == pytest.approx(0.8 * total, rel=1e-6)
    several = Settings(workers=3)
    assert several.job_memory == pytest.approx(0.8 * total / 3, rel=1e-6)
    assert float(several.environment()["GRADTUNE_JOB_MEMORY_MB"]) == several.job_memory
    assert Settings(workers=3, job_memory_mb=700).job_memory == 700
    assert Settings().store_memory == pytest.approx(total / 4 * 2**20, rel=1e-6)
    with (
        EmbeddedServer(tmp_path, memory=Settings(store_memory_mb=77).store_memory) as server,
        redis.Redis(unix_socket_path=server.url.removeprefix("unix://")) as client,
    ):
        assert client.config_get("maxmemory") == {"maxmemory": str(77 * 2**20)}
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_a_worker_alone_takes_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    from worker.main import job_memory  # noqa: PLC0415 - it sets threads of libraries when it is loaded

    monkeypatch.delenv("GRADTUNE_JOB_MEMORY_MB", raising=False)
    monkeypatch.setenv("GRADTUNE_WORKERS", "4")
    assert job_memory() == int(0.8 * memory.total() / 4)
    monkeypatch.setenv("GRADTUNE_JOB_MEMORY_MB", "100")
    assert job_memory() == 100 * 2**20
