"""No fault means that a job runs, reports and predicts; a fault means a refusal that names its place.

Every two members of any two families meet in a request, with settings that matter: no job fails, and nothing raises an
error of ours. The long run has all members of the families that depend on each other most, with other settings drawn.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from service import fitting
from tests.product import carry
from tests.product.carry import check_faults, submitted
from tests.product.choices import drawn, failure, is_refused
from tests.product.covering import Covering
from tests.product.factors import FACTORS, MEMBERS, Choice, plain, request, shelve
from worker.contract.prediction import Predicted, predict
from worker.report import result

pytestmark = pytest.mark.unchecked
CHUNKS = 12


@pytest.fixture(scope="module", autouse=True)
def _shelved(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    directory = tmp_path_factory.mktemp("product")
    shelve(directory)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("GRADTUNE_DATA_DIR", str(directory))
        environment.setenv("GRADTUNE_STORAGE_URL", "")
        yield


@pytest.fixture(autouse=True)
def _same_environment(_shelved: None) -> None:
    """The directory is there before the environment is looked at."""


@dataclass(frozen=True)
class Covered:
    """The choices that a covering accepts, and those it refuses."""

    accepted: list[Choice]
    refused: list[Choice]


@pytest.fixture(scope="module")
def covered(tmp_path_factory: pytest.TempPathFactory, _shelved: None) -> Covered:
    """Found by one of the test processes, as that takes ten seconds; the others read it."""
    base = tmp_path_factory.getbasetemp()
    file = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "covering.json"
    with file.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not file.exists():
            known: dict[frozenset[tuple[str, str]], bool] = {}

            def is_known_to_be_refused(choice: Choice) -> bool:
                levels = frozenset(choice.items())
                if levels not in known:
                    known[levels] = is_refused(choice)
                return known[levels]

            found = Covering(is_known_to_be_refused)
            file.write_text(json.dumps([found.accepted, found.refused]))
        return Covered(*json.loads(file.read_text()))


def none_of(found: Iterator[str | None]) -> None:
    failures = [one for one in found if one is not None]
    assert not failures, f"{len(failures)} requests:\n" + "\n".join(failures[:10])


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_pairs(covered: Covered, chunk: int) -> None:
    none_of(map(failure, [*covered.accepted, *covered.refused][chunk::CHUNKS]))


def test_every_pair_is_a_case_and_every_level_comes_to_a_result(covered: Covered) -> None:
    found = covered
    met = {pair for choice in found.accepted for pair in itertools.combinations(sorted(choice.items()), 2)}
    used = {level for pair in met for level in pair}
    assert not {(name, level) for name, factor in FACTORS.items() for level in factor.levels} - used
    refused_pairs = {pair for choice in found.refused for pair in itertools.combinations(sorted(choice.items()), 2)}
    for one, other in itertools.combinations(MEMBERS, 2):
        for a, b in itertools.product(MEMBERS[one], MEMBERS[other]):
            pair = tuple(sorted([(one, a), (other, b)]))
            assert pair in met or pair in refused_pairs or plain(dict(pair)) is None, pair


def test_a_criterion_that_does_not_fit_and_is_not_refused_is_found() -> None:
    choice = plain({"training": "logistic", "selection": "leave_one_out"})
    assert choice is not None
    with patch.object(fitting, "faults", lambda *_: []):
        assert "leave_one_out needs" in (failure(choice) or "")


def test_predictions_that_are_not_those_of_the_document_are_found() -> None:
    choice = plain({"training": "kernel_svm", "kernel": "periodic"})
    assert choice is not None

    def shifted(*arguments: Any) -> Predicted:
        predicted = predict(*arguments)
        return replace(predicted, eta=predicted.eta + 1e-6)

    with patch.object(carry, "predict", shifted):
        assert "Not equal to tolerance" in (failure(choice) or "")


@pytest.mark.parametrize(
    ("place", "name", "shift"),
    [("spread", "chosen", 0.01), ("baseline", "difference", 1e-6), ("selection", "value", -1)],
)
def test_worth_that_does_not_fit_the_result_is_found(place: str, name: str, shift: float) -> None:
    choice = plain({"training": "ridge", "penalty": "per_feature", "spread": "auto"})
    assert choice is not None

    def shifted(*arguments: Any) -> bytes:
        document = json.loads(result(*arguments))
        document[place][name] += shift
        return json.dumps(document).encode()

    with patch.object(carry, "result", shifted):
        assert failure(choice) is not None


def test_a_pointer_to_nowhere_is_found() -> None:
    choice = plain({"training": "ridge", "loss": "brier"})
    assert choice is not None
    asked = request(choice)
    found = submitted(asked)
    assert isinstance(found, list)
    check_faults(asked, found)
    del asked["selection"]
    with pytest.raises(KeyError):
        check_faults(asked, found)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("selection", FACTORS["selection"].levels)
@pytest.mark.parametrize("training", FACTORS["training"].levels)
def test_product(training: str, selection: str) -> None:
    """Methods and losses with each other; penalties with weights and splines; kernels with widths and landmarks."""
    rng = np.random.default_rng([len(training), len(selection)])
    sheets = (
        ("loss", "hypergradient", "outer"),
        ("penalty", "form", "weights", "splines"),
        ("kernel", "widths", "landmarks"),
    )
    choices = (
        {"training": training, "selection": selection, **dict(zip(sheet, levels, strict=True))}
        for sheet in sheets
        for levels in itertools.product(*(_levels(name, training, selection) for name in sheet))
    )
    whole = (drawn({name: level for name, level in one.items() if level}, rng) for one in choices)
    none_of(failure(choice) for choice in whole if choice is not None)


def _levels(name: str, training: str, selection: str) -> tuple[str, ...]:
    """The levels of a factor that may have a place; empty text: none."""
    applies = plain({"training": training, "selection": selection})
    later = name in {"form", "widths"}  # whose place depends on the sheet itself
    return FACTORS[name].levels + (("",) if later else ()) if applies and (name in applies or later) else ("",)
