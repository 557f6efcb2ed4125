"""The numbers of a case: what equal fingerprints promise to be equal, on any processor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.contract.specs import parsed
from tests.golden.cases import CURVATURE
from worker.core.records import Array, Step
from worker.core.search.plan import Prepared, prepare
from worker.core.search.tune import tune
from worker.core.verdict.baseline import worth

RECORD = Path(__file__).parent / "numbers.json"
FIRST = 4  # iterations whose J is recorded: the way of the optimizer
ROWS = 5  # that are predicted
DIRECT, ITERATIVE = 1e-9, 1e-6  # relative, where training is solved by a factorization and where it takes iterations
SOLVED = {"ridge", "kernel_ridge", "quadratic"}  # the kinds of training of the first sort


@dataclass(frozen=True, slots=True)
class Numbers:
    """J and dJ/drho at the initial hyperparameters, J after the first iterations; J and the hyperparameters at the end.

    `predictions` are those of the refit at the end for the first rows; of `quadratic`, theta. With a hyper-prior,
    `spread` is the chosen one and `worth` holds J at the shared value and the corrected value, if it is known.
    """

    initial_value: float
    initial_gradient: list[float]
    path: list[float]
    value: float
    hyperparameters: list[float]
    predictions: list[float]
    spread: float | None
    worth: list[float] | None


def numbers(request: dict[str, Any], hyperparameters: list[float] | None = None) -> Numbers:
    """What a request comes to. `hyperparameters`: where to refit, if not at those that are found."""
    spec = parsed(request)
    prepared = prepare(spec.problem(), spec.plan())
    objective, box = prepared.objective, prepared.objective.hyperparameters
    initial = objective.evaluate(box.start(0, spec.seed))
    steps = list(tune(prepared))
    last = steps[-1]
    best = last.best.best
    found = box.natural(best.rho).tolist()
    return Numbers(
        initial.value,
        initial.gradient.tolist(),
        [step.at.value for step in steps if step.state is not None][1 : FIRST + 1],
        best.selection,
        found,
        _predictions(prepared, np.array(found if hyperparameters is None else hyperparameters)).tolist(),
        None if last.choice is None else last.choice.spread,
        None if last.choice is None else _worth(prepared, last),
    )


def _worth(prepared: Prepared, last: Step) -> list[float]:
    found = worth(prepared, last)
    assert found.baseline is not None
    return [found.baseline.value, *([] if found.corrected is None else [found.corrected])]


def _predictions(prepared: Prepared, natural: Array) -> Array:
    box, problem = prepared.objective.hyperparameters, prepared.problem
    lam = prepared.objective.natural(np.where(box.log, np.log(natural), natural))
    model = prepared.plan.training.model(problem, prepared.rows, lam)
    assert model is not None
    return model.coefficients if problem.criteria else model.predictor(problem, prepared.rows[:ROWS]).ravel()


def differences(request: dict[str, Any], recorded: dict[str, Any]) -> Iterator[str]:
    """What is not as it is recorded, a sentence each.

    The hyperparameters are as exact as the gradient at the end allows: its norm over the least curvature of J. What is
    left of the gradient is the tolerance of the search and the errors of training.
    """
    now = asdict(numbers(request, recorded["hyperparameters"]))
    exact = DIRECT if request["training"]["kind"] in SOLVED else ITERATIVE
    slope = request["outer"]["tolerance"] + exact
    of_hyperparameters = 2 * np.sqrt(len(now["hyperparameters"])) * slope / CURVATURE
    relative = dict.fromkeys(now, exact) | dict.fromkeys(("hyperparameters", "worth"), of_hyperparameters)
    for name, bound in relative.items():
        if None in (recorded[name], now[name]):
            if recorded[name] is not now[name]:
                yield f"{name} is {now[name]} instead of {recorded[name]}"
            continue
        before, after = np.array(recorded[name]), np.array(now[name])
        if before.shape != after.shape:
            yield f"{name} has the shape {after.shape} instead of {before.shape}"
            continue
        off, size = np.abs(after - before).max(), np.abs(before).max()
        if not off <= bound * size:
            off /= size or 1.0
            yield f"{name} differs by {off:.1e}, more than {bound:.0e}: {now[name]} instead of {recorded[name]}"
