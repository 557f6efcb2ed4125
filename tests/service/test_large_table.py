"""A table much larger than the worker's memory: uploaded as NPY and tuned in row chunks.

`GRADTUNE_LARGE_ROWS` sets the rows of 50 columns: 10,000,000 are 4 GB; the default is a tenth.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.service.api import Api

ROWS, COLUMNS = int(os.environ.get("GRADTUNE_LARGE_ROWS", "1000000")), 50
MEMORY = 500 * 2**20
PIECE = 100_000


def write_table(path: Path) -> None:
    """Normal features; the last column is a combination of half of them, and noise."""
    rng = np.random.default_rng(0)
    slopes = rng.normal(size=COLUMNS - 1) * (np.arange(COLUMNS - 1) % 2)
    table = np.lib.format.open_memmap(path, "w+", np.float64, (ROWS, COLUMNS))
    for begin in range(0, ROWS, PIECE):
        rows = rng.standard_normal((min(PIECE, ROWS - begin), COLUMNS))
        rows[:, -1] = rows[:, :-1] @ slopes + 3 * rows[:, -1]
        table[begin : begin + len(rows)] = rows
    table.flush()


def pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(2**20):
            yield piece


class Watch(threading.Thread):
    """The most memory that any process below this one has had, its mapped pages included."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak, self.over = 0, threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.02):
            self.peak = max(self.peak, largest())


def largest() -> int:
    sizes = [0]
    for process in psutil.Process().children(recursive=True):
        try:
            if "worker.main" in process.cmdline():
                sizes.append(process.memory_info().rss)
        except psutil.Error:
            continue
    return max(sizes)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_table_is_tuned_in_little_memory(live: Api, tmp_path: Path) -> None:
    path = tmp_path / "table.npy"
    write_table(path)
    began = time.monotonic()
    headers = {"Content-Type": "application/x-npy"}
    reply = live.post("/v1/datasets", content=pieces(path), headers=headers, timeout=1200.0)
    assert reply.status_code == 201, reply.text
    dataset = reply.json()
    path.unlink()
    uploaded = time.monotonic()
    names = [column["name"] for column in dataset["columns"]]
    before = largest()
    watch = Watch()
    watch.start()
    spec = {
        "data": {"dataset_id": dataset["id"], "target": names[-1]},
        "training": {"kind": "ridge", "penalty": {"kind": "per_feature"}},
        "limits": {"seconds": 2000},
    }
    job = live.ended(live.created(spec)["id"], seconds=2000)
    watch.over.set()
    watch.join()
    assert job["status"] == "succeeded", job
    megabytes, seconds = (watch.peak - before) / 2**20, time.monotonic() - uploaded
    print(
        f"{ROWS} rows: upload {uploaded - began:.1f} s, job {seconds:.1f} s, {megabytes:.0f} MB beyond the idle worker"
    )
    assert watch.peak - before < MEMORY
    slopes = {item["feature"]: item["value"] for item in live.result(job["id"])["model"]["coefficients"]}
    assert all(abs(slopes[name]) < 20 / ROWS**0.5 for name in names[:-1:2])
    assert live.delete(f"/v1/datasets/{dataset['id']}").status_code == 204
