"""Jobs over HTTP while no worker takes them: create, read, wait, list, cancel, delete."""

from __future__ import annotations

import json
import re
import threading
import time
from datetime import datetime
from typing import Any

import httpx2
import pytest
import redis

from tests.contract.specs import document
from tests.service.api import Api, eventually, faults
from tests.service.conftest import MAX_QUEUED, RETENTION_DAYS
from worker import store
from worker.contract.job import JobStatus
from worker.store import keys

NO_SUCH = "job_" + "0" * 24


def position(api: Api, job_id: str) -> int:
    return int(api.get(f"/v1/jobs/{job_id}").json()["progress"]["queue_position"])


def test_a_job_is_accepted(api: Api) -> None:
    reply = api.create(document(labels={"team": "pricing"}))
    job = reply.json()
    assert reply.status_code == 202
    assert re.fullmatch(r"job_[0-9a-f]{24}", job["id"])
    assert reply.headers["location"] == f"/v1/jobs/{job['id']}"
    assert reply.headers["retry-after"] == "1"
    assert (job["status"], job["done"], job["attempt"], job["stop_reason"]) == ("queued", False, 0, None)
    assert job["progress"]["queue_position"] == 0
    assert job["labels"] == {"team": "pricing"}
    assert job["spec"]["outer"] == {"kind": "auto", "max_iterations": None, "tolerance": 1e-6, "starts": 1}
    assert (job["error"], job["started_at"], job["finished_at"]) == (None, None, None)
    assert datetime.fromisoformat(job["created_at"]).utcoffset() is not None
    assert job["created_at"].endswith("Z")

    read = api.get(reply.headers["location"])
    assert read.json() == job
    assert read.headers["etag"] == reply.headers["etag"]
    assert read.headers["retry-after"] == "1"
    for name in ("self", "result", "steps"):
        assert api.get(job["links"][name]).status_code in {200, 409}


def test_jobs_know_their_place_in_the_queue(api: Api) -> None:
    ids = [api.created(document())["id"] for _ in range(3)]
    assert [position(api, job_id) for job_id in ids] == [0, 1, 2]
    api.post(f"/v1/jobs/{ids[0]}/cancel")
    assert [position(api, job_id) for job_id in ids[1:]] == [0, 1]


def test_validate_only_says_what_would_happen_and_creates_nothing(api: Api) -> None:
    spec = document(training__penalty={"kind": "per_feature"}, outer={"kind": "auto", "starts": 3})
    reply = api.post("/v1/jobs?validate_only=true", json=spec)
    assert reply.status_code == 200
    validation = reply.json()
    assert validation["hyperparameters"] == 3
    assert validation["names"] == ["penalty[x0]", "penalty[x1]", "penalty[x2]"]
    assert validation["method"] == {"hypergradient": "implicit", "outer": "newton", "solver": "primal"}
    assert validation["cost"]["seconds"] > 0
    assert api.get("/v1/jobs").json()["data"] == []
    job = api.created(spec)
    assert (validation["fingerprint"], validation["spec"]) == (job["fingerprint"], job["spec"])
    assert faults(api.post("/v1/jobs?validate_only=true", json={})) == [("/data", "missing"), ("/training", "missing")]
    assert faults(api.post("/v1/jobs?validate_only=maybe", json=spec)) == [("/query/validate_only", "bool_parsing")]


def test_the_estimate_of_many_folds_is_quick_and_grows_with_the_table(api: Api) -> None:
    def cost(rows: int, **changes: Any) -> dict[str, float]:
        data = {"x": [[float(i), float(i * i % 7)] for i in range(rows)], "y": [float(i % 3) for i in range(rows)]}
        reply = api.post("/v1/jobs?validate_only=true", json=document(data=data, **changes))
        assert reply.status_code == 200, reply.text
        return dict(reply.json()["cost"])

    folds = {"selection": {"kind": "k_fold", "folds": 1000}}
    small, large = cost(1_000, **folds), cost(20_000, **folds)
    assert large["bytes"] > small["bytes"]
    assert large["flops"] > small["flops"]
    assert cost(1_000, limits={"evaluations": 3})["evaluations"] == 3


