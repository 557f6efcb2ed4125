"""A million sparse columns with one penalty for each of a thousand groups: time, and memory over the data.

The peak of the process, less what the interpreter and its libraries take, over the bytes of the table; the refit and
the certificates are included.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array

from worker.core.hypergradient import Implicit
from worker.core.outer import Inexact
from worker.core.penalties import PerGroup
from worker.core.rows.problem import Problem
from worker.core.search.descents import Descents
from worker.core.search.plan import Plan, prepare
from worker.core.search.tune import tune
from worker.core.selection import Holdout
from worker.core.training import LogisticRegression
from worker.core.verdict.conclude import conclude


def table(n: int, p: int, filled: int, groups: int) -> tuple[csr_array, np.ndarray]:
    """Columns of every tenth group matter; a row has the same number of values."""
    rng = np.random.default_rng(0)
    columns = np.sort(rng.integers(0, p, (n, filled), dtype=np.int32), axis=1)
    X = csr_array((rng.normal(size=n * filled), columns.ravel(), np.arange(0, n * filled + 1, filled)), shape=(n, p))
    X.sum_duplicates()
    matters = np.arange(p) % groups % 10 == 0
    eta = X @ np.where(matters, rng.normal(size=p), 0.0)
    return X, (rng.uniform(size=n) < 1.0 / (1.0 + np.exp(-2.0 * eta))).astype(float)


def status(field: str) -> int:
    """Bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def child(n: int, p: int, filled: int, groups: int, iterations: int) -> None:
    libraries = status("VmRSS")
    X, y = table(n, p, filled, groups)
    data = X.data.nbytes + X.indices.nbytes + X.indptr.nbytes
    names = tuple(f"x{j}" for j in range(p))
    members = {f"g{g}": names[g::groups] for g in range(groups)}
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    named = status("VmRSS") - libraries - data
    began = time.process_time()
    penalty = PerGroup(groups=members, initial=1e-3, lower=1e-8, upper=1e4)
    training = LogisticRegression(penalty=penalty, standardize=False)
    problem = Problem(X, y, names, classes=("0", "1"))
    prepared = prepare(problem, Plan(training, Holdout(fraction=0.3), Implicit(), Inexact(iterations)))
    ready = time.process_time() - began
    *_, last = tune(prepared)
    tuned, peak = time.process_time() - began, status("VmHWM")
    conclude(prepared, last.best, Descents(prepared).of(last.best, last.starts))
    report = {
        "data": data, "names": named, "ready": ready, "tuned": tuned, "concluded": time.process_time() - began,
        "tuning": peak - libraries, "all": status("VmHWM") - libraries, "evaluations": last.evaluations,
        "first": last.starts[0].initial.value, "last": last.best.best.value,
        "ended": last.ended.code if last.ended else "",
    }  # fmt: skip
    print(json.dumps(report))


def main(*, short: bool) -> None:
    sizes = (
        [(2_000, 20_000, 50, 100, 3)]
        if short
        else [(20_000, 1_000_000, 50, 1000, 10), (80_000, 1_000_000, 50, 1000, 5)]
    )
    for size in sizes:
        command = [sys.executable, "-m", "benchmarks.million_columns", *map(str, size)]
        r = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(
            f"{size[0]} x {size[1]}, {size[2]} values a row, {size[3]} penalties: data {r['data'] / 2**20:.0f} MB, "
            f"names of columns and groups {r['names'] / 2**20:.0f} MB\n"
            f"   ready after {r['ready']:.1f} CPU s, tuned after {r['tuned']:.1f} s ({r['evaluations']} "
            f"evaluations, {r['ended']}, J {r['first']:.5f} to {r['last']:.5f}), "
            f"refitted and certified after {r['concluded']:.1f} s\n"
            f"   peak memory beyond the interpreter over the data: {r['tuning'] / r['data']:.1f} while tuning, "
            f"{r['all'] / r['data']:.1f} in all",
            flush=True,
        )


if __name__ == "__main__":
    child(*map(int, sys.argv[1:]))
