"""Tables with very many sparse columns over HTTP."""

from __future__ import annotations

import pytest

from tests.service.api import Api, check_problem


def test_one_line_cannot_make_two_thousand_million_columns(api: Api) -> None:
    for content, told in (
        (b"1 2147483646:2\n0 1:1\n", "at least 2147483646"),
        (b"1 0:1 2000000:2\n0 1:1\n", "at least 2000001"),
    ):
        reply = api.post("/v1/datasets", content=content, headers={"Content-Type": "text/x-libsvm"})
        check_problem(reply)
        assert reply.status_code == 413
        assert reply.json()["code"] == "dataset-too-large"
        assert "2000000 sparse columns (GRADTUNE_DATASET_MAX_SPARSE_COLUMNS)" in reply.json()["detail"]
        assert told in reply.json()["detail"]


def test_as_many_columns_as_may_be_are_chosen_by_patterns(api: Api) -> None:
    lines = b"".join(b"%d %d:1 2000000:0.5\n" % (i % 3, i + 1) for i in range(30))
    dataset = api.post("/v1/datasets", content=lines, headers={"Content-Type": "text/x-libsvm"}).json()["id"]
    data = {"dataset_id": dataset, "target": "label", "features": [{"all_but": ["1*", "20000??"]}]}
    job = api.created({"data": data, "training": {"kind": "ridge"}})
    steps = api.get(f"/v1/jobs/{job['id']}/steps?names=true").json()
    assert steps["names"] == ["penalty"]
    described = api.get(f"/v1/jobs/{job['id']}").json()["spec"]["data"]
    # numbers that begin with 1: 1 + 10 + ... + 1,000,000; and 2000000 itself
    assert described["columns"] == 2_000_000 - 1_111_111 - 1
    assert described["expansion"][-1] == {"from": "200000", "to": "999999"}


@pytest.mark.slow
def test_a_model_of_too_many_features_does_not_predict_here(live: Api) -> None:
    lines = b"".join(b"%d %d:1 200001:0.5\n" % (i % 3, i + 1) for i in range(30))
    dataset = live.post("/v1/datasets", content=lines, headers={"Content-Type": "text/x-libsvm"}).json()["id"]
    data = {"dataset_id": dataset, "target": "label"}
    job = live.ended(live.created({"data": data, "training": {"kind": "ridge"}, "limits": {"evaluations": 1}})["id"])
    reply = live.post(f"/v1/jobs/{job['id']}/predictions", json={"x": [[0.0]]})
    check_problem(reply)
    assert reply.status_code == 413
    assert "200000 features" in reply.json()["detail"]
