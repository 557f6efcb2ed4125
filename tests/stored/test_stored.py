"""What earlier versions have stored is read: jobs, results, trajectories, checkpoints, datasets, as they read it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from numpy.testing import assert_allclose

from service.settings import Settings
from tests.servers import server
from tests.service.api import Api, serving
from tests.stored.__main__ import cells_of, exact, plain, predicted, read_of
from worker import checkpoint, store
from worker.contract.description import fingerprint, work
from worker.contract.job import Progress, StepRecord
from worker.contract.result import Result
from worker.core.rows.tables import take
from worker.datasets import LocalStorage, open_table
from worker.jobs import stopped_step
from worker.load import load
from worker.queue import delivery
from worker.report import OTHER_VERSION, unfitted_result
from worker.store import Claim, Status, Submission

VERSIONS = sorted(Path(__file__).parent.glob("before_*"))
JOBS = [path for version in VERSIONS for path in sorted((version / "jobs").iterdir())]
DATASETS = [
    pytest.param(version / "datasets", cells, id=f"{version.name}-{name}")
    for version in VERSIONS
    for name, cells in json.loads((version / "datasets" / "cells.json").read_text()).items()
]
OF_WIDTHS = {"lower": 0.01, "upper": 10000.0}
"""What null stands for in standardized columns: a kernel by its name has the defaults of the version that reads it."""
each_job = pytest.mark.parametrize("job", JOBS, ids=lambda path: f"{path.parents[1].name}-{path.name}")


def read(job: Path, part: str) -> Any:
    return json.loads((job / f"{part}.json").read_text())


def agree(recorded: Any, now: Any, place: str = "") -> None:
    """All that is recorded is there; a newer version may know more of it."""
    if isinstance(recorded, dict):
        assert isinstance(now, dict), place
        for name, value in recorded.items():
            assert name in now, f"{place}/{name}"
            omitted = place.endswith("/widths") and now[name] is None and name in OF_WIDTHS
            agree(value, OF_WIDTHS[name] if omitted else now[name], f"{place}/{name}")
    elif isinstance(recorded, list):
        assert isinstance(now, list), place
        assert len(now) == len(recorded), place
        for i, (value, found) in enumerate(zip(recorded, now, strict=True)):
            agree(value, found, f"{place}/{i}")
    else:
        assert now == recorded, place


def test_there_is_something_of_each_kind() -> None:
    kinds = {read(job, "result")["model"]["kind"] for job in JOBS}
    assert kinds == {"linear", "additive", "multinomial", "kernel", "quadratic"}
    assert {read(job, "read")["plan"]["outer"]["kind"] for job in JOBS} == {"newton", "lbfgs", "inexact", "hoag"}
    states = [read(job, "read")["state"] for job in JOBS]
    assert any(state["folds"] for state in states)
    assert sum(any(name.startswith("memory.") for name in state["search"]) for state in states) >= 4
    for version in VERSIONS:
        manifests = [json.loads(path.read_text()) for path in version.glob("datasets/*/manifest.json")]
        assert {m["format"] for m in manifests} == {"csv", "parquet", "arrow", "npy", "npz", "libsvm"}


@each_job
def test_descriptions_and_data(job: Path) -> None:
    description, recorded = (job / "description.json").read_bytes(), read(job, "read")
    now = read_of(description, (job / "data").read_bytes())
    agree({name: recorded[name] for name in now}, json.loads(json.dumps(now)))
    before = str(int(job.parents[1].name.removeprefix("before_")) - 1)
    assert fingerprint(json.loads(description), before) == recorded["fingerprint"]


@each_job
def test_checkpoints(job: Path) -> None:
    state = checkpoint.unpack((job / "checkpoint").read_bytes())
    agree(read(job, "read")["state"], json.loads(json.dumps(exact(state))))


@each_job
def test_a_cancelled_job_ends_with_what_its_checkpoint_holds(job: Path) -> None:
    task, step = (
        work((job / "description.json").read_bytes(), b""),
        stopped_step(checkpoint.unpack((job / "checkpoint").read_bytes())),
    )
    claim = Claim("j", 2, True, b"", b"", None, 0, 1.0, 9.0, "f", 1.0, 2.0, "", "")
    document = Result.model_validate_json(unfitted_result(claim, task, step, Status.CANCELLED, None, OTHER_VERSION))
    recorded = read(job, "read")
    assert [one.name for one in document.hyperparameters] == recorded["names"]
    assert_allclose([one.value for one in document.hyperparameters], recorded["hyperparameters"], rtol=1e-14)
    assert document.selection.value == step.best.best.value


@each_job
def test_results_and_their_predictions(job: Path) -> None:
    document, recorded = (job / "result.json").read_bytes(), read(job, "read")
    agree(json.loads(document), json.loads(Result.model_validate_json(document).model_dump_json()))
    if recorded["predicted"]:
        now = predicted((job / "description.json").read_bytes(), document, recorded["predicted"])
        for name, values in recorded["predictions"].items():
            if name == "classes" or values is None:
                assert now[name] == values
            else:
                assert_allclose(now[name], values, rtol=1e-12, atol=1e-12)


@each_job
def test_progress_and_steps(job: Path) -> None:
    agree(read(job, "progress"), Progress.model_validate(read(job, "progress")).model_dump())
    for step in read(job, "steps"):
        agree(step, StepRecord.model_validate(step).model_dump())


@pytest.mark.parametrize(("directory", "cells"), DATASETS)
def test_datasets(directory: Path, cells: dict[str, Any]) -> None:
    agree(cells, {"id": cells["id"], **cells_of(open_table(LocalStorage(directory), cells["id"]))})


@pytest.mark.parametrize("job", [job for job in JOBS if not (job / "data").stat().st_size], ids=lambda job: job.name)
def test_jobs_on_datasets_find_their_rows(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADTUNE_STORAGE_URL", f"file://{job.parents[1]}/datasets")
    problem = load((job / "description.json").read_bytes(), b"").prepared.problem
    assert plain(take(problem.X, np.arange(5))) == read(job, "read")["predicted"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Api, redis.Redis]]:
    with (
        server(tmp_path_factory.mktemp("stored")) as running,
        store.connect(running.url) as client,
        serving(Settings(redis_url=running.url)) as api,
    ):
        yield api, client


@each_job
def test_the_service_shows_them(served: tuple[Api, redis.Redis], job: Path) -> None:
    api, client = served
    job_id, recorded, result = f"job_{JOBS.index(job):024x}", read(job, "read"), (job / "result.json").read_bytes()
    steps = [json.dumps(step).encode() for step in read(job, "steps")]
    described, data = ((job / name).read_bytes() for name in ("description.json", "data"))
    submission = Submission(job_id, described, data, recorded["fingerprint"], 600.0, contract=1)
    assert store.run(client, store.submit(submission, delivery(job_id)))
    assert store.run(client, store.claim(job_id, "o"))
    told, state = ((job / name).read_bytes() for name in ("progress.json", "checkpoint"))
    store.run(client, store.beat(job_id, 1, elapsed=1.5, progress=told, checkpoint=state, steps=steps))
    agree(read(job, "progress"), api.get(f"/v1/jobs/{job_id}").json()["progress"])
    assert store.run(client, store.finish(job_id, 1, Status.SUCCEEDED, stop_reason="converged", result=result))
    assert api.get(f"/v1/jobs/{job_id}").json()["fingerprint"] == recorded["fingerprint"]
    assert api.result(job_id) == json.loads(result)
    reply = api.get(f"/v1/jobs/{job_id}/steps?names=true").json()
    assert (reply["data"], reply["names"]) == (read(job, "steps"), recorded["names"])
    reply = api.post(f"/v1/jobs/{job_id}/predictions", json={"x": recorded["predicted"] or [[1.0]]})
    if recorded["predicted"] is None:
        assert (reply.status_code, reply.json()["code"]) == (409, "no-model")
    else:
        eta = reply.json()["predictor"]
        columns = list(eta.values()) if isinstance(eta, dict) else eta
        assert_allclose(np.array(columns).T, recorded["predictions"]["eta"], rtol=1e-12, atol=1e-12)