@pytest.mark.parametrize(
    ("limits", "named"),
    [
        ({"evaluations": 3}, ["limits.evaluations is 3"]),
        ({"seconds": 1e-4}, ["limits.seconds is 0.0001"]),
        ({"seconds": 1e-4, "evaluations": 1}, ["limits.seconds", "limits.evaluations"]),
        ({"seconds": 500.0}, []),
    ],
)
def test_limits_below_the_estimate_get_a_note(api: Api, limits: dict[str, float], named: list[str]) -> None:
    spec = document(limits=limits)
    validated, job = api.post("/v1/jobs?validate_only=true", json=spec).json()["notes"], api.created(spec)
    created = job["notes"]
    assert api.get(f"/v1/jobs/{job['id']}").json()["notes"] == created
    assert created == [note for note in validated if note["code"] == "limit_below_estimate"]
    assert len(created) == len(named)
    for note, limit in zip(created, named, strict=True):
        assert (note["severity"], limit in note["text"]) == ("warning", True)
        assert "Raise the limit" in note["text"]
    assert api.created(document())["notes"] == []


def test_polling_with_an_etag(api: Api) -> None:
    job_id = api.created(document())["id"]
    path = f"/v1/jobs/{job_id}"
    etag = api.get(path).headers["etag"]
    for given in (etag, etag.removeprefix("W/"), f'"other", {etag}', "*"):
        reply = api.get(path, headers={"If-None-Match": given})
        assert (reply.status_code, reply.content, reply.headers["etag"]) == (304, b"", etag)
    assert api.get(path, headers={"If-None-Match": '"other"'}).status_code == 200
    api.post(f"{path}/cancel")
    reply = api.get(path, headers={"If-None-Match": etag})
    assert reply.status_code == 200
    assert reply.headers["etag"] != etag
    assert "retry-after" not in reply.headers


@pytest.mark.parametrize("with_etag", [True, False])
def test_a_waiting_reader_wakes_when_the_job_changes(api: Api, with_etag: bool) -> None:
    created = api.create(document())
    job_id = created.json()["id"]
    headers = {"Prefer": "respond-async, wait=60"} | ({"If-None-Match": created.headers["etag"]} if with_etag else {})
    replies: list[httpx2.Response] = []

    def wait() -> None:
        with Api(str(api.base_url)) as own:
            replies.append(own.get(f"/v1/jobs/{job_id}", headers=headers))

    reader = threading.Thread(target=wait)
    reader.start()
    assert api.app is not None
    waiters = api.app.state.doorbell._waiters
    eventually(lambda: job_id in waiters)
    began = time.monotonic()
    api.post(f"/v1/jobs/{job_id}/cancel")
    reader.join()
    assert time.monotonic() - began < 30  # the poll alone would take 60
    assert (replies[0].status_code, replies[0].json()["status"]) == (200, "cancelled")
    assert job_id not in waiters


def test_a_wait_ends_without_a_change(api: Api) -> None:
    created = api.create(document(), Prefer="wait=1")
    assert created.status_code == 202
    path = created.headers["location"]
    unchanged = api.get(path, headers={"Prefer": "wait=1", "If-None-Match": created.headers["etag"]})
    assert unchanged.status_code == 304
    assert api.get(path, headers={"Prefer": 'wait="0"; x=1'}).status_code == 200
    for wrong in ("wait", "wait=", "wait=-1", "wait=1.5", "wait=soon", "wait=1e3", "wait=" + "9" * 10):
        assert faults(api.get(path, headers={"Prefer": wrong})) == [("/header/prefer", "invalid_wait")]
        assert faults(api.create(document(), Prefer=wrong)) == [("/header/prefer", "invalid_wait")]


def test_pages_stay_in_order_while_jobs_are_added(api: Api) -> None:
    first = [api.created(document())["id"] for _ in range(4)]
    page = api.get("/v1/jobs", params={"limit": 3}).json()
    seen = [job["id"] for job in page["data"]]
    assert seen == first[:0:-1]
    later = api.created(document())["id"]
    page = api.get("/v1/jobs", params={"limit": 3, "cursor": page["next_cursor"]}).json()
    assert [job["id"] for job in page["data"]] == [first[0]]
    assert page["next_cursor"] is None
    assert [job["id"] for job in api.get("/v1/jobs").json()["data"]] == [later, *first[::-1]]


