"""Jobs over HTTP with a real worker behind: results, trajectories, waiting for the end."""

from __future__ import annotations

import pytest
import redis

from tests.contract.specs import document, table
from tests.plain import plain
from tests.service.api import Api, faults
from tests.service.conftest import RETENTION_DAYS
from worker import store
from worker.embedded import EmbeddedServer
from worker.queue import delivery

SPEC = document(
    data=table(40, 4), training__penalty={"kind": "per_feature"}, outer={"kind": "auto", "starts": 2},
    test_fraction=0.2,
)  # fmt: skip
PLAIN = plain(SPEC)


@pytest.fixture(scope="module")
def job(live: Api) -> dict[str, object]:
    reply = live.create(SPEC, Prefer="wait=60")
    assert reply.status_code == 201
    assert reply.headers["location"] == reply.json()["links"]["self"]
    assert "retry-after" not in reply.headers
    return dict(reply.json())


def test_a_short_job_ends_while_its_creator_waits(live: Api, job: dict[str, object]) -> None:
    assert (job["status"], job["done"], job["attempt"], job["stop_reason"]) == ("succeeded", True, 1, "converged")
    assert job["error"] is None
    assert str(job["created_at"]) <= str(job["started_at"]) <= str(job["finished_at"])
    assert live.get(f"/v1/jobs/{job['id']}").json() == job


def test_the_result(live: Api, job: dict[str, object]) -> None:
    reply = live.get(f"/v1/jobs/{job['id']}/result")
    result = reply.json()
    assert (result["job_id"], result["partial"], result["stop_reason"]) == (job["id"], False, "converged")
    assert result["fingerprint"] == job["fingerprint"]
    assert [item["name"] for item in result["hyperparameters"]] == [f"penalty[x{j}]" for j in range(4)]
    assert [item["feature"] for item in result["model"]["coefficients"]] == [f"x{j}" for j in range(4)]
    assert result["selection"]["value"] <= result["selection"]["initial_value"]
    assert len(result["selection"]["per_fold"]) == 5
    assert result["test"]["rows"] == 8
    chosen = result["spread"]["chosen"]
    assert [start["spread"] for start in result["starts"]] == [0.0, 0.5, 1.0, *([chosen] if chosen else [])]
    assert result["counts"]["evaluations"] == sum(start["evaluations"] for start in result["starts"])
    assert all(sentence.endswith(".") for sentence in result["method"].pop("why"))
    assert result["method"] == {
        "hypergradient": "implicit",
        "outer": "newton",
        "approximate": False,
        "solver": "primal",
    }
    certificates = result["certificates"]
    assert certificates.pop("point") in {"minimum", "flat"}  # a penalty may be on its way to infinity
    assert certificates.pop("smallest_curvature") is not None
    assert all(value is not None and value < 1e-5 for value in certificates.values())
    assert result["message"].endswith(".")
    assert result["timing"]["total_s"] >= result["timing"]["fit_s"] > 0
    etag = reply.headers["etag"]
    again = live.get(f"/v1/jobs/{job['id']}/result", headers={"If-None-Match": etag})
    assert (again.status_code, again.headers["etag"]) == (304, etag)


def test_the_trajectory_of_plain_tuning(live: Api) -> None:
    """A last search, of the shared value, has no say in the best one."""
    job = live.created(PLAIN, Prefer="wait=60")
    steps = live.steps(str(job["id"]))
    assert {step["start"] for step in steps} == {0, 1, 2}
    best = [step["best_value"] for step in steps]
    assert best == sorted(best, reverse=True)
    assert all(step["best_value"] <= step["value"] for step in steps)
    assert best[-1] == live.result(str(job["id"]))["selection"]["value"]


