"""Hyper-priors over HTTP: the default, what its result says, limits at each stage of its path, and what is refused."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from tests.contract.specs import document
from tests.plain import plain
from tests.service.api import Api, faults
from tests.service.tabular import upload

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 10)).round(3)
FEW = (X[:, :2] @ [3.0, 1.5] + 2.0 * RNG.normal(size=60)).round(3)
ALL = (X.sum(axis=1) / 2.0 + RNG.normal(size=60)).round(3)
PER_FEATURE = {"kind": "per_feature"}
AUTO = document(data={"x": X.tolist(), "y": FEW.tolist()}, training__penalty=PER_FEATURE)


def ended(live: Api, spec: dict[str, Any]) -> dict[str, Any]:
    """The result of a job that succeeds."""
    job = live.created(spec, Prefer="wait=60")
    job = live.ended(job["id"])
    assert (job["status"], job["attempt"], job["error"]) == ("succeeded", 1, None)
    result = live.result(job["id"])
    assert job["progress"]["best_value"] == result["selection"]["value"]
    assert result["model"] is not None
    return result


@pytest.fixture(scope="module")
def auto(live: Api) -> dict[str, Any]:
    return ended(live, AUTO)


def values(result: dict[str, Any]) -> list[float]:
    return [one["value"] for one in result["hyperparameters"]]


def of_baseline(result: dict[str, Any]) -> list[float]:
    return [one["value"] for one in result["baseline"]["hyperparameters"]]


def codes(result: dict[str, Any]) -> set[str]:
    return {note["code"] for note in result["notes"]}


def test_the_default_tells_its_path_its_baseline_and_a_corrected_value(live: Api, auto: dict[str, Any]) -> None:
    selection, baseline, spread = auto["selection"], auto["baseline"], auto["spread"]
    assert spread["by"] == "jackknife"
    assert [point["spread"] for point in spread["path"]] == [0.0, 0.5, 1.0]
    assert [start["spread"] for start in auto["starts"]] == [0.0, 0.5, 1.0]
    chosen = next(point for point in spread["path"] if point["spread"] == spread["chosen"])
    assert spread["chosen"] > 0  # two of ten features have an effect
    assert chosen == {
        "spread": spread["chosen"], "value": selection["value"], "corrected_value": selection["corrected_value"]
    }  # fmt: skip
    assert selection["corrected_value"] == pytest.approx(selection["value"] + selection["optimism"])
    assert selection["optimism"] > 0
    assert selection["corrected_value"] < spread["path"][0]["corrected_value"]
    assert baseline["difference"] == pytest.approx(selection["value"] - baseline["value"])
    assert baseline["difference"] < 0 < baseline["difference_se"]
    assert [one["name"] for one in baseline["hyperparameters"]] == [f"penalty[x{j}]" for j in range(10)]
    assert len(set(of_baseline(auto))) == 1 < len(set(values(auto)))
    assert codes(auto) == {"many_hyperparameters"}  # ten, of 60 rows
    assert live.get(f"/v1/jobs/{auto['job_id']}").json()["spec"]["training"]["penalty"]["spread"] == "auto"


def test_equal_effects_get_one_shared_value(live: Api) -> None:
    result = ended(live, document(data={"x": X.tolist(), "y": ALL.tolist()}, training__penalty=PER_FEATURE))
    assert result["spread"]["chosen"] == 0
    assert values(result) == of_baseline(result)
    assert result["baseline"]["difference"] == 0
    (note,) = [note for note in result["notes"] if note["code"] == "many_hyperparameters"]
    assert note["severity"] == "info"
    assert note["text"] in result["messages"]


def test_plain_tuning_has_a_baseline_and_no_spread(live: Api, auto: dict[str, Any]) -> None:
    result = ended(live, plain(AUTO))
    assert result["spread"] is None
    assert [start["spread"] for start in result["starts"]] == [None, 0.0]
    assert result["baseline"]["hyperparameters"] == auto["baseline"]["hyperparameters"]
    assert result["baseline"]["value"] == auto["baseline"]["value"]
    assert result["selection"]["value"] < auto["selection"]["value"]
    assert result["fingerprint"] != auto["fingerprint"]


def test_a_given_spread_is_taken_with_further_starts(live: Api) -> None:
    penalty = {**PER_FEATURE, "spread": 2}
    spec = document(data=AUTO["data"], training__penalty=penalty, outer={"kind": "auto", "starts": 2})
    result = ended(live, spec)
    assert (result["spread"]["chosen"], result["spread"]["by"]) == (2.0, "given")
    assert [start["spread"] for start in result["starts"]] == [0.0, 2.0, 2.0]
    assert result["selection"]["value"] <= result["baseline"]["value"]


def test_widths_of_a_kernel_and_one_penalty_beside_them(live: Api) -> None:
    kernel = {"kind": "rbf", "widths": PER_FEATURE}
    result = ended(live, document(data=AUTO["data"], training={"kind": "kernel_ridge", "kernel": kernel}))
    assert [point["spread"] for point in result["spread"]["path"]] == [0.0, 0.5, 1.0]
    assert result["selection"]["corrected_value"] > result["selection"]["value"]
    assert len(set(of_baseline(result))) == 2


def test_a_criterion_without_rows_takes_a_fixed_spread(live: Api) -> None:
    result = ended(live, {**AUTO, "selection": {"kind": "evidence"}})
    assert (result["spread"]["chosen"], result["spread"]["by"]) == (0.5, "fixed")
    assert (result["selection"]["corrected_value"], result["baseline"]["difference_se"]) == (None, None)


def test_one_hyperparameter_has_nothing_to_compare(live: Api) -> None:
    result = ended(live, document(data=AUTO["data"]))
    assert (result["spread"], result["baseline"], result["selection"]["corrected_value"]) == (None, None, None)
    assert result["notes"] == []


def test_nested_folds_repeat_the_whole_path(live: Api, auto: dict[str, Any]) -> None:
    result = ended(live, {**AUTO, "nested": {"folds": 2}})
    assert result["spread"] == auto["spread"]
    assert values(result) == values(auto)
    assert result["nested"]["value"] > result["selection"]["value"]
    assert result["nested"]["standard_error"] > 0
    assert result["counts"]["evaluations"] > 2 * auto["counts"]["evaluations"]


@pytest.mark.parametrize("stage", range(3))
def test_a_limit_keeps_what_has_ended_before(live: Api, auto: dict[str, Any], stage: int) -> None:
    before = sum(start["evaluations"] for start in auto["starts"][:stage])
    result = ended(live, {**AUTO, "limits": {"evaluations": before + 2}})
    assert result["stop_reason"] == "max_evaluations"
    assert result["counts"]["evaluations"] == before + 2
    assert len(result["starts"]) == stage + 1
    assert result["spread"]["by"] is None
    assert result["spread"]["path"] == auto["spread"]["path"][:stage]
    if stage == 0:
        assert (result["baseline"], result["selection"]["corrected_value"]) == (None, None)
        assert "baseline_unavailable" in codes(result)
        return
    assert result["baseline"]["value"] == auto["baseline"]["value"]
    assert of_baseline(result) == of_baseline(auto)
    assert "baseline_unavailable" not in codes(result)
    if stage == 1:
        assert result["spread"]["chosen"] == 0
        assert values(result) == of_baseline(auto)
    else:
        assert result["spread"]["chosen"] == 0.5  # which gains something, and nothing wider has ended
        assert result["selection"]["value"] == auto["spread"]["path"][1]["value"]
    assert result["selection"]["corrected_value"] == auto["spread"]["path"][stage - 1]["corrected_value"]


def test_a_target_value_on_the_path_ends_there(live: Api, auto: dict[str, Any]) -> None:
    shared, half = (point["value"] for point in auto["spread"]["path"][:2])
    result = ended(live, {**AUTO, "limits": {"target_value": (shared + half) / 2}})
    assert result["stop_reason"] == "target_value"
    assert half < result["selection"]["value"] <= (shared + half) / 2
    assert (result["spread"]["chosen"], result["spread"]["by"]) == (0.5, None)


def test_a_dataset_gives_what_its_rows_give(live: Api, auto: dict[str, Any]) -> None:
    lines = [",".join(f"{value!r}" for value in (*row, y)) for row, y in zip(X.tolist(), FEW.tolist(), strict=True)]
    table = "\n".join([",".join([*(f"x{j}" for j in range(10)), "y"]), *lines]).encode()
    dataset = upload(live, table, "text/csv")
    result = ended(live, {**AUTO, "data": {"dataset_id": dataset["id"], "target": "y"}})
    for part in ("spread", "baseline", "hyperparameters"):
        assert result[part] == auto[part]


@pytest.mark.parametrize("bad", [0, -1, 101, "x", "", True, [0.5], {"auto": 1}], ids=repr)
@pytest.mark.parametrize(
    ("training", "pointer"),
    [
        ({"kind": "ridge", "penalty": PER_FEATURE}, "/training/penalty"),
        ({"kind": "multinomial", "penalty": {"kind": "per_class"}}, "/training/penalty"),
        ({"kind": "kernel_ridge", "kernel": {"kind": "rbf", "widths": PER_FEATURE}}, "/training/kernel/widths"),
    ],
    ids=["penalty", "classes", "widths"],
)
def test_a_bad_spread_is_refused_at_its_place(api: Api, training: dict[str, Any], pointer: str, bad: Any) -> None:
    spec = document(**{"training": copy.deepcopy(training), f"{pointer[1:].replace('/', '__')}__spread": bad})
    reply = api.create(spec)
    assert reply.status_code == 422
    (fault,) = reply.json()["errors"]
    assert fault["pointer"] == f"{pointer}/spread"
    number = isinstance(bad, int | float) and not isinstance(bad, bool)
    bound = "less than or equal to 100." if number and bad > 1 else "greater than 0."
    assert fault["detail"] == (f"Input should be {bound}" if number else "Input should be 'auto' or a number.")


@pytest.mark.parametrize("training", [{"kind": "ridge"}, {"kind": "ridge", "penalty": {"kind": "shared"}}])
def test_one_value_has_no_spread(api: Api, training: dict[str, Any]) -> None:
    penalty = {"kind": "shared", **training.get("penalty", {}), "spread": None}
    reply = api.create(document(training={**training, "penalty": penalty}))
    assert faults(reply) == [("/training/penalty/spread", "unknown_field")]
