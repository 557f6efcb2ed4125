"""What all datasets may take: known before files are made or stopped while they are, for many uploads at once."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import numpy as np
import pyarrow as pa
import pytest

from service.quota import limit_of, size
from service.settings import Settings
from service.uploads import CHUNK
from tests.datasets.files import arrow, npy, parquet
from tests.servers import server
from tests.service.api import Api, serving
from worker import store
from worker.datasets import LocalStorage, open_storage
from worker.datasets.sniff import MEDIA_TYPES

QUOTA = 8 * 2**20
TYPE = {kind: media_type for media_type, kind in MEDIA_TYPES.items()}
ZEROS = pa.table({"a": np.zeros(700_000), "b": np.zeros(700_000)})  # 11.2 MB of a dataset


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    with server(tmp_path_factory.mktemp("quota")) as running:
        data_dir = tmp_path_factory.mktemp("quota-data")
        yield Settings(redis_url=running.url, data_dir=data_dir, dataset_quota_mb=QUOTA / 2**20)


@pytest.fixture(scope="module")
def api(settings: Settings) -> Iterator[Api]:
    with serving(settings) as running:
        yield running


@pytest.fixture(autouse=True)
def _empty(api: Api) -> Iterator[None]:
    yield
    remove_all(api)


def remove_all(api: Api) -> None:
    for entry in api.get("/v1/datasets").json()["data"]:
        assert api.delete(f"/v1/datasets/{entry['id']}").status_code == 204


def upload(api: Api, content: object, kind: str, **headers: str) -> httpx2.Response:
    return api.post("/v1/datasets", content=content, headers={"Content-Type": TYPE[kind], **headers})


def growing_libsvm() -> bytes:
    """Few bytes of text for each entry of 12: 2.3 MB that become 11 MB."""
    return (b"1 " + b" ".join(b"%d:1" % (7 * j + 1) for j in range(8)) + b"\n") * 110_000


LARGE = {
    "known from the metadata": ("parquet", parquet(ZEROS)),
    "known from the header": ("npz", None),
    "seen while it is written": ("arrow", arrow(ZEROS, stream=True, rows=10_000, codec="zstd")),
    "sparse": ("libsvm", None),
}


@pytest.mark.parametrize("case", LARGE)
def test_a_small_file_that_would_take_too_much(api: Api, settings: Settings, case: str, tmp_path: Path) -> None:
    kind, content = LARGE[case]
    if case == "sparse":
        content = growing_libsvm()
    elif content is None:
        np.savez_compressed(tmp_path / "zeros.npz", X=np.zeros((700_000, 2)))
        content = (tmp_path / "zeros.npz").read_bytes()
    assert len(content) < QUOTA
    refused = upload(api, content, kind)
    assert (refused.status_code, refused.json()["code"]) == (507, "storage-full")
    assert "GRADTUNE_DATASET_QUOTA_MB" in refused.json()["detail"]
    if case.startswith("known"):
        assert "takes at least 11200000 bytes" in refused.json()["detail"]
    assert LocalStorage(settings.data_dir / "datasets").workshop.unfinished() == []
    assert api.get("/v1/datasets").json()["data"] == []


def test_uploads_at_once_exceed_it_little(api: Api, settings: Settings) -> None:
    """Each fits by itself, and the first of them does."""
    root = settings.data_dir / "datasets"
    arrays = [np.random.default_rng(seed).normal(size=(2**14, 40)) for seed in range(5)]  # 5.2 MB each
    begun, over = threading.Barrier(len(arrays)), threading.Event()
    peaks: list[int] = []

    def pieces(content: bytes) -> Iterator[bytes]:
        begun.wait()
        for start in range(0, len(content), 2**17):
            yield content[start : start + 2**17]

    def watch() -> None:
        while not over.wait(0.002):
            peaks.append(sum(map(size, LocalStorage(root).workshop.unfinished())) + sum(map(size, published(root))))

    with ThreadPoolExecutor(len(arrays)) as pool:
        watcher = threading.Thread(target=watch)
        watcher.start()
        statuses = list(pool.map(lambda array: upload(api, pieces(npy(array)), "npy").status_code, arrays))
        over.set()
        watcher.join()
    assert sorted(statuses) == [201, 507, 507, 507, 507]
    # of 26 MB in all: each writes one piece between two looks, and may have the next one begun
    assert max(peaks) < QUOTA + 1.5 * len(arrays) * CHUNK
    remove_all(api)
    assert upload(api, npy(arrays[0]), "npy").status_code == 201


def published(root: Path) -> list[Path]:
    return list(LocalStorage(root).directories())


def test_what_describes_a_dataset_counts(api: Api, settings: Settings) -> None:
    """Of one row of many columns that is most."""
    made = upload(api, b",".join(b"c%d" % j for j in range(50)) + b"\n" + b",".join([b"1"] * 50) + b"\n", "csv").json()
    (directory,) = published(settings.data_dir / "datasets")
    on_disk = sum(path.stat().st_size for path in directory.iterdir())
    assert on_disk > 5 * made["stored_bytes"]
    with store.connect(settings.redis_url or "") as client:
        assert store.run(client, store.stored_bytes()) == on_disk


def test_by_default_it_is_half_of_the_disk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings(data_dir=tmp_path / "later" / "data")
    storage = open_storage(None, settings.data_dir)
    with caplog.at_level(logging.INFO):
        limit = limit_of(settings, storage)
    assert limit == pytest.approx(shutil.disk_usage(tmp_path).free / 2, rel=0.02)
    assert "half of what the disk has for them (GRADTUNE_DATASET_QUOTA_MB)" in caplog.text
    # A restart does not halve what is left: what datasets take counts as free.
    directory = settings.data_dir / "datasets" / f"ds_{'0' * 64}"
    directory.mkdir(parents=True)
    with (directory / "dense").open("wb") as file:
        file.truncate(10 * 2**40)
    assert limit is not None
    assert limit_of(settings, storage) == pytest.approx(limit + 5 * 2**40, rel=0.01)
    assert limit_of(settings.model_copy(update={"dataset_quota_mb": 3.0}), storage) == 3 * 2**20
    assert limit_of(settings, object()) is None  # type: ignore[arg-type] - a remote storage
