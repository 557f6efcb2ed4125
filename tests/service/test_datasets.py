"""Datasets over HTTP: uploads of every kind, what is refused, and that nothing is left of what is refused."""

from __future__ import annotations

import base64
import gzip
import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import numpy as np
import pytest
import zstandard

from service.settings import Settings
from tests.datasets.files import npy, samples
from tests.servers import server
from tests.service.api import Api, eventually, faults, serving
from worker import store
from worker.datasets import LocalStorage, open_table
from worker.datasets.sniff import MEDIA_TYPES
from worker.embedded import EmbeddedServer
from worker.queue import delivery

SAMPLES = samples()
TYPE = {kind: media_type for media_type, kind in MEDIA_TYPES.items()}
MATRIX = np.random.default_rng(0).normal(size=(50_000, 20))


def media_type(name: str) -> str:
    return "application/vnd.apache.arrow.file" if name == "arrow file" else TYPE[SAMPLES[name][0]]


@pytest.fixture(scope="module")
def shelf_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with server(tmp_path_factory.mktemp("datasets")) as running:
        yield running


@pytest.fixture(scope="module")
def settings(shelf_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(redis_url=shelf_server.url, data_dir=tmp_path_factory.mktemp("shelf"), dataset_quota_mb=512)


@pytest.fixture(scope="module")
def shelves(settings: Settings) -> Iterator[Api]:
    with serving(settings) as running:
        yield running


@pytest.fixture(scope="module")
def small(settings: Settings) -> Iterator[Api]:
    """The same service with narrow limits."""
    limits = {"dataset_max_mb": 4, "dataset_max_values": 100_000, "dataset_max_columns": 100, "dataset_memory_mb": 64}
    with serving(settings.model_copy(update={**limits, "dataset_seconds": 5})) as running:
        yield running


@pytest.fixture
def storage(settings: Settings) -> LocalStorage:
    return LocalStorage(settings.data_dir / "datasets")


@pytest.fixture(autouse=True)
def _nothing_is_left(request: pytest.FixtureRequest, storage: LocalStorage, shelf_server: EmbeddedServer):
    """After each test every dataset on the disk is one of the index, and nothing is half done."""
    yield
    eventually(lambda: storage.workshop.unfinished() == [], 10)
    with store.connect(shelf_server.url) as client:
        page, _ = store.run(client, store.datasets(limit=1000))
        assert {entry.id for entry in page} == set(storage.ids())
        for name in storage.ids():
            store.run(client, store.remove_dataset(name))
            storage.delete(name)
            store.run(client, store.forget_doomed(name))


def upload(api: Api, content: Any, kind: str = "text/csv", **headers: str) -> httpx2.Response:
    return api.post("/v1/datasets", content=content, headers={"Content-Type": kind, **headers})


def digest(content: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(content).digest()).decode()}:"


# what is there


@pytest.mark.parametrize("sniffed", [False, True])
@pytest.mark.parametrize("name", SAMPLES)
def test_a_file_of_every_kind(shelves: Api, storage: LocalStorage, name: str, sniffed: bool):
    content = SAMPLES[name][1]
    kind = "application/octet-stream" if sniffed else media_type(name)
    reply = upload(shelves, content, kind)
    assert reply.status_code == 201, reply.text
    document = reply.json()
    assert document["id"] == f"ds_{hashlib.sha256(content).hexdigest()}"
    assert (document["format"], document["bytes"]) == (SAMPLES[name][0], len(content))
    assert reply.headers["location"] == document["links"]["self"]
    assert shelves.get(document["links"]["self"]).json() == document
    again = upload(shelves, content, kind)
    assert (again.status_code, again.json()) == (200, document)
    shown = shelves.get(document["links"]["preview"]).json()
    assert shown["columns"] == [column["name"] for column in document["columns"]]
    table = open_table(storage, document["id"])
    assert (table.dataset.rows, len(shown["rows"])) == (document["rows"], document["rows"] if shown["columns"] else 0)


