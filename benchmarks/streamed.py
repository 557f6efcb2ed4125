"""Many rows streamed from a memory-mapped file: memory beyond the interpreter, and time beside the BLAS alone.

The file is float64, row by row, 4 GB in the full run (`TMPDIR` says where); a last column is the target. `BLAS alone`
is one `dsyrk` for each chunk of rows, read from the same file: what second moments cost at the least.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.linalg import blas

from benchmarks.million_columns import status
from worker.core.hypergradient import Implicit
from worker.core.outer import Newton
from worker.core.penalties import PerFeature
from worker.core.rows.moments import MAX_CHUNK_ROWS, block_moments
from worker.core.rows.problem import Problem
from worker.core.rows.tables import CHUNK_VALUES, rows_at_a_time
from worker.core.search.descents import Descents
from worker.core.search.plan import Plan, prepare
from worker.core.search.tune import tune
from worker.core.selection import KFold
from worker.core.training import Ridge
from worker.core.verdict.conclude import conclude
from worker.datasets.features import CHUNK, release

ROUNDS = 3


@dataclass(frozen=True)
class Mapped:
    """All columns but the last of a mapped table; pages are let go of as soon as they were read."""

    values: np.memmap

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and features."""
        return self.values.shape[0], self.values.shape[1] - 1

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        release(self.values)  # the rows of the call before
        return np.asarray(self.values[rows, :-1])


def write(path: Path, n: int, p: int) -> None:
    rng, size = np.random.default_rng(0), 100_000
    theta = rng.normal(size=p)
    table = np.lib.format.open_memmap(path, "w+", "<f8", (n, p + 1))
    for begin in range(0, n, size):
        rows = table[begin : begin + size]
        rows[:, :-1] = rng.standard_normal((len(rows), p))
        rows[:, -1] = rows[:, :-1] @ theta + 5.0 * rng.standard_normal(len(rows))
        release(table)
    table.flush()


def drop_from_cache(path: Path) -> None:
    """Let the next reader find the file on disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def blas_alone(values: np.memmap) -> None:
    rows = min(rows_at_a_time(values, CHUNK_VALUES), MAX_CHUNK_ROWS)
    M = np.zeros((values.shape[1], values.shape[1]), order="F")
    for begin in range(0, len(values), rows):
        M = blas.dsyrk(1.0, values[begin : begin + rows].T, beta=1.0, c=M, lower=1, overwrite_c=1)
        release(values)


def seconds(f: Callable[[], object]) -> tuple[float, float]:
    """CPU and elapsed."""
    cpu, elapsed = time.process_time(), time.perf_counter()
    f()
    return time.process_time() - cpu, time.perf_counter() - elapsed


def child(path: Path) -> dict[str, Any]:
    libraries = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    values = np.load(path, mmap_mode="r")
    y = np.empty(len(values))
    for begin in range(0, len(y), CHUNK):
        y[begin : begin + CHUNK] = values[begin : begin + CHUNK, -1]
        release(values)
    table = Mapped(values)
    n, p = table.shape
    problem = Problem(table, y, tuple(f"x{j}" for j in range(p)))
    plan = Plan(Ridge(penalty=PerFeature()), KFold(), Implicit(), Newton(tolerance=1e-8))
    partition = plan.selection.partition(np.arange(n), n)
    pairs = [
        (seconds(lambda: block_moments(problem, partition)), seconds(lambda: blas_alone(values)))
        for _ in range(ROUNDS)
    ]  # fmt: skip
    drop_from_cache(path)
    ours_from_disk = seconds(lambda: block_moments(problem, partition))
    drop_from_cache(path)
    from_disk = seconds(lambda: blas_alone(values))
    statistics = status("VmHWM") - libraries
    began = time.process_time()
    prepared = prepare(problem, plan)
    *_, last = tune(prepared)
    tuned = time.process_time() - began
    conclude(prepared, last.best, Descents(prepared).of(last.best, last.starts))
    return {
        "ours": min(pair[0] for pair in pairs), "blas": min(pair[1] for pair in pairs),
        "disk": ours_from_disk, "blas_disk": from_disk, "statistics": statistics,
        "all": status("VmHWM") - libraries, "tuned": tuned, "concluded": time.process_time() - began,
        "evaluations": last.evaluations,
    }  # fmt: skip


def main(*, short: bool) -> None:
    p = 50
    with tempfile.TemporaryDirectory() as directory:
        free = shutil.disk_usage(directory).free // 2
        n = 50_000 if short else min(10_000_000, free // (8 * (p + 1)))
        path = Path(directory, "table.npy")
        write(path, n, p)
        command = [sys.executable, "-m", "benchmarks.streamed", str(path)]
        r = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(
        f"{n} x {p} from a file of {8 * n * (p + 1) / 2**20:.0f} MB, {p} penalties, 5 shuffled folds\n"
        f"   statistics of the folds {r['ours'][0]:.2f} CPU s, BLAS alone {r['blas'][0]:.2f}, "
        f"ratio {r['ours'][0] / r['blas'][0]:.2f}; least of {ROUNDS}, file in the page cache\n"
        f"   file not in the cache: {r['disk'][1]:.1f} s elapsed ({r['disk'][0]:.2f} CPU), BLAS alone "
        f"{r['blas_disk'][1]:.1f} s ({r['blas_disk'][0]:.2f} CPU), ratio {r['disk'][1] / r['blas_disk'][1]:.2f}\n"
        f"   statistics and tuning ({r['evaluations']} evaluations) {r['tuned']:.2f} CPU s, refitted, certified and "
        f"scored after {r['concluded']:.2f} s\n"
        f"   memory beyond the interpreter: {r['statistics'] / 2**20:.0f} MB for the statistics, "
        f"{r['all'] / 2**20:.0f} MB in all, of which the target {8 * n / 2**20:.0f} MB"
    )


if __name__ == "__main__":
    print(json.dumps(child(Path(sys.argv[1]))))