def test_lists_can_be_filtered(api: Api) -> None:
    labelled = [{"team": "a"}, {"team": "b"}, {"team": "a", "run/of.day": "1"}]
    ids = [api.created(document(labels=labels))["id"] for labels in labelled]
    api.post(f"/v1/jobs/{ids[0]}/cancel")

    def found(**query: str) -> list[int]:
        return sorted(ids.index(job["id"]) for job in api.get("/v1/jobs", params=query).json()["data"])

    assert found(**{"label.team": "a"}) == [0, 2]
    assert found(**{"label.team": "a", "status": "queued"}) == [2]
    assert found(status="cancelled") == [0]
    assert found(status="running") == []
    assert found(**{"label.team": "c"}) == []
    assert found(**{"label.run/of.day": "1", "label.team": "a"}) == [2]
    assert found(**{"label.run/of.day": "1", "label.team": "b"}) == []
    pages = api.get("/v1/jobs?label.team=a&limit=1").json()
    assert [job["id"] for job in pages["data"]] == [ids[2]]
    rest = api.get("/v1/jobs", params={"label.team": "a", "limit": 1, "cursor": pages["next_cursor"]}).json()
    assert [job["id"] for job in rest["data"]] == [ids[0]]


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        ("state=queued", ("/query/state", "unknown_parameter")),
        ("status=done", ("/query/status", "literal_error")),
        ("limit=0", ("/query/limit", "greater_than_equal")),
        ("limit=201", ("/query/limit", "less_than_equal")),
        ("limit=many", ("/query/limit", "int_parsing")),
        ("cursor=x", ("/query/cursor", "invalid_cursor")),
        ("cursor=" + "x" * 201, ("/query/cursor", "string_too_long")),
        ("%00=1", ("/query/\0", "unknown_parameter")),
        ("z" * 1000 + "=1", ("/query/" + "z" * 60, "unknown_parameter")),
    ],
)
def test_a_wrong_parameter_is_named(api: Api, query: str, fault: tuple[str, str]) -> None:
    assert faults(api.get(f"/v1/jobs?{query}")) == [fault]


def test_every_status_can_be_asked_for(api: Api) -> None:
    assert {str(status) for status in store.Status} == set(JobStatus.__args__)  # type: ignore[attr-defined]
    for status in store.Status:
        assert api.get(f"/v1/jobs?status={status}").status_code == 200


def test_cancelling_a_queued_job(api: Api, client: redis.Redis) -> None:
    path = f"/v1/jobs/{api.created(document())['id']}"
    reply = api.post(f"{path}/cancel")
    assert (reply.status_code, reply.json()["status"], reply.json()["done"]) == (202, "cancelled", True)
    assert reply.json()["finished_at"] is not None
    assert reply.headers["etag"] == api.get(path).headers["etag"]
    again = api.post(f"{path}/cancel")
    assert (again.status_code, again.json()) == (200, reply.json())
    missing = api.get(f"{path}/result")
    assert (missing.status_code, missing.json()["code"]) == (404, "not-found")
    days = client.pttl(f"gradtune:job:{reply.json()['id']}") / 86_400_000
    assert RETENTION_DAYS - 0.1 < days <= RETENTION_DAYS


def test_a_job_is_deleted_once_it_has_ended(api: Api, client: redis.Redis) -> None:
    path = f"/v1/jobs/{api.created(document())['id']}"
    live = api.delete(path)
    assert (live.status_code, live.json()["code"]) == (409, "job-not-terminal")
    api.post(f"{path}/cancel")
    assert (api.delete(path).status_code, api.delete(path).status_code) == (204, 404)
    assert api.get(path).status_code == 404
    assert api.get("/v1/jobs").json()["data"] == []
    assert client.keys("*job*") in ([], [b"gradtune:jobs"])


def test_a_result_is_not_ready_before_the_end(api: Api) -> None:
    reply = api.get(f"/v1/jobs/{api.created(document())['id']}/result")
    assert (reply.status_code, reply.json()["code"]) == (409, "result-not-ready")
    assert reply.headers["retry-after"] == "1"


