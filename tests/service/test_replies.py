"""Replies stay small: specs without their long lists, pages of jobs, of steps and of hyperparameters."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import orjson
import pytest
import redis

from tests.contract.specs import document, table
from tests.service.api import DOCUMENT, Api, faults
from worker import store
from worker.store import Status

FOLDS = [i % 5 for i in range(6000)]
MIB = 2**20


def of_many_rows() -> dict[str, Any]:
    """6,000 rows whose roles and folds are lists, and a group of many columns."""
    rows = len(FOLDS)
    data = {"x": [[float(i % 7)] for i in range(rows)], "y": [float(i % 3) for i in range(rows)]}
    roles = {"weights": [1.0] * rows, "groups": FOLDS, "time": [float(i) for i in range(rows)]}
    return document(data={**data, **roles}, selection={"kind": "given_folds", "fold_of_row": FOLDS})


def test_a_job_never_repeats_its_rows(api: Api, client: redis.Redis) -> None:
    created = api.create(of_many_rows())
    job = created.json()
    written = orjson.dumps(FOLDS)
    assert job["spec"]["selection"]["fold_of_row"] == {"items": 6000, "sha256": hashlib.sha256(written).hexdigest()}
    path = f"/v1/jobs/{job['id']}"
    validated = api.post("/v1/jobs?validate_only=true", json=of_many_rows())
    for reply in (created, api.get(path), api.get("/v1/jobs"), validated):
        assert len(reply.content) < 5000
    assert validated.json()["spec"] == api.get(path).json()["spec"] == job["spec"]
    for whole in (api.get(f"{path}?view=full").json(), api.get("/v1/jobs?view=full").json()["data"][0]):
        assert whole["spec"]["selection"]["fold_of_row"] == FOLDS
        assert {**whole, "spec": None, "progress": None} == {**job, "spec": None, "progress": None}
        assert set(whole["spec"]["data"]) == {"rows", "columns", "features", "sha256", "roles"}
    assert orjson.loads(store.run(client, store.stored_spec(job["id"])) or b"")["selection"]["fold_of_row"] == FOLDS
    assert faults(api.get(f"{path}?view=some")) == [("/query/view", "literal_error")]


def test_matrices_and_groups_are_not_repeated(api: Api) -> None:
    matrix = [[float(i == j) for j in range(60)] for i in range(60)]
    terms = {"matrix": matrix, "vector": [1.0] * 60}
    data = {"matrices": [matrix, matrix], "vectors": [[1.0] * 60], "selection": terms}
    quadratic = api.created({"data": data, "training": {"kind": "quadratic"}})
    columns = {f"group {i} of many": [f"x{i}"] for i in range(500)}
    penalty = {"kind": "per_group", "groups": columns}
    grouped = api.created(document(data=table(20, 500), training__penalty=penalty))
    for job in (quadratic, grouped):
        assert len(json.dumps(api.get(f"/v1/jobs/{job['id']}").json())) < 10_000
    assert grouped["spec"]["training"]["penalty"]["groups"]["items"] == 500
    whole = api.get(f"/v1/jobs/{grouped['id']}?view=full").json()
    assert whole["spec"]["training"]["penalty"]["groups"] == columns
    assert len(api.get(f"/v1/jobs/{grouped['id']}/steps?names=true").json()["names"]) == 500


def test_short_lists_are_shown_as_they_are(api: Api, client: redis.Redis) -> None:
    folds = [0, 1, 2] * 10
    job = api.created(document(data=table(30, 2), selection={"kind": "given_folds", "fold_of_row": folds}))
    assert job["spec"]["selection"]["fold_of_row"] == folds
    assert client.hget(f"gradtune:job:{job['id']}", "shown") is None  # nothing is stored twice


def test_a_list_has_summaries_of_bounded_size(api: Api, client: redis.Redis) -> None:
    labels = {f"key{n}": "ß" * 200 for n in range(32)}  # 12 kB of UTF-8
    for _ in range(8):
        api.created(document(labels=labels))
    large = orjson.dumps({"data": {"features": ["x" * 1000] * 20}})
    for n in range(150):
        made = store.Submission(f"job_{n:024x}", large, b"", "f", 60.0, labels)
        store.run(client, store.submit(made, ()))
    seen, cursor = [], ""
    while cursor is not None:
        reply = api.get("/v1/jobs?limit=200" + (cursor and f"&cursor={cursor}"))
        assert len(reply.content) < 1.05 * MIB
        seen += [job["id"] for job in reply.json()["data"]]
        assert all("spec" not in job for job in reply.json()["data"])
        cursor = reply.json()["next_cursor"]
    assert len(seen) == len(set(seen)) == 158


def test_jobs_of_a_time_over_http(api: Api) -> None:
    jobs = [api.created(document()) for _ in range(3)]
    at = jobs[1]["created_at"]

    def found(**query: str) -> list[int]:
        ids = [job["id"] for job in jobs]
        return [ids.index(job["id"]) for job in api.get("/v1/jobs", params=query).json()["data"]]

    assert found(created_after=at) == [2, 1]
    assert found(created_before=at) == [0]
    assert found(created_after=at, created_before=jobs[2]["created_at"]) == [1]
    assert found(created_after=at.replace("Z", "0001Z")) == [2]  # finer than a microsecond
    assert found(created_after="2000-01-01t00:00:00.5-11:30", status="queued") == [2, 1, 0]
    for text in ("2024-03-01", "2024-03-01T12:00:00", "2024-13-01T12:00:00Z", "now", "1", "2024-03-01T24:61:00Z"):
        for name in ("created_after", "created_before"):
            reply = api.get("/v1/jobs", params={name: text})
            assert faults(reply) == [(f"/query/{name}", "invalid_time")]
    assert "%2B" in api.get("/v1/jobs?created_after=2024-03-01T12:00:00+01:00").text  # where the + is a space


def routes() -> list[tuple[str, str]]:
    filled = {"{job_id}": "job_" + "0" * 24, "{dataset_id}": "ds_" + "0" * 64}
    known = [(method.upper(), path) for path, operations in DOCUMENT["paths"].items() for method in operations]
    for name, value in filled.items():
        known = [(method, path.replace(name, value)) for method, path in known]
    return known


def test_every_route_names_an_unknown_parameter(api: Api) -> None:
    assert len(routes()) > 15
    for method, path in routes():
        reply = api.request(method, f"{path}?lmiit=1&x=2")
        assert faults(reply)[0] == ("/query/lmiit", "unknown_parameter"), (method, path)
    assert "did you mean 'limit'?" in api.get("/v1/jobs?lmiit=1").text
    assert "did you mean 'points'?" in api.get(f"/v1/jobs/job_{'0' * 24}/steps?point=1").text


@pytest.fixture
def wide(api: Api, client: redis.Redis) -> str:
    """A running job with 40 steps of 5,000 hyperparameters, 60 kB each."""
    job_id = str(api.created(document(data=table(10, 50), training__penalty={"kind": "per_feature"}))["id"])
    claim = store.run(client, store.claim(job_id, "o"))
    assert claim is not None
    steps = [orjson.dumps(step(n)) for n in range(1, 41)]
    store.run(client, store.beat(job_id, 1, elapsed=1.0, checkpoint=b"c", steps=steps))
    return job_id


def step(n: int) -> dict[str, Any]:
    numbers = {"start": 0, "iteration": n, "evaluations": 2 * n, "value": 1 / n, "best_value": 1 / n}
    more = {"gradient_norm": 0.5, "gradient_error": None, "hyperparameters": [n + 0.123456789] * 5000}
    return {"sequence": n, **numbers, **more}


def test_steps_page_by_page(api: Api, wide: str) -> None:
    first = api.get(f"/v1/jobs/{wide}/steps")
    assert len(first.content) < MIB
    assert first.json()["next_after"] == len(first.json()["data"]) < 40
    assert first.json()["names"] is None
    assert api.steps(wide) == [step(n) for n in range(1, 41)]
    assert api.steps(wide, after=38) == [step(39), step(40)]
    page = api.get(f"/v1/jobs/{wide}/steps?limit=2&after=3").json()
    assert (page["data"], page["next_after"]) == ([step(4), step(5)], 5)
    assert api.get(f"/v1/jobs/{wide}/steps?after=40").json() == {"data": [], "next_after": None, "names": None}


def test_steps_as_columns_and_parts(api: Api, wide: str) -> None:
    path = f"/v1/jobs/{wide}/steps"
    parts = api.get(f"{path}?fields=sequence,gradient_error,value").json()
    assert parts["data"] == [{"sequence": n, "gradient_error": None, "value": 1 / n} for n in range(1, 41)]
    columns = api.get(f"{path}?fields=value,sequence&layout=columns&limit=3").json()
    assert (columns["data"], columns["next_after"]) == ({"value": [1.0, 1 / 2, 1 / 3], "sequence": [1, 2, 3]}, 3)
    everything = api.get(f"{path}?layout=columns&limit=2").json()["data"]
    assert everything == {name: [step(1)[name], step(2)[name]] for name in step(1)}
    spread = api.get(f"{path}?points=4&fields=sequence&layout=columns").json()
    assert (spread["data"]["sequence"], spread["next_after"]) == ([1, 14, 27, 40], None)
    assert len(api.get(f"{path}?points=40").content) < 1.05 * MIB
    assert api.get(f"{path}?names=true&limit=1").json()["names"] == [f"penalty[x{j}]" for j in range(50)]
    assert faults(api.get(f"{path}?fields=valeu")) == [("/query/fields", "unknown_field")]
    assert faults(api.get(f"{path}?points=4&limit=4")) == [("/query/points", "not_together")]
    assert faults(api.get(f"{path}?points=1")) == [("/query/points", "greater_than_equal")]
    assert faults(api.get(f"{path}?layout=rows")) == [("/query/layout", "literal_error")]


def test_too_many_names_say_where_they_are_read_in_pages(api: Api, client: redis.Redis) -> None:
    features = [f"{'long ' * 30}{j}" for j in range(8000)]
    spec = orjson.dumps(
        {
            "data": {"rows": 1, "columns": 8000, "features": features},
            "training": {"kind": "ridge", "penalty": {"kind": "per_feature"}},
        }
    )
    job_id = f"job_{7:024x}"
    store.run(client, store.submit(store.Submission(job_id, spec, b"", "f", 60.0), ()))
    reply = api.get(f"/v1/jobs/{job_id}/steps?names=true")
    assert faults(reply) == [("/query/names", "too_many")]
    assert f"/v1/jobs/{job_id}/hyperparameters" in reply.json()["errors"][0]["detail"]


NAMES = ["b", "a", 'c"},{"name":"d', "ß", 'e}],"', "f\\"]


def hyperparameter(j: int) -> dict[str, Any]:
    numbers = {"value": float(j % 4), "initial": 1.0, "at_bound": None, "gradient": (-1.0) ** j * j, "interval": None}
    return {"name": f"{NAMES[j % 6]}{j}", **numbers}


@pytest.fixture
def ended(api: Api, client: redis.Redis) -> str:
    """A job that has ended, with 2,000 hyperparameters; notes before and classes after them have marks like theirs."""
    job_id = str(api.created(document())["id"])
    assert store.run(client, store.claim(job_id, "o"))
    result = {
        "message": '"hyperparameters":[{"name":',
        "notes": [{"hyperparameters": ["x"]}],
        "hyperparameters": [hyperparameter(j) for j in range(2000)],
        "selection": {"per_fold": []},
        "model": {"classes": [{"name": "a"}, {"name": "b"}]},
    }
    assert store.run(client, store.finish(job_id, 1, Status.SUCCEEDED, result=orjson.dumps(result)))
    return job_id


def test_hyperparameters_page_by_page(api: Api, ended: str) -> None:
    path = f"/v1/jobs/{ended}/hyperparameters"
    expected = [hyperparameter(j) for j in range(2000)]

    def pages(sort: str | None) -> list[dict[str, Any]]:
        found, cursor = [], None
        while True:
            query = {"sort": sort, "cursor": cursor, "limit": 700}
            reply = api.get(path, params={name: value for name, value in query.items() if value is not None})
            page = reply.json()
            assert page["total"] == 2000
            found += page["data"]
            cursor = page["next_cursor"]
            if cursor is None:
                return found

    assert pages(None) == expected
    assert pages("name") == sorted(expected, key=lambda item: item["name"])
    assert pages("-value") == sorted(expected, key=lambda item: -item["value"])
    assert pages("-gradient") == expected[::-1]
    assert pages("initial") == expected
    cursor = api.get(path, params={"sort": "value"}).json()["next_cursor"]
    for query in ({"cursor": cursor}, {"cursor": "x"}, {"cursor": "ä"}, {"cursor": cursor, "sort": "-value"}):
        assert faults(api.get(path, params=query)) == [("/query/cursor", "invalid_cursor")]
    assert faults(api.get(path, params={"sort": "valu"})) == [("/query/sort", "unknown_sort")]
    etag = api.get(path).headers["etag"]
    assert api.get(path, headers={"If-None-Match": etag}).status_code == 304


def test_hyperparameters_of_a_job_without_a_result(api: Api) -> None:
    path = f"/v1/jobs/{api.created(document())['id']}"
    assert api.get(f"{path}/hyperparameters").json()["code"] == "result-not-ready"
    api.post(f"{path}/cancel")
    assert api.get(f"{path}/hyperparameters").status_code == 404


def test_predictions_know_features_that_the_job_does_not_show(api: Api, client: redis.Redis) -> None:
    job = api.created(document(data=table(20, 2000)))
    assert job["spec"]["data"]["features"]["items"] == 2000
    assert store.run(client, store.claim(job["id"], "o"))
    coefficients = [{"feature": f"x{j}", "value": 1.0} for j in range(2000)]
    model = {"kind": "linear", "intercept": 0.5, "coefficients": coefficients, "columns": [], "fills": []}
    assert store.run(client, store.finish(job["id"], 1, Status.SUCCEEDED, result=orjson.dumps({"model": model})))
    reply = api.post(f"/v1/jobs/{job['id']}/predictions", json={"x": [[1.0] * 2000]})
    assert reply.json()["predictions"] == [2000.5]