def test_list_read_delete(shelves: Api, storage: LocalStorage):
    ids = [upload(shelves, f"a,b\n{i},2\n".encode()).json()["id"] for i in range(5)]
    first = shelves.get("/v1/datasets", params={"limit": 3}).json()
    rest = shelves.get("/v1/datasets", params={"limit": 3, "cursor": first["next_cursor"]}).json()
    listed = first["data"] + rest["data"]
    assert [item["id"] for item in listed] == ids[::-1]
    assert rest["next_cursor"] is None
    assert (listed[0]["rows"], listed[0]["columns"], listed[0]["jobs"], listed[0]["format"]) == (1, 2, 0, "csv")
    assert shelves.delete(f"/v1/datasets/{ids[0]}").status_code == 204
    for path in ("", "/preview"):
        assert shelves.get(f"/v1/datasets/{ids[0]}{path}").status_code == 404
    assert shelves.delete(f"/v1/datasets/{ids[0]}").status_code == 404
    assert ids[0] not in set(storage.ids())
    assert faults(shelves.get("/v1/datasets", params={"cursor": "x"})) == [("/query/cursor", "invalid_cursor")]


@pytest.mark.parametrize("name", ["ds_0", "ds_" + "g" * 64, "..", "ds_" + "0" * 63 + "/x", "ds_" + "0" * 64])
def test_an_unknown_id(shelves: Api, name: str):
    assert shelves.get(f"/v1/datasets/{name}").status_code in {404, 200 if name == ".." else 404}
    assert shelves.delete(f"/v1/datasets/{name}").status_code in {404, 405 if name == ".." else 404}


def test_a_deleted_dataset_can_be_uploaded_again(shelves: Api):
    for _ in range(2):
        reply = upload(shelves, b"a\n1\n")
        assert reply.status_code == 201
        assert shelves.delete(reply.json()["links"]["self"]).status_code == 204


def test_a_live_job_keeps_its_dataset(shelves: Api, shelf_server: EmbeddedServer):
    link = upload(shelves, b"a,b\n1,2\n").json()["links"]["self"]
    name = link.rpartition("/")[2]
    with store.connect(shelf_server.url) as client:
        job = store.Submission("job_" + "0" * 24, b"{}", b"", "f", 9.0, dataset=name)
        assert store.run(client, store.submit(job, delivery(job.id)))
        assert shelves.get("/v1/datasets").json()["data"][0]["jobs"] == 1
        refused = shelves.delete(link)
        assert (refused.status_code, refused.json()["code"]) == (409, "dataset-in-use")
        store.run(client, store.cancel(job.id))
    assert shelves.delete(link).status_code == 204


# bodies


