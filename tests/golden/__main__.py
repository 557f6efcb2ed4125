"""Record the numbers of a new version of the algorithm: `python -m tests.golden`.

Those of the current version stay as they are; cases that it does not have yet are added.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.contract.specs import parsed
from tests.golden.cases import CASES, CURVATURE
from tests.golden.recorded import RECORD, numbers
from worker.contract.spec import ALGORITHM
from worker.core.records import Choice
from worker.core.search.descents import Descents
from worker.core.search.plan import prepare
from worker.core.search.tune import tune
from worker.core.verdict.curvature import curvature

CHOSEN = 1e-3  # least gap of a choice between spreads, relative
MOST = 10**6  # gradients for a Hessian by differences: all that it takes


def main(path: Path, cases: Mapping[str, dict[str, Any]], algorithm: str) -> str:
    """Write what is missing, and say what was done. Raises ValueError where nothing is missing."""
    before = json.loads(path.read_text())
    kept = before["cases"] if before["algorithm"] == algorithm else {}
    missing = [name for name in cases if name not in kept]
    if set(kept) == set(cases):
        raise ValueError(
            f"The numbers of algorithm {algorithm} are recorded and stay as they are. If others are intended, raise "
            "ALGORITHM in worker/contract/spec.py first."
        )
    for name in missing:
        check(name, cases[name])
    made = {name: kept.get(name) or asdict(numbers(request)) for name, request in cases.items()}
    path.write_text(json.dumps({"algorithm": algorithm, "cases": made}, indent=1) + "\n")
    return f"Algorithm {algorithm}: recorded {len(missing)} cases, kept {len(cases) - len(missing)}."


def check(name: str, request: dict[str, Any]) -> None:
    """Raises ValueError unless the optimum of the case is one that every processor finds."""
    spec = parsed(request)
    prepared = prepare(spec.problem(), spec.plan())
    *_, last = tune(prepared)
    best, box, descents = last.best.best, prepared.objective.hyperparameters, Descents(prepared)
    descent = descents.of(last.best, last.starts)
    shape = curvature(descent.objective, descent.descended(best), MOST)
    settled = last.ended is not None and last.ended.code == "converged" and not any(box.at_bound(best.rho))
    if not settled or shape is None or shape.smallest is None or shape.smallest < CURVATURE:
        raise ValueError(
            f"{name} has no sharp optimum inside the box ({last.ended}, {shape}); choose other data for it."
        )
    if last.choice is not None and (gap := _gap(last.choice)) < CHOSEN:
        raise ValueError(f"{name} has a choice that is close by {gap:.1e}; choose other data for it.")


def _gap(choice: Choice) -> float:
    """By how much the corrected value of the next best spread is above that of the chosen one, relative."""
    values = {point.spread: point.corrected for point in choice.path if point.corrected is not None}
    if choice.by != "jackknife":
        return 1.0
    chosen = values.pop(choice.spread)
    return min(values.values()) / chosen - 1.0


if __name__ == "__main__":
    try:
        print(main(RECORD, CASES, ALGORITHM))
    except ValueError as error:
        sys.exit(str(error))
