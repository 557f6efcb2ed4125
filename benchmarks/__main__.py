"""Run the named benchmarks, or all of them; `--short` takes small sizes, for CI."""

from __future__ import annotations

import os
import sys

for _name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):  # before numpy is loaded
    os.environ.setdefault(_name, "1")

from benchmarks import datasets, gradient_cost, newton_lbfgs, one_penalty, overhead  # noqa: E402

BENCHMARKS = {
    "datasets": datasets.main,
    "gradient_cost": gradient_cost.main,
    "newton_lbfgs": newton_lbfgs.main,
    "one_penalty": one_penalty.main,
    "overhead": overhead.main,
}


def run() -> None:
    names = [name for name in sys.argv[1:] if not name.startswith("--")]
    unknown = set(names) - set(BENCHMARKS)
    if unknown:
        sys.exit(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    for name in names or BENCHMARKS:
        print(f"== {name} ==", flush=True)
        BENCHMARKS[name](short="--short" in sys.argv)
        print(flush=True)


if __name__ == "__main__":
    run()