@pytest.mark.parametrize("size", [1, 1000, 200_000])
@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_compressed_bodies(shelves: Api, encoding: str, size: int):
    content = b"a,b\n" + b"1,2\n3,4\n" * size
    parts = [content[: size * 3], content[size * 3 :]]  # two members, two frames
    body = b"".join(gzip.compress(p) if encoding == "gzip" else zstandard.compress(p) for p in parts)
    headers = {"Content-Encoding": encoding, "Content-Digest": digest(body)}
    reply = upload(shelves, body, **headers)
    assert reply.status_code == 201, reply.text
    assert reply.json()["sha256"] == hashlib.sha256(content).hexdigest()
    assert upload(shelves, content).status_code == 200
    for cut in (1, len(body) // 2, len(body) - 1):
        refused = upload(shelves, body[:cut], **{"Content-Encoding": encoding})
        pointer, code = faults(refused)[0]
        assert (pointer, code in {"truncated", "broken"}) == ("/header/content-encoding", True)
    for noise in (b"no " + body, body + b"no"):
        assert faults(upload(shelves, noise, **{"Content-Encoding": encoding})) == [
            ("/header/content-encoding", "broken")
        ]


def test_an_unknown_encoding(shelves: Api):
    assert upload(shelves, b"a\n1\n", **{"Content-Encoding": "br"}).status_code == 415


def test_digests(shelves: Api):
    content = b"a\n1\n"
    assert upload(shelves, content, **{"Content-Digest": f"sha-512=:AAAA:, {digest(content)}"}).status_code == 201
    assert faults(upload(shelves, content, **{"Content-Digest": digest(b"other")})) == [
        ("/header/content-digest", "mismatch")
    ]
    for wrong in ("sha-256=abc", "sha-256=:AAAA:", "sha-256=:!:"):
        assert faults(upload(shelves, content, **{"Content-Digest": wrong})) == [
            ("/header/content-digest", "invalid_digest")
        ]


@pytest.mark.parametrize("name", ["csv", "npy", "npz csr"])
def test_forms_of_browsers(shelves: Api, name: str):
    content = SAMPLES[name][1]
    files = {"file": ("x", content, media_type(name))}
    reply = shelves.post("/v1/datasets", files=files, data={"other": "field"})
    assert reply.status_code == 201, reply.text
    assert upload(shelves, content, "application/octet-stream").status_code == 200


@pytest.mark.parametrize(
    "kind", ["application/vnd.ms-excel", "text/plain; charset=utf-8", "text/tab-separated-values", "text/x-csv",
             "application/csv", "application/x-zip-compressed", "application/octet-stream", ""],
)  # fmt: skip
@pytest.mark.parametrize("name", ["csv", "npz", "parquet"])
def test_the_type_that_a_browser_takes_from_its_system_says_nothing(shelves: Api, name: str, kind: str):
    content = SAMPLES[name][1]
    said = f"\r\nContent-Type: {kind}" if kind else ""
    head = f'--x\r\nContent-Disposition: form-data; name="file"; filename="a"{said}\r\n\r\n'
    reply = upload(shelves, head.encode() + content + b"\r\n--x--\r\n", "multipart/form-data; boundary=x")
    assert (reply.status_code, reply.json()["format"]) == (201, SAMPLES[name][0])
    assert upload(shelves, content, "application/octet-stream").status_code == 200


def test_a_form_of_another_type(shelves: Api):
    for kind in ("image/png", "application/json", "application/pdf"):
        assert shelves.post("/v1/datasets", files={"file": ("a", b"a\n1\n", kind)}).status_code == 415
    wrong = shelves.post("/v1/datasets", files={"file": ("a", SAMPLES["npz"][1], "text/csv")})
    assert wrong.status_code == 415


def test_a_form_without_a_file(shelves: Api):
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename=""\r\n'
    kind = "multipart/form-data; boundary=x"
    typed = head + b"Content-Type: application/octet-stream\r\n\r\n\r\n--x--\r\n"
    for body in (typed, head + b"\r\n\r\n--x--\r\n"):
        reply = upload(shelves, body, kind)
        assert (reply.status_code, faults(reply)) == (422, [("", "form")])
        assert "No file was chosen" in reply.json()["errors"][0]["detail"]
    also = typed.removesuffix(b"--x--\r\n") + b'--x\r\nContent-Disposition: form-data; name="b"; filename="b"\r\n\r\n'
    assert upload(shelves, also + b"a\n1\n\r\n--x--\r\n", kind).status_code == 201
    unnamed = head + b"\r\na\n1\n\r\n--x--\r\n"
    assert upload(shelves, unnamed, kind).status_code == 200
    texts = upload(shelves, b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--x--\r\n', kind)
    assert "no file" in texts.json()["errors"][0]["detail"]


def test_a_415_says_what_is_taken(shelves: Api):
    """RFC 9110, 15.5.16."""
    for headers in ({"Content-Type": "image/png"}, {}, {"Content-Type": "application/x-npy"}):
        reply = shelves.post("/v1/datasets", content=b"x", headers=headers)
        assert reply.status_code == 415
        assert set(MEDIA_TYPES) < set(reply.headers["accept"].split(", "))
    reply = upload(shelves, b"a\n1\n", **{"Content-Encoding": "br"})
    assert (reply.headers["accept-encoding"], "accept" in reply.headers) == ("gzip, zstd, identity", False)
    reply = shelves.post("/v1/jobs", content=b"{}", headers={"Content-Type": "text/csv"})
    assert (reply.status_code, reply.headers["accept"]) == (415, "application/json")


def test_broken_forms(shelves: Api):
    two = [("file", ("a", b"a\n1\n", "text/csv")), ("file", ("b", b"a\n1\n", "text/csv"))]
    assert faults(shelves.post("/v1/datasets", files=two)) == [("", "form")]
    kind = "multipart/form-data; boundary=x"
    for body in (b"", b"--y\r\n", b'--x\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\na\n1\n'):
        assert faults(upload(shelves, body, kind)) == [("", "form")]
    assert faults(upload(shelves, b"", "multipart/form-data")) == [("/header/content-type", "boundary")]
    no_file = b'--x\r\nContent-Disposition: form-data; name="f"\r\n\r\na\r\n--x--\r\n'
    assert faults(upload(shelves, no_file, kind)) == [("", "form")]


def test_the_header_parameter(shelves: Api):
    """It is the option `header`, and as such a part of what the dataset is."""
    years = b"1990,1991\n1,2\n"
    assert faults(upload(shelves, years, "text/csv")) == [("/rows/0", "header")]
    reply = upload(shelves, years, "text/csv; charset=utf-8; header=present")
    assert [column["name"] for column in reply.json()["columns"]] == ["1990", "1991"]
    other = upload(shelves, years, "text/csv; header=absent")
    assert (other.status_code, other.json()["rows"]) == (201, 2)
    assert other.json()["id"] != reply.json()["id"]
    wrong = upload(shelves, years, "text/csv; header=maybe")
    assert faults(wrong) == [("/header/content-type", "invalid_parameter")]


def test_the_same_bytes_in_another_format(shelves: Api):
    content = b"1 1:2\n"
    assert upload(shelves, content, "text/x-libsvm").status_code == 201
    assert upload(shelves, content, "text/csv").status_code == 409


# refusals


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("kind", [*MEDIA_TYPES, "application/json", "text/plain", ""])
def test_wrong_content_types(shelves: Api, name: str, kind: str):
    """A type that contradicts the content is refused; one text can be mistaken for another."""
    text, declared = SAMPLES[name][0] in {"csv", "libsvm"}, MEDIA_TYPES.get(kind)
    if kind == media_type(name) or (text and declared in {"csv", "libsvm"}):
        return
    assert upload(shelves, SAMPLES[name][1], kind).status_code == 415


@pytest.mark.parametrize(
    ("content", "kind", "hint"),
    [
        (gzip.compress(b"a\n1\n", mtime=0), "text/csv", "Content-Encoding: gzip"),
        (zstandard.compress(b"a\n1\n"), "application/octet-stream", "Content-Encoding: zstd"),
        (b"\x89HDF\r\n\x1a\n", "application/octet-stream", "HDF5"),
    ],
)
def test_hints_for_files_that_are_not_read(shelves: Api, content: bytes, kind: str, hint: str):
    reply = upload(shelves, content, kind)
    assert reply.status_code == 415
    assert hint in reply.json()["detail"]


def test_a_problem_names_the_place(shelves: Api):
    reply = upload(shelves, b"a,b\n1,2\n3,inf\n")
    assert (reply.status_code, reply.json()["code"]) == (422, "invalid-dataset")
    assert faults(reply) == [("/rows/1/columns/1", "infinite")]
    assert faults(upload(shelves, b"", "text/csv")) == [("", "empty")]
    assert faults(upload(shelves, b"", "application/x-npy")) == [("/header", "npy_header")]


def test_the_limit_of_bytes(small: Api):
    for headers in ({}, {"Transfer-Encoding": "chunked"}):
        content: Any = iter([b"a\n"] + [b"1\n" * 500_000] * 5) if headers else b"a\n" + b"1\n" * 3_000_000
        reply = upload(small, content)
        assert (reply.status_code, reply.json()["code"]) == (413, "dataset-too-large")
    bomb = gzip.compress(b"a\n" + b"1\n" * 10_000_000, 9)
    assert upload(small, bomb, **{"Content-Encoding": "gzip"}).status_code == 413
    bomb = zstandard.compress(b"a\n" + b"1\n" * 10_000_000)
    assert upload(small, bomb, **{"Content-Encoding": "zstd"}).status_code == 413


def test_the_quota(shelves: Api, settings: Settings):
    with serving(settings.model_copy(update={"dataset_quota_mb": 1.0})) as tight:
        assert upload(tight, npy(MATRIX[:5000]), TYPE["npy"]).status_code == 201
        full = upload(tight, npy(MATRIX[1:5000]), TYPE["npy"])
        assert (full.status_code, full.json()["code"]) == (507, "storage-full")
        full = upload(tight, npy(MATRIX), TYPE["npy"])
        assert full.status_code == 507
    evicting = {"dataset_quota_mb": 1.0, "dataset_eviction": True}
    with serving(settings.model_copy(update=evicting)) as roomy:
        assert upload(roomy, npy(MATRIX[1:5000]), TYPE["npy"]).status_code == 201
        assert len(roomy.get("/v1/datasets").json()["data"]) == 1


# large, many, interrupted


def test_a_large_file_is_read_while_it_comes(shelves: Api, storage: LocalStorage):
    for array in (MATRIX, np.asfortranarray(MATRIX), MATRIX.astype("f4")):
        content = npy(array)
        pieces = (content[i : i + 100_000] for i in range(0, len(content), 100_000))
        reply = upload(shelves, pieces, TYPE["npy"])
        assert reply.status_code == 201, reply.text
        assert np.array_equal(open_table(storage, reply.json()["id"]).dense, array)


def test_a_fault_ends_an_upload_before_its_end(shelves: Api):
    broken = MATRIX.copy()
    broken[7, 3] = np.inf
    content = npy(broken)
    sent = 0

    def pieces() -> Iterator[bytes]:
        nonlocal sent
        for i in range(0, len(content), 100_000):
            sent += 1
            yield content[i : i + 100_000]

    reply = upload(shelves, pieces(), TYPE["npy"])
    assert faults(reply) == [("/rows/7/columns/3", "infinite")]


def test_a_large_file_that_is_cut_off(shelves: Api):
    content = npy(MATRIX)
    assert faults(upload(shelves, content[:-8], TYPE["npy"])) == [("", "length")]
    assert faults(upload(shelves, content + b"12345678", TYPE["npy"])) == [("", "length")]


def test_a_hundred_uploads_of_the_same_bytes(shelves: Api, storage: LocalStorage):
    content = npy(MATRIX[:2000])
    url = str(shelves.base_url)
    start = threading.Barrier(20)

    def client(_: int) -> list[int]:
        with Api(url) as api:
            start.wait()
            return [upload(api, content, TYPE["npy"]).status_code for _ in range(5)]

    with ThreadPoolExecutor(20) as pool:
        statuses = [status for part in pool.map(client, range(20)) for status in part]
    assert sorted(statuses) == [200] * 99 + [201]
    assert len(list(storage.ids())) == 1


def test_a_client_that_goes_away_leaves_nothing(shelves: Api, storage: LocalStorage):
    content = npy(MATRIX)

    def pieces() -> Iterator[bytes]:
        yield content[:3_000_000]
        eventually(lambda: storage.workshop.unfinished() != [])
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        upload(shelves, pieces(), TYPE["npy"])
    eventually(lambda: storage.workshop.unfinished() == [])


def test_the_index_is_made_again_from_the_storage(shelves: Api, settings: Settings, shelf_server: EmbeddedServer):
    document = upload(shelves, b"a,b\n1,2\n").json()
    with store.connect(shelf_server.url) as client:
        client.flushall()
    assert shelves.get(document["links"]["self"]).status_code == 404
    with serving(settings) as restarted:
        eventually(lambda: restarted.get(document["links"]["self"]).status_code == 200)
        assert restarted.get(document["links"]["self"]).json() == document
