"""Files that are small and become large, or never end: the reader's limits hold, the service does not notice."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pytest

from service.settings import Settings
from tests.datasets.files import arrow, npy, parquet
from tests.servers import server
from tests.service.api import Api, eventually, serving
from worker.datasets import LocalStorage

MANY = 20_000_000  # values: 160 MB


def zeros() -> pa.Table:
    return pa.table({"a": pa.array(np.zeros(MANY))})


def zipped(array: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
        file.writestr("x.npy", array)
    return buffer.getvalue()


BOMBS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "arrow zstd": (
        "application/vnd.apache.arrow.file",
        lambda: arrow(zeros(), rows=MANY, codec="zstd"),
    ),
    "arrow stream zstd": (
        "application/vnd.apache.arrow.stream",
        lambda: arrow(zeros(), stream=True, rows=MANY, codec="zstd"),
    ),
    "parquet": (
        "application/vnd.apache.parquet",
        lambda: parquet(zeros(), compression="zstd", row_group_size=MANY, use_dictionary=False, write_statistics=False),
    ),
    "npz": ("application/x-npz", lambda: zipped(npy(np.zeros(MANY)))),
    "npy with a lying header": (
        "application/x-npy",
        lambda: npy(np.zeros(10)).replace(b"(10,), }   ", b"(10000000000,), }")[:-8],
    ),
}


@pytest.fixture(scope="module")
def tight(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    data = tmp_path_factory.mktemp("tight")
    with server(data) as embedded:
        limits = {"dataset_max_values": 10_000_000, "dataset_memory_mb": 64, "dataset_seconds": 2}
        settings = Settings(redis_url=embedded.url, data_dir=data, **limits)
        with serving(settings) as api:
            yield api


def reader(api: Api) -> psutil.Process:
    """The reader process of the API, which runs in this process."""
    started = api.app.state.datasets._readers._process  # type: ignore[union-attr]
    return psutil.Process(started.pid)


def nothing_is_left(api: Api) -> None:
    storage = LocalStorage(Path(api.app.state.settings.data_dir) / "datasets")  # type: ignore[union-attr]
    eventually(lambda: storage.workshop.unfinished() == [])
    assert list(storage.ids()) == []
    process = reader(api)
    eventually(lambda: process.children() == [])


@pytest.mark.parametrize("name", BOMBS)
def test_bombs(tight: Api, name: str):
    kind, make = BOMBS[name]
    content = make()
    assert len(content) < 2**20
    reply = tight.post("/v1/datasets", content=content, headers={"Content-Type": kind})
    assert (reply.status_code, reply.json()["code"]) in {(413, "dataset-too-large"), (422, "invalid-dataset")}, (
        reply.text
    )
    nothing_is_left(tight)


def test_a_text_without_an_end(tight: Api):
    """A column of ever new texts takes memory; a reader that takes too long is ended, and the next file is read."""
    rows = b"".join(b"%d-%d\n" % (i, i * 7919) for i in range(1_100_000))
    reply = tight.post("/v1/datasets", content=b"text\n" + rows, headers={"Content-Type": "text/csv"})
    assert (reply.status_code, reply.json()["code"]) == (413, "dataset-too-large")
    nothing_is_left(tight)


def test_a_reader_that_is_killed(tight: Api):
    assert tight.post("/v1/datasets", content=b"a\n", headers={"Content-Type": "text/csv"}).status_code == 422
    before = reader(tight)
    before.kill()
    before.wait(10)
    reply = tight.post("/v1/datasets", content=b"a\n1\n", headers={"Content-Type": "text/csv"})
    assert reply.status_code == 201
    assert tight.delete(reply.json()["links"]["self"]).status_code == 204
    nothing_is_left(tight)
