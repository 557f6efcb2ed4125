"""What a request sends as lists becomes arrays once, and what is stored of a job is parsed once."""

from __future__ import annotations

import functools
import json
import threading
from collections import Counter
from typing import Any

import numpy as np
import orjson
import pytest

from tests.contract.specs import document
from tests.service.api import Api
from worker.contract.description import describe
from worker.contract.inline import encode_data
from worker.contract.spec import JobSpec
from worker.load import LoadError, load

CONVERTERS = ("array", "asarray", "asanyarray", "ascontiguousarray", "asarray_chkfinite", "fromiter")
ROWS, COLUMNS, P, ENTRIES = 47, 5, 13, 29  # sizes that nothing else has


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[int, str]]:
    """How often numpy makes an array of something else, by its size and the kind of its entries, in any thread."""
    made: Counter[tuple[int, str]] = Counter()
    lock = threading.Lock()

    def counted(convert: Any, given: Any, *arguments: Any, **named: Any) -> Any:
        array = convert(given, *arguments, **named)
        if not isinstance(given, np.ndarray | np.generic):
            with lock:
                made[array.size, array.dtype.kind] += 1
        return array

    for name in CONVERTERS:
        monkeypatch.setattr(np, name, functools.partial(counted, getattr(np, name)))
    return made


def a_table(**changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, COLUMNS))
    return document(**{"data": {"x": x.tolist(), "y": x[:, 0].tolist()}, "selection": {"kind": "k_fold"}, **changes})


POSITIVE = [1.0 + row % 3 for row in range(ROWS)]
NUMBERS = {f"data__{name}": POSITIVE for name in ("time", "weights", "scoring", "offset")}
CLASSES = [float(row % 2) for row in range(ROWS)]
NAMES = ["ab"[row % 2] for row in range(ROWS)]
GROUPS = [row % 9 for row in range(ROWS)]
OF_CLASSES = {"training__kind": "logistic", "training__penalty": {"kind": "per_feature"}}
TABLES = {  # a spec, and how many lists of one number a row it has
    "numbers": (a_table(), 1),
    "roles": (a_table(**NUMBERS, **OF_CLASSES, data__y=CLASSES, data__source=NAMES, data__groups=GROUPS), 5),
    "classes that are numbers": (a_table(**OF_CLASSES, data__y=CLASSES), 1),
    "classes that are names": (a_table(**OF_CLASSES, data__y=NAMES), 0),
    "a row of weight 0": (a_table(data__weights=[0.0, *POSITIVE[1:]]), 2),
    "nested": (a_table(nested={"folds": 3}, test_fraction=0.2), 1),
}


@pytest.mark.parametrize("validate_only", [False, True])
@pytest.mark.parametrize("kind", TABLES)
def test_a_table_becomes_arrays_once(
    api: Api, conversions: Counter[tuple[int, str]], kind: str, validate_only: bool
) -> None:
    spec, vectors = TABLES[kind]
    reply = api.post("/v1/jobs", json=spec, params={"validate_only": validate_only})
    assert reply.status_code == (200 if validate_only else 202), reply.text
    assert conversions[ROWS * COLUMNS, "f"] == 1
    assert conversions[ROWS, "f"] == vectors
    assert not any(kind in "UOS" and size >= ROWS for size, kind in conversions)


@pytest.mark.parametrize("validate_only", [False, True])
def test_matrices_become_arrays_once(api: Api, conversions: Counter[tuple[int, str]], validate_only: bool) -> None:
    unit = np.eye(P)
    rounded = unit + 1e-13 * np.triu(np.ones((P, P)), 1)  # not symmetric by rounding
    rows = [row % P for row in range(ENTRIES)]
    sparse = {"rows": rows, "columns": rows, "values": [1.0] * ENTRIES}
    data = {
        "matrices": [unit.tolist(), rounded.tolist(), sparse],
        "vectors": [[1.0] * P, None, [0.5] * P],
        "selection": {"matrix": unit.tolist(), "vector": [0.1] * P},
    }
    spec = {"data": data, "training": {"kind": "quadratic"}}
    conversions.clear()
    reply = api.post("/v1/jobs", json=spec, params={"validate_only": validate_only})
    assert reply.status_code == (200 if validate_only else 202), reply.text
    assert conversions[P * P, "f"] == 3
    assert conversions[P, "f"] == 3
    assert conversions[ENTRIES, "f"] == 1
    assert conversions[ENTRIES, "i"] == 2


@pytest.fixture
def parses(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The JSON texts that are parsed."""
    parsed: list[bytes] = []

    def noted(parse: Any, text: bytes) -> Any:
        parsed.append(text)
        return parse(text)

    for module in (orjson, json):
        monkeypatch.setattr(module, "loads", functools.partial(noted, module.loads))
    original = JobSpec.model_validate_json.__func__
    monkeypatch.setattr(
        JobSpec, "model_validate_json", classmethod(lambda cls, text: noted(functools.partial(original, cls), text))
    )
    return parsed


def test_a_load_parses_the_description_once(parses: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    spec = JobSpec.model_validate_json(json.dumps(a_table()))
    data = encode_data(spec.problem())
    described = describe(spec, data)
    stored = orjson.dumps(described)
    assert load(stored, data).prepared.problem.features == spec.problem().features
    assert parses.count(stored) == 1
    of_dataset = {"dataset_id": f"ds_{0:064x}", "target": "y", "rows": 9, "columns": 1, "expansion": ["x"]}
    stored = orjson.dumps({**described, "data": of_dataset})
    with pytest.raises(LoadError):
        load(stored, b"")  # there is no such dataset
    assert parses.count(stored) == 1
