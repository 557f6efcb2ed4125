"""Reading options over HTTP and on the command line; warnings from the upload to the result of a job."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from service.cli import main
from service.settings import Settings
from tests.datasets.files import npy, parquet
from tests.datasets.test_damage import older
from tests.servers import server
from tests.service.api import Api, faults, serving
from tests.service.tabular import upload
from worker.contract.dataset import ReadingOptions
from worker.contract.reading import dataset_id

PARQUET = "application/vnd.apache.parquet"
EIGHT = 2**53


@pytest.fixture(scope="module")
def shelves(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with server(tmp_path_factory.mktemp("reading")) as running:
        settings = Settings(redis_url=running.url, data_dir=tmp_path_factory.mktemp("shelf"))
        with serving(settings) as api:
            yield api


def send(api: Api, content: bytes, media_type: str = "text/csv", **query: str) -> Any:
    return api.post("/v1/datasets", content=content, params=query, headers={"Content-Type": media_type})


def test_options_are_part_of_what_a_dataset_is(shelves: Api):
    content = b"zip;price\n01234;1,5\n90210;2,25\n"
    assert faults(send(shelves, content)) == [("/columns/1", "decimal_comma")]
    first = send(shelves, content, decimal=",")
    assert (first.status_code, first.json()["options"]["decimal"]) == (201, ",")
    assert [(w["code"], w["count"]) for w in first.json()["warnings"]] == [("leading-zeros", 1)]
    assert first.json()["warnings"][0]["examples"] == [{"row": 0, "value": "01234"}]
    assert send(shelves, content, decimal=",").status_code == 200
    second = send(shelves, content, decimal=",", types="zip:number")
    assert (second.status_code, second.json()["warnings"]) == (201, [])
    sha256 = first.json()["sha256"]
    assert first.json()["id"] == dataset_id(sha256, ReadingOptions(decimal=","))
    assert second.json()["id"] == dataset_id(sha256, ReadingOptions(decimal=",", types={"zip": "number"}))
    for one in (first, second):
        assert shelves.get(f"/v1/datasets/{one.json()['id']}").json() == one.json()
        assert shelves.delete(f"/v1/datasets/{one.json()['id']}").status_code == 204


def test_options_that_are_wrong_or_do_not_fit(shelves: Api):
    assert faults(send(shelves, b"a\n1\n", delimeter=";")) == [("/query/delimeter", "unknown_parameter")]
    assert faults(send(shelves, b"a\n1\n", header="maybe")) == [("/query/header", "invalid_option")]
    table = parquet(pa.table({"a": [1, 2]}))
    assert faults(send(shelves, table, PARQUET, delimiter=";", types="a:category")) == [
        ("/query/delimiter", "unfit_option")
    ]
    assert faults(send(shelves, npy(np.zeros((2, 2))), "application/x-npy", header="true")) == [
        ("/query/header", "unfit_option")
    ]
    assert send(shelves, table, PARQUET, types="a:category").json()["columns"][0]["categories"] == ["1", "2"]


def test_the_charset_is_the_encoding(shelves: Api):
    content = "town,y\nKöln,1\nBonn,2\n".encode("latin-1")
    assert faults(send(shelves, content)) == [("", "encoding")]
    reply = send(shelves, content, "text/csv; charset=ISO-8859-1")
    assert reply.json()["columns"][0]["categories"] == ["Bonn", "Köln"]
    assert send(shelves, content, encoding="latin1").json()["id"] == reply.json()["id"]
    plain = b"a,y\nx,1\n"
    assert send(shelves, plain, "text/csv; charset=utf-8").json()["id"] == send(shelves, plain).json()["id"]
    for media_type in ("text/csv; charset=klingon", "text/csv; charset=utf-8"):
        wrong = send(shelves, content, media_type, encoding="latin1")
        assert faults(wrong) == [("/header/content-type", "invalid_parameter")]
    assert faults(send(shelves, plain, "text/csv; header=present", header="false"))[0][0] == "/header/content-type"


def test_forms_take_options(shelves: Api):
    files = {"file": ("a.csv", b"5.1;x\n4,9;y\n".replace(b".", b","), "text/csv")}
    reply = shelves.post("/v1/datasets", files=files, params={"decimal": ",", "header": "false"})
    assert [column["name"] for column in reply.json()["columns"]] == ["x0", "x1"]


def test_a_mixed_column_over_http(shelves: Api):
    reply = send(shelves, b"a,y\n1,1\n2,2\nabc,3\n")
    assert (reply.status_code, reply.json()["code"]) == (422, "invalid-dataset")
    assert faults(reply) == [("/rows/2/columns/0", "mixed-column")]
    assert send(shelves, b"a,y\n1,1\n2,2\nabc,3\n", missing="abc").json()["columns"][0]["missing"] == 1


def test_a_record_of_an_older_version_has_no_warnings(shelves: Api):
    made = send(shelves, b"old,y\n" + b"1,2\n3,4\n5,7\n" * 5).json()
    storage = shelves.app.state.datasets.storage  # type: ignore[union-attr]
    older(storage.root / made["id"])
    path = storage.root / made["id"] / "manifest.json"
    record = json.loads(path.read_bytes())
    path.write_text(json.dumps({name: value for name, value in record.items() if name not in {"warnings", "options"}}))
    shown = shelves.get(f"/v1/datasets/{made['id']}").json()
    assert (shown["warnings"], shown["options"]) == ([], None)
    spec = {"data": {"dataset_id": made["id"], "target": "y"}, "training": {"kind": "ridge"}}
    assert shelves.post("/v1/jobs?validate_only=true", json=spec).json()["notes"] == []


def test_the_command_line(shelves: Api, tmp_path: Path):
    file = tmp_path / "a.csv"
    file.write_text("zip|price\n01234|1,5\n90210|n.d.\n")
    url = str(shelves.base_url)
    options = ["--decimal", ",", "--missing", "n.d.", "--delimiter", "|", "--header"]
    done = CliRunner().invoke(main, ["datasets", "upload", str(file), *options, "--url", url])
    assert done.exit_code == 0, done.output
    assert "warning: Column 'zip' holds whole numbers with leading zeros" in done.output
    again = CliRunner().invoke(main, ["datasets", "upload", str(file), *options, "--url", url])
    assert "was there already" in again.output
    assert again.output.split()[0] == done.output.split()[0]
    other = CliRunner().invoke(
        main, ["datasets", "upload", str(file), *options, "--types", "zip:number", "--json", "--url", url]
    )
    assert json.loads(other.output)["columns"][0]["type"] == "number"
    wrong = CliRunner().invoke(main, ["datasets", "upload", str(file), "--types", "zip", "--url", url])
    assert (wrong.exit_code, "types=zip:category" in wrong.output) == (2, True)


# jobs


def table_of(ids: list[int]) -> bytes:
    rng = np.random.default_rng(0)
    return parquet(
        pa.table({"g": pa.array(ids, pa.int64()), "x": rng.normal(size=len(ids)), "y": rng.normal(size=len(ids))})
    )


def ended(api: Api, dataset: dict[str, Any], data: dict[str, Any], **rest: Any) -> dict[str, Any]:
    spec = {"data": {"dataset_id": dataset["id"], **data}, "training": {"kind": "ridge"}, **rest}
    job = api.ended(api.created(spec)["id"])
    assert job["status"] == "succeeded", job["error"]
    return api.result(job["id"])


def test_groups_beyond_2_to_the_53_are_as_many_as_there_are(live: Api):
    """And their names do not matter: the numbers are those of small ones."""
    small = np.repeat(np.arange(100, 140), 5).tolist()
    data = {"target": "y", "features": ["x"], "groups": "g"}
    selection = {"kind": "group_k_fold", "folds": 30}
    big = upload(live, table_of([EIGHT + i for i in small]), PARQUET)
    assert big["columns"][0]["distinct"] == 40
    found = ended(live, big, data, selection=selection)
    expected = ended(live, upload(live, table_of(small), PARQUET), data, selection=selection)
    assert found["selection"] == expected["selection"]
    assert [note["code"] for note in found["notes"]] == ["dataset_column"]
    assert "float64" in found["notes"][0]["text"]
    assert found["notes"][0]["text"] in found["messages"]
    assert expected["notes"] == []


def test_warnings_of_columns_that_are_not_used_are_not_repeated(live: Api):
    rows = "".join(f"{i % 7}.5,0{i % 3},{i}\n" for i in range(30))
    dataset = upload(live, f"a,zip,y\n?,01,5\n{rows}".encode(), "text/csv")
    assert {warning["column"] for warning in dataset["warnings"]} == {"a", "zip"}
    spec = {
        "data": {"dataset_id": dataset["id"], "target": "y", "missing": {"default": {}}},
        "training": {"kind": "ridge"},
    }
    every = live.post("/v1/jobs?validate_only=true", json=spec).json()["notes"]
    assert [note["text"] for note in every] == [warning["text"] for warning in dataset["warnings"]]
    spec["data"]["features"] = ["a"]
    assert len(live.post("/v1/jobs?validate_only=true", json=spec).json()["notes"]) == 1


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ([f"{i % 28 + 1:02}/01/2021" for i in range(40)], "ISO 8601"),
        ([str(EIGHT + 1 + i) for i in range(40)], "types=t:number"),
        ([f"00{i}" for i in range(40)], "types=t:number"),
    ],
)
def test_a_role_that_takes_numbers_says_why_a_column_has_none(shelves: Api, values: list[str], word: str):
    content = "t,a,y\n" + "".join(f"{value},{i},{i * 2}\n" for i, value in enumerate(values))
    dataset = send(shelves, content.encode()).json()
    spec = {
        "data": {"dataset_id": dataset["id"], "target": "y", "time": "t"},
        "training": {"kind": "ridge"},
        "selection": {"kind": "walk_forward", "initial": 20, "horizon": 5},
    }
    reply = shelves.create(spec)
    assert faults(reply) == [("/data/time", "not_a_number")]
    assert word in reply.json()["errors"][0]["detail"]
    assert "dates" in reply.json()["errors"][0]["detail"]


def test_labels_beyond_2_to_the_53_in_a_request(shelves: Api):
    spec = {
        "data": {"x": np.random.default_rng(0).normal(size=(12, 1)).tolist(), "y": [EIGHT, EIGHT + 1, 5] * 4},
        "training": {"kind": "multinomial"},
        "selection": {"kind": "k_fold", "folds": 3},
    }
    assert faults(shelves.create(spec)) == [("/data/y/1", "integers-beyond-double")]
    spec["data"]["y"] = [str(label) for label in spec["data"]["y"]]  # type: ignore[index]
    described = shelves.post("/v1/jobs?validate_only=true", json=spec).json()["spec"]["data"]
    assert described["classes"] == ["5", str(EIGHT), str(EIGHT + 1)]
