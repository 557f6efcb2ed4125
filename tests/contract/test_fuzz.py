"""Whatever is sent, the answer is a spec or a short list of faults."""

from __future__ import annotations

import copy
import json
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contract.specs import document, faults_of, own_criteria
from worker.contract.description import describe, encoded_names, fingerprint, hyperparameter_names, work
from worker.contract.faults import MOST
from worker.contract.inline import encode_data
from worker.contract.name_runs import decode_names
from worker.contract.spec import JobSpec

VALID = document(
    data__features=["a", "b", "c"],
    training__penalty={"kind": "per_group", "groups": {"g": ["a"], "h": ["b", "c"]}},
    selection={"kind": "given_folds", "fold_of_row": [0, 1, 2] * 4},
    hypergradient__kind="implicit",
    outer={"kind": "newton", "starts": 2},
    limits={"evaluations": 5},
    labels={"team": "pricing"},
)
KNOWN = ("kind", "ridge", "data", "x", "penalty", "groups", "auto", "k_fold", "lower", "folds", "[key]", "shared", "")
scalars = (
    st.none() | st.booleans() | st.integers() | st.sampled_from([2**63, 2**64, 10**400, -1, 0, 1e300, 1e-320])
    | st.floats() | st.text(max_size=8) | st.sampled_from(KNOWN)
)  # fmt: skip
names = st.sampled_from(KNOWN) | st.text(max_size=6)
documents = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4), max_leaves=12
)


def places(node: Any) -> list[tuple[Any, Any]]:
    """Every container with each of its keys."""
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [place for key, value in pairs for place in ((node, key), *places(value))]


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    """A valid spec, of a table or of matrices, in which up to three things were replaced, removed, added or renamed."""
    spec = copy.deepcopy(draw(st.sampled_from([VALID, own_criteria()])))
    for _ in range(draw(st.integers(1, 3))):
        container, key = draw(st.sampled_from(places(spec)))
        change = draw(st.sampled_from(["replace", "remove", "add"]))
        if change == "replace":
            container[key] = draw(documents)
        elif change == "remove":
            del container[key]
        elif isinstance(container, dict):
            container[draw(names)] = draw(documents)
        else:
            container.insert(key, draw(documents))
        if not places(spec):
            break
    return spec


def check(body: bytes) -> None:
    found = faults_of(body)
    assert len(found) <= MOST
    shown = orjson.dumps([[fault.pointer, fault.code, fault.detail] for fault in found])
    assert len(shown) < 20_000
    for fault in found:
        assert fault.pointer == "" or fault.pointer.startswith("/")
        assert fault.code
        assert len(fault.detail) > 5
    if not found:
        spec = JobSpec.model_validate_json(body)
        data = encode_data(spec.problem())
        description = describe(spec, data)
        assert len(fingerprint(description)) == 64
        stored = orjson.dumps(description)
        assert work(stored, data).plan == spec.plan()
        assert decode_names(encoded_names(spec)) == list(hyperparameter_names(stored))


@given(documents)
@settings(max_examples=300)
def test_arbitrary_documents(given: Any) -> None:
    check(json.dumps(given).encode("utf-8", "replace"))


@given(mutated())
@settings(max_examples=300)
def test_mutations_of_a_valid_spec(given: Any) -> None:
    check(json.dumps(given).encode("utf-8", "replace"))


@given(st.binary(max_size=60))
def test_arbitrary_bytes(body: bytes) -> None:
    check(body)


@given(st.integers(0, len(json.dumps(VALID)) - 1), st.binary(max_size=3))
@settings(max_examples=200)
def test_a_valid_body_with_some_bytes_replaced(at: int, new: bytes) -> None:
    body = json.dumps(VALID).encode()
    check(body[:at] + new + body[at + len(new) :])