def test_the_trajectory(live: Api, job: dict[str, object]) -> None:
    """Along the path the best value is that of the present hyper-prior; that of the chosen one at the end."""
    steps = live.steps(str(job["id"]))
    assert [step["sequence"] for step in steps] == list(range(1, len(steps) + 1))
    starts = [step["start"] for step in steps]
    assert starts == sorted(starts)
    for after in (0, 1, len(steps) - 1, len(steps), 10**9):
        assert live.steps(str(job["id"]), after) == steps[after:]
    result = live.result(str(job["id"]))
    assert set(starts) == set(range(len(result["starts"])))
    found = [item["value"] for item in result["hyperparameters"]]
    assert found in [step["hyperparameters"] for step in steps]
    progress = live.get(f"/v1/jobs/{job['id']}").json()["progress"]
    assert progress["best_value"] == result["selection"]["value"]
    assert progress["evaluations"] == result["counts"]["evaluations"]
    assert progress["iteration"] == result["counts"]["iterations"]


def test_an_ended_job_stays_as_it_is(live: Api, live_server: EmbeddedServer, job: dict[str, object]) -> None:
    reply = live.post(f"/v1/jobs/{job['id']}/cancel")
    assert (reply.status_code, reply.json()) == (200, job)
    with store.connect(live_server.url) as client:
        for suffix in ("", ":result", ":steps"):
            days = client.pttl(f"gradtune:job:{job['id']}{suffix}") / 86_400_000
            assert RETENTION_DAYS - 0.1 < days <= RETENTION_DAYS
        assert not client.exists(f"gradtune:job:{job['id']}:data")


def test_the_same_spec_gives_the_same_numbers(live: Api, job: dict[str, object]) -> None:
    again = live.created(SPEC, Prefer="wait=60")
    assert again["id"] != job["id"]
    assert again["fingerprint"] == job["fingerprint"]
    first, second = live.result(str(job["id"])), live.result(again["id"])
    for varies in ("job_id", "timing"):
        assert first.pop(varies) != second.pop(varies)
    assert first == second
    assert live.steps(again["id"]) == live.steps(str(job["id"]))
    assert live.delete(f"/v1/jobs/{again['id']}").status_code == 204
    assert live.get(f"/v1/jobs/{again['id']}/result").status_code == 404


def test_lists_show_ended_jobs(live: Api, job: dict[str, object]) -> None:
    listed = live.get("/v1/jobs?status=succeeded&limit=200").json()["data"]
    assert {name: value for name, value in job.items() if name != "spec"} in listed
    assert job in live.get("/v1/jobs?status=succeeded&limit=200&view=full").json()["data"]


def test_a_job_of_an_unknown_function_is_never_run(live: Api, live_server: EmbeddedServer) -> None:
    """Whoever can write to the store still cannot have a worker call a function of their choice."""
    with store.connect(live_server.url) as client:
        submission = store.Submission("job_evil", b"{}", b"", "f", 60.0)
        store.run(client, store.submit(submission, delivery("job_evil", function="os.getcwd")))
        try:
            assert live.created(SPEC, Prefer="wait=60")["status"] == "succeeded"
        finally:
            store.run(client, store.cancel("job_evil"))
            clean(client, "job_evil")


def clean(client: redis.Redis, job_id: str) -> None:
    for key in client.keys(f"*{job_id}*"):
        client.delete(key)
    client.zrem("gradtune:jobs", job_id)
    client.zrem("gradtune:active", job_id)


def test_waiting_readers_see_every_status(live: Api) -> None:
    """Following a job by its ETag ends at its end, and never goes back."""
    created = live.create(document(data=table(60, 12), training__penalty={"kind": "per_feature"}, outer__kind="lbfgs"))
    path, etag = created.headers["location"], created.headers["etag"]
    seen = [created.json()]
    while not seen[-1]["done"]:
        reply = live.get(path, headers={"Prefer": "wait=30", "If-None-Match": etag})
        assert reply.status_code == 200
        assert reply.headers["etag"] != etag
        seen.append(reply.json())
        etag = reply.headers["etag"]
    order = ["queued", "running", "succeeded"]
    ranks = [order.index(job["status"]) for job in seen]
    assert ranks == sorted(ranks)
    evaluations = [job["progress"]["evaluations"] for job in seen]
    assert evaluations == sorted(evaluations)


def test_a_bad_wait_creates_nothing(live: Api) -> None:
    before = live.get("/v1/jobs?limit=200").json()["data"]
    assert faults(live.create(SPEC, Prefer="wait=forever")) == [("/header/prefer", "invalid_wait")]
    assert live.get("/v1/jobs?limit=200").json()["data"] == before
