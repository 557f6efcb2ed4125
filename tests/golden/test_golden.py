"""Equal fingerprints give equal numbers: those of this version of the algorithm are as they were recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from tests.golden.__main__ import main
from tests.golden.cases import CASES, LIKE_PENALTIES, PENALTIES, job
from tests.golden.recorded import RECORD, differences
from worker.contract.spec import ALGORITHM
from worker.core.family import kind_of
from worker.core.hypergradient import ExactHypergradient
from worker.core.outer import ConcreteOuter
from worker.core.selection import Selection
from worker.core.training import Training

COMMAND = "run `python -m tests.golden`"
REMEDY = f"If other numbers are intended, raise ALGORITHM in worker/contract/spec.py, then {COMMAND}"
RECORDED: dict[str, Any] = json.loads(RECORD.read_text())


def test_the_numbers_are_those_of_this_version() -> None:
    assert RECORDED["algorithm"] == ALGORITHM, f"{RECORD.name} is of algorithm {RECORDED['algorithm']}: {COMMAND}"
    assert set(RECORDED["cases"]) == set(CASES), f"cases were added or removed: {COMMAND}"


LONG = {"training: kernel_svm, huberized"}  # a smooth machine at a corner, half a minute


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in CASES])
def test_numbers_are_as_they_were(name: str) -> None:
    if RECORDED["algorithm"] != ALGORITHM or name not in RECORDED["cases"]:
        pytest.skip("not recorded, as another test says")
    found = list(differences(CASES[name], RECORDED["cases"][name]))
    assert not found, f"{name}: {'; '.join(found)}. {REMEDY}."


def test_every_kind_has_a_case() -> None:
    unions = {"training": Training, "selection": Selection, "outer": ConcreteOuter, "hypergradient": ExactHypergradient}
    named = {family: {name.partition(": ")[2] for name in CASES if name.startswith(family)} for family in unions}
    named["hypergradient"].add("implicit")  # in all other cases
    for family, union in unions.items():
        missing = {kind_of(member) for member in get_args(union)} - named[family]
        assert not missing, f"{family}: add cases of {missing} to tests/golden/cases.py, then {COMMAND}"


def test_the_command_keeps_what_the_version_has_recorded(tmp_path: Path) -> None:
    path, cases = tmp_path / "numbers.json", {"a": job("ridge", 3), "b": job("ridge", 5)}
    kept = {"what": "was recorded"}
    path.write_text(json.dumps({"algorithm": "7", "cases": {"a": kept}}))
    assert main(path, cases, "7") == "Algorithm 7: recorded 1 cases, kept 1."
    found = json.loads(path.read_text())
    assert (found["algorithm"], found["cases"]["a"]) == ("7", kept)
    with pytest.raises(ValueError, match="stay as they are"):
        main(path, cases, "7")
    assert json.loads(path.read_text()) == found
    assert main(path, cases, "8") == "Algorithm 8: recorded 2 cases, kept 0."
    again = json.loads(path.read_text())
    assert again["algorithm"] == "8"
    assert again["cases"]["a"] != kept
    assert again["cases"]["b"] == found["cases"]["b"]
    assert list(differences(cases["a"], again["cases"]["a"])) == []


@pytest.mark.parametrize(
    ("request_", "why"), [(job(PENALTIES, 1), "no sharp optimum"), (job(LIKE_PENALTIES, 6), "a choice that is close")]
)
def test_the_command_refuses_what_depends_on_the_last_digits(
    tmp_path: Path, request_: dict[str, Any], why: str
) -> None:
    path = tmp_path / "numbers.json"
    path.write_text(json.dumps({"algorithm": "7", "cases": {}}))
    with pytest.raises(ValueError, match=why):
        main(path, {"one": request_}, "7")
    assert json.loads(path.read_text())["cases"] == {}
