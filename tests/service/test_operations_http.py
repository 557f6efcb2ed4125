"""Probes, catalog and the OpenAPI document."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from service import openapi
from service.catalog import FAMILIES
from tests.contract.specs import document
from tests.service.api import DOCUMENT, Api
from worker.contract.spec import JobSpec

ROOT = Path(__file__).parents[2]
ERRORS_EVERYWHERE = {"401", "500", "503"}


def test_alive_without_a_worker_but_not_ready(api: Api) -> None:
    assert api.get("/healthz").json() == {"status": "ok"}
    reply = api.get("/readyz")
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
    assert "worker" in reply.json()["detail"]


def test_ready_with_a_worker(live: Api) -> None:
    reply = live.get("/readyz")
    assert reply.status_code == 200
    assert reply.json()["workers"] == 1


def test_the_catalog_describes_what_specs_can_name(api: Api) -> None:
    catalog = api.get("/v1/catalog").json()
    assert set(catalog) == set(FAMILIES)
    spec = document(training__penalty={"kind": "shared", "initial": 2}, outer={"kind": "lbfgs", "starts": 2})
    parts = [("training", spec["training"]), ("penalty", spec["training"]["penalty"]), ("outer", spec["outer"])]
    for family, part in parts:
        for entry in catalog[family]:
            Draft202012Validator.check_schema(entry["json_schema"])
            fits = Draft202012Validator(entry["json_schema"]).is_valid(part)
            assert fits == (entry["kind"] == part["kind"])
    (ridge,) = [entry for entry in catalog["training"] if entry["kind"] == "ridge"]
    assert not Draft202012Validator(ridge["json_schema"]).is_valid({"kind": "ridge", "unknown": 1})
    assert not Draft202012Validator(ridge["json_schema"]).is_valid({})


def test_the_openapi_document_is_valid() -> None:
    assert DOCUMENT["openapi"] == "3.1.0"
    validate(DOCUMENT)


def test_the_committed_openapi_document_is_current() -> None:
    """If this fails: `python -m service.openapi > openapi.json`, and look at what has changed."""
    assert (ROOT / "openapi.json").read_text() == openapi.document()


def test_the_served_document_is_the_committed_one(api: Api) -> None:
    served = api.get("/openapi.json").json()
    committed = json.loads((ROOT / "openapi.json").read_text())
    served["paths"].pop("/test/crash")  # the bug that these tests add
    assert served == committed


def test_every_operation_documents_its_errors_as_problems() -> None:
    problem = {"$ref": "#/components/schemas/ProblemDocument"}
    for path, operations in DOCUMENT["paths"].items():
        for operation in operations.values():
            errors = {status: reply for status, reply in operation["responses"].items() if status >= "400"}
            assert path == "/healthz" or set(errors) >= ERRORS_EVERYWHERE
            for reply in errors.values():
                assert reply["content"] == {"application/problem+json": {"schema": problem}}
                assert reply["description"]


def test_the_document_names_nothing_by_its_python_module() -> None:
    names = set(DOCUMENT["components"]["schemas"])
    assert not any("__" in name for name in names)
    assert {"OuterAuto", "HypergradientAuto", "JobSpec", "ProblemDocument"} <= names
    operations = [operation["operationId"] for path in DOCUMENT["paths"].values() for operation in path.values()]
    assert len(set(operations)) == len(operations)
    assert "create_job" in operations


@pytest.mark.parametrize(
    ("spec", "fits"),
    [
        (document(), True),
        (document(outer__kind="auto", hypergradient__kind="auto"), True),
        (document(training__penalty={"kind": "per_group", "groups": {"a": ["x0", "x1", "x2"]}}), True),
        (document(training={}), False),
        (document(training__penalty={}), False),
        (document(training__penalty={"kind": "shared", "groups": {}}), False),
        (document(outer={"kind": "newton", "starts": 0}), False),
        (document(unknown=1), False),
        ({}, False),
    ],
)
def test_the_schema_of_a_spec_agrees_with_its_parser(spec: dict[str, object], fits: bool) -> None:
    schema = {"$ref": "#/components/schemas/JobSpec", "components": DOCUMENT["components"]}
    assert Draft202012Validator(schema).is_valid(spec) == fits
    try:
        JobSpec.model_validate_json(json.dumps(spec))
    except ValueError:
        assert not fits
    else:
        assert fits
