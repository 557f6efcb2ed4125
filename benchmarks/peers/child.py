"""One method on one problem in a process of its own: prints each point with the CPU seconds so far."""

from __future__ import annotations

import json
import resource
import sys
import time
import warnings
from contextlib import suppress

import numpy as np

from benchmarks.peers import methods, mgcv
from benchmarks.peers.tasks import build


class WarmedUp(Exception):  # noqa: N818 - not an error
    """Ends a search that would go on for ever."""


def warm_up(method: str, name: str) -> None:
    points = 0

    def found(_: np.ndarray) -> None:
        nonlocal points
        points += 1
        if points == 2:
            raise WarmedUp

    with suppress(WarmedUp):
        getattr(methods, method)(build(name, "warm-up"), found)


def main(name: str, method: str, size: str, seconds: int) -> None:
    warnings.simplefilter("ignore")
    task = build(name, size)
    if method.startswith("mgcv"):
        for took, rho in mgcv.search(task, method):
            print(json.dumps({"seconds": took, "rho": rho}), flush=True)
        return
    warm_up(method, name)
    began = time.process_time()
    limit = int(np.ceil(began)) + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))  # the process is killed there

    def found(rho: np.ndarray) -> None:
        print(json.dumps({"seconds": time.process_time() - began, "rho": list(map(float, rho))}), flush=True)

    getattr(methods, method)(task, found)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