def test_names_are_stored_at_submission_and_those_of_earlier_jobs_are_made(api: Api, client: redis.Redis) -> None:
    penalty = {"kind": "per_group", "groups": {"one": ["x1"], "others": ["x0", "x2"]}}
    job_id = api.created(document(training__penalty=penalty))["id"]
    key, path = f"{keys.JOB}{job_id}", f"/v1/jobs/{job_id}/steps?names=true"
    stored = client.hget(key, "names")
    assert json.loads(stored) == ["penalty[one]", "penalty[others]"] == api.get(path).json()["names"]
    client.hdel(key, "names")  # as earlier versions stored it
    assert api.get(path).json()["names"] == ["penalty[one]", "penalty[others]"]
    client.hset(key, mapping={"names": stored, "spec": b"of a newer version"})
    assert api.get(path).json()["names"] == ["penalty[one]", "penalty[others]"]


def test_a_job_that_has_not_begun_has_no_steps(api: Api) -> None:
    job_id = api.created(document(training__penalty={"kind": "per_feature"}))["id"]
    path = f"/v1/jobs/{job_id}/steps"
    assert api.get(path).json() == {"data": [], "next_after": None, "names": None}
    assert api.get(f"{path}?names=true").json()["names"] == ["penalty[x0]", "penalty[x1]", "penalty[x2]"]
    assert faults(api.get(f"/v1/jobs/{job_id}/steps?after=-1")) == [("/query/after", "greater_than_equal")]
    assert faults(api.get(f"/v1/jobs/{job_id}/steps?after=x")) == [("/query/after", "int_parsing")]
    assert faults(api.get(f"/v1/jobs/{job_id}/steps?after={10**30}")) == [("/query/after", "less_than_equal")]


@pytest.mark.parametrize("job_id", [NO_SUCH, "x", "job_", "%2F", "ä", ":data", "*", "a" * 2000])
def test_an_unknown_job_is_not_found_anywhere(api: Api, job_id: str) -> None:
    path = f"/v1/jobs/{job_id}"
    replies = [
        api.get(path),
        api.get(path, headers={"Prefer": "wait=60"}),
        api.get(f"{path}/result"),
        api.get(f"{path}/steps"),
        api.post(f"{path}/predictions", json={"x": [[0]]}),
        api.post(f"{path}/cancel"),
        api.delete(path),
    ]
    assert {reply.status_code for reply in replies} == {404}


def test_parts_of_a_job_cannot_be_read_as_jobs(api: Api) -> None:
    job_id = api.created(document())["id"]
    for suffix in (":data", ":checkpoint", ":steps", ":result"):
        assert api.get(f"/v1/jobs/{job_id}{suffix}").status_code == 404
        assert api.delete(f"/v1/jobs/{job_id}{suffix}").status_code == 404


def test_a_full_queue_refuses_and_loses_nothing(api: Api) -> None:
    ids = [api.created(document())["id"] for _ in range(MAX_QUEUED)]
    refused = api.create(document())
    assert (refused.status_code, refused.json()["code"]) == (429, "queue-full")
    assert int(refused.headers["retry-after"]) > 0
    assert [job["id"] for job in api.get("/v1/jobs").json()["data"]] == ids[::-1]
    api.post(f"/v1/jobs/{ids[3]}/cancel")
    assert api.create(document()).status_code == 202


def test_what_identifies_a_request_goes_with_the_job(api: Api, client: redis.Redis) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    job = api.created(document(), **{"X-Request-Id": "caller:7", "traceparent": trace})
    record = store.run(client, store.job(job["id"]))
    assert record is not None
    assert (record.request_id, record.traceparent) == ("caller:7", trace)
    assert record.fingerprint == job["fingerprint"]


def test_labels_may_be_any_text(api: Api) -> None:
    labels = {"a": 'größe "\\\n\u2028', "b": "", "c": "x" * 200}
    job_id = api.created(document(labels=labels))["id"]
    assert api.get(f"/v1/jobs/{job_id}").json()["labels"] == labels
    found = api.get("/v1/jobs", params={"label.a": labels["a"], "label.b": ""}).json()["data"]
    assert [job["id"] for job in found] == [job_id]
