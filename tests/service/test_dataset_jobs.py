"""Jobs on uploaded datasets through the whole stack: HTTP, store, storage, worker."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import redis
from numpy.testing import assert_allclose
from scipy.sparse import csr_array

from tests.datasets.files import npy
from tests.datasets.test_roles import AGE, AREA, COLUMNS, DAY, FOLD, PRICE, ROOMS, ROWS, TOWN, csv_file, libsvm
from tests.service.api import Api, eventually, faults
from tests.service.tabular import assert_same, plan_of, upload
from worker import store
from worker.core.rows.problem import Imputation, Problem
from worker.embedded import EmbeddedServer

TOWNS = ("Bonn", "Kiel", "Ulm")
NAMES = ("area", "town=Bonn", "town=Kiel", "town=Ulm", "age", "age is missing")


def spec_of(dataset: dict[str, Any], data: dict[str, Any], **rest: Any) -> dict[str, Any]:
    training = {"kind": "ridge", "penalty": {"kind": "per_group"}}
    return {"data": {"dataset_id": dataset["id"], **data}, "training": training, **rest}


@pytest.fixture(scope="module")
def houses(live: Api) -> dict[str, Any]:
    return upload(live, csv_file(COLUMNS), "text/csv")


HOUSES = {
    "target": "price",
    "features": ["area", "town", "age"],
    "groups": "rooms",
    "time": "day",
    "fold": "fold",
    "missing": {"columns": {"age": {"fill": "median", "indicator": True}}},
}


def houses_by_hand() -> tuple[Problem, dict[str, tuple[str, ...]]]:
    age = np.array([np.nan if age is None else float(age) for age in AGE])
    X = np.column_stack([AREA, *([town == name for town in TOWN] for name in TOWNS), age, np.isnan(age)])
    imputation = Imputation(np.array([4]), ("median",), np.array([0.0]))
    roles = {"time": np.arange(ROWS, dtype=float), "groups": ROOMS - 1, "fold": FOLD}
    problem = Problem(X.astype(float), PRICE, NAMES, imputation, **roles)
    return problem, {"area": NAMES[:1], "town": NAMES[1:4], "age": NAMES[4:]}


@pytest.mark.parametrize(
    "selection",
    [
        {"kind": "k_fold"},
        {"kind": "group_k_fold", "folds": 3},
        {"kind": "given_folds"},
        {"kind": "walk_forward", "initial": 20, "horizon": 7},
        {"kind": "leave_one_out"},
    ],
    ids=lambda selection: selection["kind"],
)
def test_a_dataset_job_equals_the_table_made_by_hand(live: Api, houses: dict[str, Any], selection: dict[str, Any]):
    spec = spec_of(houses, HOUSES, selection=selection, test_fraction=0.1)
    job = live.ended(live.created(spec)["id"])
    assert job["status"] == "succeeded", job
    result = live.result(job["id"])
    problem, groups = houses_by_hand()
    assert_same(result, problem, plan_of(spec, groups))
    town, age = result["model"]["columns"]
    assert town == {"column": "town", "part": None, "categories": list(TOWNS), "features": list(NAMES[1:4])}
    assert (age["column"], age["categories"], age["features"]) == ("age", None, list(NAMES[4:]))
    assert [item["feature"] for item in result["model"]["fills"]] == ["age"]
    assert live.get(f"/v1/jobs/{job['id']}/steps?names=true").json()["names"] == [f"penalty[{name}]" for name in groups]


def test_predictions_can_be_made_from_the_result_alone(live: Api, houses: dict[str, Any]) -> None:
    spec = spec_of(houses, HOUSES, selection={"kind": "k_fold", "folds": 4})
    result = live.result(live.ended(live.created(spec)["id"])["id"])
    values = {item["feature"]: item["value"] for item in result["model"]["coefficients"]}
    fills = {item["feature"]: item["value"] for item in result["model"]["fills"]}
    eta = np.full(ROWS, result["model"]["intercept"])
    for i in range(ROWS):
        age = fills["age"] if AGE[i] is None else AGE[i]
        eta[i] += AREA[i] * values["area"] + values[f"town={TOWN[i]}"] + age * values["age"]
        eta[i] += (AGE[i] is None) * values["age is missing"]
    residual = PRICE - eta
    assert abs(residual.mean()) < 1e-10  # the normal equation of the intercept


def test_what_a_dataset_job_would_do(live: Api, houses: dict[str, Any]) -> None:
    spec = spec_of(houses, HOUSES)
    reply = live.post("/v1/jobs?validate_only=true", json=spec)
    assert reply.status_code == 200, reply.text
    validation = reply.json()
    assert validation["names"] == ["penalty[area]", "penalty[town]", "penalty[age]"]
    assert (validation["spec"]["data"]["rows"], validation["spec"]["data"]["columns"]) == (ROWS, 6)
    assert validation["cost"]["flops"] > ROWS * 36
    assert validation["fingerprint"] == live.created(spec)["fingerprint"]


def test_no_data_of_a_dataset_job_in_the_store(live: Api, live_server: EmbeddedServer) -> None:
    matrix = np.random.default_rng(0).normal(size=(20_000, 10))
    dataset = upload(live, npy(matrix), "application/x-npy")
    names = [column["name"] for column in dataset["columns"]]
    with store.connect(live_server.url) as client:
        before = used(client)
        job = live.ended(live.created(spec_of(dataset, {"target": names[0]}))["id"])
        assert job["status"] == "succeeded"
        assert used(client) - before < 100_000 < matrix.nbytes


def used(client: redis.Redis) -> int:
    return sum(client.memory_usage(key) or 0 for key in client.scan_iter("*"))


@pytest.mark.parametrize("share", [0.03, 0.5])
def test_sparse_files(live: Api, share: float) -> None:
    rng = np.random.default_rng(4)
    X = np.where(rng.random((80, 30)) < share, rng.normal(size=(80, 30)).round(3), 0.0)
    X[0, 29] = 1.0
    y = (X @ rng.normal(size=30) + rng.normal(size=80)).round(3)
    dataset = upload(live, libsvm(X, y), "text/x-libsvm")
    groups = {"low": ["?"], "high": ["??"]}
    training = {"kind": "ridge", "penalty": {"kind": "per_group", "groups": groups}}
    spec = spec_of(dataset, {"target": "label"}) | {"training": training}
    job = live.ended(live.created(spec)["id"])
    assert job["status"] == "succeeded", job
    problem = Problem(csr_array(X) if share < 0.1 else X, y, tuple(str(j) for j in range(1, 31)))
    by_hand = {"low": tuple("123456789"), "high": tuple(str(j) for j in range(10, 31))}
    spec["training"] = {"kind": "ridge", "penalty": {"kind": "per_group", "groups": by_hand}}
    assert_same(live.result(job["id"]), problem, plan_of(spec))
    assert_allclose(len(live.result(job["id"])["hyperparameters"]), 2)


def test_wrong_columns_are_refused_before_anything_is_queued(live: Api, houses: dict[str, Any]) -> None:
    reply = live.create(spec_of(houses, {**HOUSES, "target": "prize"}))
    assert faults(reply) == [("/data/target", "unknown_column")]
    assert "did you mean 'price'" in reply.text
    reply = live.create(spec_of({"id": "ds_" + "0" * 64}, HOUSES))
    assert faults(reply) == [("/data/dataset_id", "unknown_dataset")]
    reply = live.create(spec_of(houses, HOUSES, selection={"kind": "k_fold", "folds": 49}))
    assert faults(reply) == [("/selection", "does_not_fit")]


@pytest.mark.parametrize(
    ("data", "selection", "words"),
    [
        (
            {"where": [{"column": "rooms", "max": 1}, {"column": "area", "equals": float(AREA[ROOMS.argmax()])}]},
            {"kind": "k_fold"}, "At least 2 rows are needed, and 0",
        ),
        ({"where": [{"column": "rooms", "max": 1}]}, {"kind": "k_fold", "folds": 40}, "40 folds need at least 40 rows"),
        ({"fold": "rooms"}, {"kind": "given_folds"}, "Fold 0 has no rows"),
        ({"missing": None, "where": [{"column": "rooms"}]}, {"kind": "k_fold"}, "column 'age': the value is missing"),
        ({}, {"kind": "walk_forward", "initial": "P90D", "window": "P5D", "horizon": "P9D"}, "make window longer"),
    ],
)  # fmt: skip
def test_what_only_the_values_show_ends_the_job_at_once(live: Api, houses, data, selection, words) -> None:
    job = live.ended(live.created(spec_of(houses, {**HOUSES, **data}, selection=selection))["id"])
    assert (job["status"], job["attempt"], job["error"]["code"]) == ("failed", 1, "data-do-not-fit")
    assert words in job["error"]["detail"]


def test_durations_and_conditions_through_the_whole_stack(live: Api, houses: dict[str, Any]) -> None:
    where = [{"column": "town", "in": ["Ulm", "Kiel"]}, {"column": "day", "min": "2023-12-01"}]
    selection = {"kind": "walk_forward", "initial": "P100D", "horizon": "P4W", "gap": "PT12H"}
    data = {"target": "price", "features": ["area"], "time": "day", "where": where}
    spec = spec_of(houses, data, selection=selection)
    job = live.ended(live.created(spec)["id"])
    assert job["status"] == "succeeded", job
    assert job["spec"]["selection"]["horizon"] == "P4W"
    assert [{k: v for k, v in item.items() if v is not None} for item in job["spec"]["data"]["where"]] == where
    kept = np.array([town != "Bonn" and day.isoformat() >= "2023-12-01" for town, day in zip(TOWN, DAY, strict=True)])
    days = np.array([(day - DAY[0]).days for day in DAY])[kept].astype(float)
    problem = Problem(AREA[kept, None], PRICE[kept], ("area",), time=days, time_in_days=True)
    assert_same(live.result(job["id"]), problem, plan_of(spec, {"area": ("area",)}))
    assert live.post("/v1/jobs?validate_only=true", json=spec).json()["notes"] == []


@pytest.mark.parametrize(
    ("data", "selection", "pointer", "words"),
    [
        ({"where": [{"column": "town", "min": 1}]}, {}, "/data/where/0/min", "list those you want in `equals` or `in`"),
        ({"where": [{"column": "town", "equals": "Uln"}]}, {}, "/data/where/0/equals", "did you mean 'Ulm'"),
        ({"where": [{"column": "day", "max": "1.3.2024"}]}, {}, "/data/where/0/max", "as in 2024-03-01"),
        ({"where": [{"column": "rooms", "min": 9}]}, {}, "/data/where/0", "its values are from 1 to 4"),
        ({"where": [{"column": "rooms", "equals": True}]}, {}, "/data/where/0/equals", "number"),
        ({"where": [{"column": "rooms", "in": []}]}, {}, "/data/where/0/in", "at least 1 item"),
        ({}, {"initial": "P1M"}, "/selection/initial", "Months and years differ in length"),
        ({}, {"initial": "P2Y"}, "/selection/initial", "Months and years differ in length"),
        ({}, {"initial": "P400D", "gap": "P400D"}, "/selection", "the dates span 423 days"),
        ({"time": "rooms"}, {"initial": 10, "gap": "P1D"}, "/selection/gap", "a duration needs dates"),
        ({"time": None}, {"initial": "P5D", "step": "P1D"}, "/selection/initial", "a duration needs dates"),
    ],
)
def test_wrong_conditions_and_durations_are_refused(live: Api, houses, data, selection, pointer, words) -> None:
    chosen = {"kind": "walk_forward", "initial": 10, **selection}
    reply = live.create(spec_of(houses, {**HOUSES, **data}, selection=chosen))
    assert faults(reply)[0][0] == pointer
    assert words.lower() in reply.json()["errors"][0]["detail"].lower()


def test_torn_groups_are_told_before_and_after(live: Api, houses: dict[str, Any]) -> None:
    spec = spec_of(houses, HOUSES, selection={"kind": "k_fold"})
    (note,) = live.post("/v1/jobs?validate_only=true", json=spec).json()["notes"]
    assert (note["code"], note["severity"]) == ("splits", "warning")
    assert "Rows of one group may be on both sides" in note["text"]
    messages = live.result(live.ended(live.created(spec)["id"])["id"])["messages"]
    assert any("Rows of one group are on both sides" in message for message in messages)
    grouped = spec_of(houses, HOUSES, selection={"kind": "group_k_fold", "folds": 3})
    assert live.post("/v1/jobs?validate_only=true", json=grouped).json()["notes"] == []
    inline = {"x": [[float(i)] for i in range(12)], "y": [float(i * i % 5) for i in range(12)], "groups": [0, 1, 2] * 4}
    inline_spec = {"data": inline, "training": {"kind": "ridge"}, "selection": {"kind": "leave_one_out"}}
    (note,) = live.post("/v1/jobs?validate_only=true", json=inline_spec).json()["notes"]
    assert "Rows of one group are on both sides" in note["text"]


def test_a_dataset_whose_files_are_gone_is_damaged(live: Api) -> None:
    dataset = upload(live, csv_file(COLUMNS | {"price": PRICE + 1}), "text/csv")
    live.app.state.datasets.storage.delete(dataset["id"])
    refused = live.create(spec_of(dataset, HOUSES))
    assert (refused.status_code, refused.json()["code"]) == (409, "dataset-damaged")
    assert refused.json()["errors"][0]["pointer"] == "/data/dataset_id"


def test_a_dataset_in_use_is_kept(api: Api) -> None:
    dataset = upload(api, csv_file(COLUMNS), "text/csv")
    job = api.created(spec_of(dataset, HOUSES))
    assert api.delete(f"/v1/datasets/{dataset['id']}").status_code == 409
    api.post(f"/v1/jobs/{job['id']}/cancel")
    eventually(lambda: api.get(f"/v1/jobs/{job['id']}").json()["done"])
    assert api.delete(f"/v1/datasets/{dataset['id']}").status_code == 204
    assert faults(api.create(spec_of(dataset, HOUSES))) == [("/data/dataset_id", "unknown_dataset")]


def weighed(classes: int = 2, *, absent: bool = True) -> bytes:
    """Rows of weight 0 with an extra class, an extra category and sentinels, or the same table without them."""
    random = np.random.default_rng(3)
    x = random.normal(size=60)
    label = np.array(["no", "yes", "why"])[np.digitize(x + random.normal(size=60), [0.0, 0.6][: classes - 1])]
    rows = [
        f"{value!r},{'red' if number % 2 else 'blue'},{'' if number == 4 else number % 7},{1 + number % 3},{name}"
        for number, (value, name) in enumerate(zip(x.tolist(), label, strict=True))
    ]
    if absent:
        for place in (0, 17, 62):
            rows.insert(place, "1e9,green,1e12,0,extra")
    return "\n".join(["x,colour,z,w,label", *rows, ""]).encode()


WEIGHED = {"target": "label", "weights": "w", "missing": {"default": {"fill": "mean"}}}


@pytest.mark.parametrize("training", ["logistic", "multinomial", "kernel_svm"])
def test_rows_of_weight_0_of_a_dataset_are_as_good_as_absent(live: Api, training: str) -> None:
    results = []
    for absent in (True, False):
        dataset = upload(live, weighed(absent=absent), "text/csv")
        kernel = training.startswith("kernel")
        spec = {
            "data": {
                "dataset_id": dataset["id"],
                **WEIGHED,
                "features": ["x", "z"] if kernel else ["x", "colour", "z"],
            },
            "training": {"kind": training},
            "selection": {"kind": "k_fold", "folds": 3},
            "limits": {"evaluations": 4},
        }
        results.append(live.result(live.created(spec, Prefer="wait=60")["id"]))
    found, wanted = results
    assert found["selection"]["value"] == pytest.approx(wanted["selection"]["value"], rel=1e-9)
    assert found["model"]["fills"] == wanted["model"]["fills"]
    models = [each["model"] for each in results]
    if training == "multinomial":
        names = [[one["name"] for one in model["classes"]] for model in models]
    else:
        names = [model["classes"] for model in models]
    assert names[0] == names[1] == ["no", "yes"]
    assert "3 rows of weight 0 were left out, as if not there." in found["messages"]


@pytest.mark.parametrize(
    ("training", "detail"),
    [
        ({"kind": "logistic"}, "Column 'label' has 3 classes, and logistic tells two apart"),
        ({"kind": "multinomial", "penalty": {"kind": "per_class"}}, "All rows of class 'extra' have weight 0"),
    ],
)
def test_classes_that_rows_of_weight_0_leave_are_counted_by_the_worker(
    live: Api, training: dict[str, Any], detail: str
) -> None:
    dataset = upload(live, weighed(3), "text/csv")
    spec = {"data": {"dataset_id": dataset["id"], **WEIGHED}, "training": training}
    job = live.ended(live.created(spec, Prefer="wait=60")["id"])
    assert job["error"]["code"] == "data-do-not-fit"
    assert detail in job["error"]["detail"]


def test_a_spline_of_a_column_with_two_values_is_refused_before_the_rows_are_read(live: Api) -> None:
    dataset = upload(live, b"a,b,y\n" + b"".join(b"%d,%d,%d\n" % (i, i % 2, i % 5) for i in range(30)), "text/csv")
    training = {"kind": "ridge", "splines": [{"feature": "a"}, {"feature": "b", "order": 3}]}
    reply = live.create({"data": {"dataset_id": dataset["id"], "target": "y"}, "training": training})
    assert reply.status_code == 422
    assert faults(reply) == [("/training/splines/1", "does_not_fit")]
    assert "2 distinct values" in reply.json()["errors"][0]["detail"]


def test_the_delta_of_a_huber_loss_is_told_in_units_of_the_target(live: Api) -> None:
    y = np.random.default_rng(0).normal(size=24) * 3e4
    spec = {"data": {"x": np.arange(24.0)[:, None].tolist(), "y": y.tolist()}, "training": {"kind": "huber"}}
    wanted = 1.35 * 1.4826 * np.median(np.abs(y - np.median(y)))
    validated = live.post("/v1/jobs", params={"validate_only": "true"}, json=spec).json()
    deltas = {place: pytest.approx(wanted) for place in ("/training/delta", "/selection/loss/delta")}
    assert validated["resolved"] == {"/outer/max_iterations": 101, **deltas}
    result = live.result(live.created(spec, Prefer="wait=60")["id"])
    assert result["selection"]["delta"] == result["model"]["delta"] == pytest.approx(wanted, rel=1e-12)


def test_omitted_boxes_are_told_in_units_of_the_columns(live: Api) -> None:
    """They stay null in the spec. The values of a dataset are not read before it runs: there they are null, too."""
    random = np.random.default_rng(0)
    X = random.normal(size=(40, 3)) * [1.0, 1e-4, 1e3]
    y = X @ [1.0, 1e4, 0.0] + random.normal(size=40)
    penalty = {"kind": "per_feature", "upper": 50.0, "spread": None}
    spec = {"data": {"x": X.tolist(), "y": y.tolist()}, "training": {"kind": "ridge", "penalty": penalty}}
    standard = live.post("/v1/jobs", params={"validate_only": "true"}, json=spec).json()
    assert standard["boxes"] == {"initial": [1.0] * 3, "lower": [1e-6] * 3, "upper": [50.0] * 3}
    assert standard["spec"]["training"]["penalty"] == {**penalty, "initial": None, "lower": None, "groups": None}
    assert standard["spec"]["outer"]["max_iterations"] is None
    assert standard["resolved"] == {"/outer/max_iterations": 103}
    spec["training"] |= {"standardize": False}
    plain = live.post("/v1/jobs", params={"validate_only": "true"}, json=spec).json()
    variances = X.var(axis=0)
    expected = {"initial": np.minimum(variances, 50.0), "lower": 1e-6 * variances, "upper": np.full(3, 50.0)}
    for name, values in expected.items():
        np.testing.assert_allclose(plain["boxes"][name], values, rtol=1e-9)
    assert plain["fingerprint"] != standard["fingerprint"]
    result = live.result(live.created(spec, Prefer="wait=60")["id"])
    assert [one["initial"] for one in result["hyperparameters"]] == pytest.approx(plain["boxes"]["initial"])
    table = b"a,b,y\n" + b"".join(b"%d,%d,%d\n" % (i % 7, i % 3, i % 5) for i in range(30))
    dataset = upload(live, table, "text/csv")
    of_dataset = {"data": {"dataset_id": dataset["id"], "target": "y"}, "training": {"kind": "ridge"}}
    told = live.post("/v1/jobs", params={"validate_only": "true"}, json=of_dataset).json()
    assert told["boxes"] == {"initial": [1.0], "lower": [1e-6], "upper": [1e6]}
    of_dataset["training"] |= {"standardize": False}
    assert live.post("/v1/jobs", params={"validate_only": "true"}, json=of_dataset).json()["boxes"] is None
