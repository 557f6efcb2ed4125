"""Run the named benchmarks, or all of them.

`--short` takes small sizes, for CI. `--data DIR`, or the variable `GRADTUNE_DATA`, is where data that the project
does not ship are.
"""

from __future__ import annotations

import argparse
import functools
import os
from pathlib import Path

for _name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):  # before numpy is loaded
    os.environ.setdefault(_name, "1")

from benchmarks import (  # noqa: E402
    coverage,
    datasets,
    estimates,
    goyal_welch,
    gradient_cost,
    kernel_cost,
    kernels,
    many_penalties,
    million_columns,
    new_rows,
    newsgroups,
    newton_classifiers,
    newton_lbfgs,
    noise,
    one_penalty,
    overhead,
    peers,
    reverse_sweep,
    streamed,
)

BENCHMARKS = {
    "coverage": coverage.main,
    "datasets": datasets.main,
    "estimates": estimates.main,
    "goyal_welch": goyal_welch.main,
    "gradient_cost": gradient_cost.main,
    "kernel_cost": kernel_cost.main,
    "kernels": kernels.main,
    "many_penalties": many_penalties.main,
    "million_columns": million_columns.main,
    "new_rows": new_rows.main,
    "newton_classifiers": newton_classifiers.main,
    "newton_lbfgs": newton_lbfgs.main,
    "newsgroups": newsgroups.main,
    "noise": noise.main,
    "one_penalty": one_penalty.main,
    "overhead": overhead.main,
    "peers": peers.main,
    "reverse_sweep": reverse_sweep.main,
    "streamed": streamed.main,
}
WITH_DATA = ("goyal_welch", "kernels", "many_penalties", "new_rows", "newsgroups", "newton_classifiers")
WITH_OPTIONS = ("coverage", "kernels", "new_rows", "noise")


def run() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--data", type=Path, default=os.environ.get("GRADTUNE_DATA"), metavar="DIR")
    parser.add_argument("--splits", type=int, metavar="N", help="at most so many random splits or draws")
    parser.add_argument("--results", type=Path, metavar="FILE", help="keep results there, and go on from them")
    coverage.add_options(parser)
    kernels.add_options(parser)
    new_rows.add_options(parser)
    chosen = parser.parse_args()
    if unknown := set(chosen.names) - set(BENCHMARKS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    if chosen.results is not None and len(chosen.names) != 1:
        parser.error("--results keeps those of one benchmark: name it")
    for name in chosen.names or BENCHMARKS:
        print(f"== {name} ==", flush=True)
        benchmark = BENCHMARKS[name]
        if name in WITH_DATA:
            benchmark = functools.partial(benchmark, data=chosen.data)
        if name in WITH_OPTIONS:
            benchmark = functools.partial(benchmark, options=chosen)
        benchmark(short=chosen.short)
        print(flush=True)


if __name__ == "__main__":
    run()
