"""The corpus finds what changed, and every member of every family has a case that comes to a result."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from service.catalog import FAMILIES
from tests.corpus.__main__ import main
from tests.corpus.cases import cases
from tests.corpus.compare import Difference, compare, differences, path_of, write
from tests.corpus.parts import Case
from tests.corpus.run import checked, end_of, record_of, records, shelved
from worker.contract.spec import JobSpec
from worker.core.family import members

FEW = "own/"  # results, failures and refusals
RESULT, FAILURE, REFUSAL = "own/dense/implicit/log", "own/indefinite", "refused/own/no vector"


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    """The records of a few cases."""
    return dict(records(cases(FEW)))


@pytest.fixture
def stored(tmp_path: Path, made: dict[str, str]) -> Path:
    """The same records in a directory."""
    write(tmp_path / "corpus", made.items())
    return tmp_path / "corpus"


def test_what_is_written_is_the_same_in_other_processes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--only", FEW]
    assert main(["write", str(tmp_path / "corpus"), *few, "--processes", "2"]) == 0
    assert main(["compare", str(tmp_path / "corpus"), *few, "--processes", "1"]) == 0
    count = len(cases(FEW))
    assert f"{count} equal, 0 different, 0 missing, 0 new" in capsys.readouterr().out


def test_the_few_cases_end_in_every_way(made: dict[str, str]) -> None:
    ends = {name: end_of(json.loads(made[name])) for name in (RESULT, FAILURE, REFUSAL)}
    assert ends == {RESULT: "succeeded", FAILURE: "failed", REFUSAL: "refused"}
    record = json.loads(made[RESULT])
    assert record["steps"]
    assert record["checkpoint"]
    assert not {"job_id", "timing", "versions", "fingerprint"} & set(record["result"])


def test_the_last_bit_of_a_number_is_found(
    stored: Path, made: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = path_of(stored, RESULT)
    record = json.loads(path.read_text())
    value = record["result"]["selection"]["value"]
    record["result"]["selection"]["value"] = other = float(np.nextafter(value, 2.0))
    path.write_text(json.dumps(record))
    found = compare(stored, made.items())
    assert not found.same
    assert found.different == {RESULT: [Difference("/result/selection/value", repr(other), repr(value))]}
    assert (found.equal, found.missing, found.new) == (len(made) - 1, [], [])
    assert main(["compare", str(stored), "--only", RESULT, "--processes", "1"]) == 1
    shown = capsys.readouterr().out
    assert f"different: {RESULT}\n    /result/selection/value: {other!r} -> {value!r}\n" in shown
    assert "0 equal, 1 different, 0 missing, 0 new" in shown


def test_a_changed_fault_is_found(stored: Path, made: dict[str, str]) -> None:
    path = path_of(stored, REFUSAL)
    record = json.loads(path.read_text())
    detail = record["faults"][0]["detail"]
    record["faults"][0]["detail"] = "Something else."
    path.write_text(json.dumps(record))
    found = compare(stored, made.items())
    assert found.different == {REFUSAL: [Difference("/faults/0/detail", '"Something else."', json.dumps(detail))]}


def test_missing_and_new_cases_are_found(stored: Path, made: dict[str, str]) -> None:
    path_of(stored, FAILURE).unlink()
    found = compare(stored, [(name, text) for name, text in made.items() if name != RESULT])
    assert not found.same
    assert (found.missing, found.new, found.different) == ([RESULT], [FAILURE], {})
    assert list(found.lines())[:2] == [f"missing: {RESULT}", f"new: {FAILURE}"]


@pytest.mark.parametrize(
    ("before", "now", "places"),
    [
        ({"a": [1.0, 2.0]}, {"a": [1.0]}, ["/a/1"]),
        ({"a": 0.0}, {"a": -0.0}, ["/a"]),
        ({"a": 1}, {"a": True}, ["/a"]),
        ({"a": 1}, {"a": 1.0}, ["/a"]),
        ({"a": float("nan")}, {"a": float("nan")}, []),
        ({"a": {"b": None}}, {"a": [None]}, ["/a"]),
        ({"a": 1}, {"b": 1}, ["/a", "/b"]),
        ({"a": {"b": 1, "c": 2}}, {"a": {"c": 2, "b": 1}}, ["/a"]),
    ],
)
def test_places(before: Any, now: Any, places: list[str]) -> None:
    assert [one.place for one in differences(before, now)] == places


def test_directories_that_are_refused(stored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in (
        (["write", str(stored), "--only", RESULT, "--processes", "1"], "is not empty"),
        (["compare", str(tmp_path / "none"), "--only", RESULT, "--processes", "1"], "there is no corpus"),
        (["compare", str(stored), "--only", "no such case"], "no case has"),
    ):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
        assert words in capsys.readouterr().err


def test_an_error_of_a_case_is_its_record(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise ZeroDivisionError("by accident")

    monkeypatch.setattr("tests.corpus.run.carry_out", fail)
    (case,) = cases(RESULT)
    assert record_of(case) == {"crash": {"type": "ZeroDivisionError", "detail": "by accident"}}


def test_the_environment_is_as_before(made: dict[str, str]) -> None:
    assert made
    before = dict(os.environ)
    with shelved():
        assert dict(os.environ) != before
    assert dict(os.environ) == before


@pytest.mark.slow  # in the default run tests/product brings every level to a result
def test_every_member_of_every_family_comes_to_a_result() -> None:
    left, chosen = {member for family in FAMILIES.values() for member in members(family)}, []
    found = [(case, left & set(_members_in(case))) for case in cases()]
    with shelved():
        for case, used in sorted(found, key=lambda one: -len(one[1])):  # so that few cases have all members
            if used & left and not isinstance(checked(case), list):
                chosen.append(case)
                left -= used
    assert not left
    without = [name for name, text in records(chosen, 2) if "result" not in json.loads(text)]
    assert not without


def _members_in(case: Case) -> Iterator[type]:
    """The classes of everything that a request names or takes by default."""
    try:
        spec = JobSpec.model_validate_json(json.dumps(case.request))
    except ValidationError:
        return
    parts: list[Any] = [spec.training, spec.selection, spec.hypergradient, spec.outer]
    while parts:
        part = parts.pop()
        if isinstance(part, tuple):
            parts += part
        elif is_dataclass(part):
            yield type(part)
            parts += [getattr(part, field.name) for field in fields(part)]
