"""Uploads to the real program: killed in the middle of one, and with its datasets in an object store."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tests.datasets.files import npy
from tests.service.api import eventually
from tests.system.processes import Running, Service, service
from worker.datasets import DatasetGoneError, LocalStorage, StorageError, open_storage, open_table
from worker.datasets.remote import RemoteStorage
from worker.embedded import die_with_parent

MATRIX = np.random.default_rng(0).normal(size=(200_000, 5))
KIND = {"Content-Type": "application/x-npy"}


def half_an_upload(running: Service, content: bytes) -> http.client.HTTPConnection:
    """A connection on which half of the body has been sent."""
    connection = http.client.HTTPConnection(urlsplit(running.url).netloc, timeout=30)
    connection.putrequest("POST", "/v1/datasets")
    connection.putheader("Content-Type", KIND["Content-Type"])
    connection.putheader("Content-Length", str(len(content)))
    connection.endheaders()
    connection.send(content[: len(content) // 2])
    return connection


def test_a_killed_api_leaves_no_half_object(tmp_path: Path):
    content = npy(MATRIX)
    storage = LocalStorage(tmp_path / "datasets")
    with service(tmp_path) as running:
        api = running.part("api")
        connection = half_an_upload(running, content)
        eventually(lambda: any(path.iterdir() for path in storage.workshop.unfinished()))
        eventually(lambda: len(api.children(recursive=True)) == 2)  # the reader and its child, at work already
        families = api.children(recursive=True)
        api.kill()
        connection.close()
        eventually(lambda: not any(process.is_running() and process.status() != "zombie" for process in families))
        eventually(lambda: storage.workshop.unfinished() == [])
        assert list(storage.ids()) == []
        eventually(lambda: running.api.get("/healthz").status_code == 200)
        assert running.api.post("/v1/datasets", content=content, headers=KIND).status_code == 201
        assert_array_equal(open_table(storage, next(storage.ids())).dense, MATRIX)
        assert running.stop() == 0


@contextmanager
def s3(tmp_path: Path) -> Iterator[str]:
    """A local S3 server; its URL."""
    with (tmp_path / "s3.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.system.s3"],
            stdout=subprocess.PIPE,
            stderr=log,
            preexec_fn=die_with_parent(os.getpid(), signal.SIGTERM),  # noqa: PLW1509 - should the tests be killed
        )
    assert process.stdout is not None
    try:
        with process.stdout:
            yield process.stdout.readline().decode().strip()
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """The environment of who keeps datasets in a bucket."""
    with s3(tmp_path) as url:
        environment = {
            "AWS_ENDPOINT_URL": url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "x",
            "AWS_REGION": "us-east-1",
            "GRADTUNE_STORAGE_URL": "s3://tables/some/prefix",
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield environment


def machine(path: Path, cache_mb: float = 100.0) -> RemoteStorage:
    """What a worker on a machine of its own sees."""
    storage = open_storage("s3://tables/some/prefix", path, cache_mb)
    assert isinstance(storage, RemoteStorage)
    return storage


def test_datasets_in_an_object_store(tmp_path: Path, bucket: dict[str, str]):
    contents = [npy(MATRIX + i) for i in range(3)]
    with service(tmp_path / "api", **bucket) as running:
        replies = [running.api.post("/v1/datasets", content=content, headers=KIND) for content in contents]
        assert [reply.status_code for reply in replies] == [201] * 3
        assert running.api.post("/v1/datasets", content=contents[0], headers=KIND).status_code == 200
        documents = [reply.json() for reply in replies]
        assert running.api.get(documents[0]["links"]["self"]).json() == documents[0]
        assert len(running.api.get(documents[0]["links"]["preview"]).json()["rows"]) == 100
        names = [document["id"] for document in documents]
        assert not (tmp_path / "api" / "datasets").exists()

        elsewhere = machine(tmp_path / "worker", cache_mb=17)  # two of 8 MB
        assert sorted(elsewhere.ids()) == sorted(names)
        for i, name in enumerate(names):
            assert_array_equal(open_table(elsewhere, name).dense, MATRIX + i)
        copies = {path.name for path in elsewhere.cache.root.iterdir() if path.is_dir()}
        assert copies == set(names[1:])
        damaged = elsewhere.cache.root / names[1] / "content"
        damaged.write_bytes(b"short")
        assert_array_equal(open_table(elsewhere, names[1]).dense, MATRIX + 1)

        assert running.api.delete(documents[0]["links"]["self"]).status_code == 204
        with pytest.raises(DatasetGoneError):
            open_table(elsewhere, names[0])
        assert sorted(elsewhere.ids()) == sorted(names[1:])
        forge(elsewhere, names[2])
        with pytest.raises(StorageError, match="hash"):
            open_table(machine(tmp_path / "third"), names[2])
        assert elsewhere.workshop.unfinished() == []
        assert running.stop() == 0


def forge(storage: RemoteStorage, name: str) -> None:
    """Change one byte of what is stored."""
    import obstore  # noqa: PLC0415

    content = bytearray(storage.read(name, "content") or b"")
    content[-1] ^= 1
    obstore.put(storage.store, f"{name}/content", bytes(content))


def gradtune(*arguments: str, log: Path) -> tuple[int, str]:
    """Run a command to its end: exit status and output."""
    process = Running(*arguments, log=log)
    try:
        out, _ = process.process.communicate(timeout=60)
        return process.process.returncode, out
    finally:
        process.end()


def test_the_command_line(tmp_path: Path):
    file = tmp_path / "table.csv"
    file.write_text("a,b,y\n" + "".join(f"{i},{i % 7},{2 * i + i % 7}\n" for i in range(50)))
    log = tmp_path / "log"
    with service(tmp_path / "data") as running:
        url = ("--url", running.url)
        status, out = gradtune("datasets", "upload", str(file), "--json", *url, log=log)
        document = json.loads(out)
        assert (status, document["rows"]) == (0, 50)
        status, out = gradtune("datasets", "upload", str(file), *url, log=log)
        assert (status, out.split()[0]) == (0, document["id"])
        assert document["id"] in gradtune("datasets", "list", *url, log=log)[1]
        shown = gradtune("datasets", "show", document["id"], *url, log=log)[1]
        assert "a " in shown
        assert "number" in shown
        spec = tmp_path / "spec.json"
        spec.write_text(json.dumps({"data": {"target": "y"}, "training": {"kind": "ridge"}}))
        submit = ("submit", str(spec), "--data", str(file), "--wait", "--json")
        status, out = gradtune(*submit, *url, log=log)
        result = json.loads(out)
        assert (status, [part["feature"] for part in result["model"]["coefficients"]]) == (0, ["a", "b"])
        assert len(running.api.get("/v1/datasets").json()["data"]) == 1  # what is there is not sent again
        status, _ = gradtune("datasets", "delete", document["id"], *url, log=log)
        assert (status, running.api.get("/v1/datasets").json()["data"]) == (0, [])
        assert gradtune("datasets", "show", document["id"], *url, log=log)[0] == 1
        file.write_text("a,a\n1,2\n")
        status, _ = gradtune("datasets", "upload", str(file), *url, log=log)
        assert status == 1
        assert "/columns/1" in log.read_text()
        assert running.stop() == 0
