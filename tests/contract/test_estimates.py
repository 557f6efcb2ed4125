"""The estimate of a job: it is there for every plan, and near what the job takes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
from jaxtyping import Float

from service.estimate import estimate
from tests.contract.specs import document
from tests.corpus import families, settings
from tests.corpus.parts import TRAININGS, Case, case, outer
from worker.contract.notes import CLEARLY_BELOW, limit_notes
from worker.contract.spec import JobSpec
from worker.contract.spec_faults import faults
from worker.core.costs import Cost
from worker.core.family import kind_of, members
from worker.core.hypergradient import HypergradientAuto
from worker.core.objective.objective import Objective
from worker.core.outer import ConcreteOuter, OuterAuto
from worker.core.outer.search import Search, SearchSettings
from worker.core.records import Array, Outcome, Trial
from worker.core.rows.problem import Problem
from worker.core.search.nested import Nested
from worker.core.search.plan import Plan, prepare, resolve
from worker.core.search.procedure import carry_out
from worker.core.selection import KFold, WalkForward
from worker.core.training import Ridge
from worker.core.verdict.expected_cost import expected_cost

CASES = [
    *(one for one in families.grid() if one.name.endswith("/auto") or "/k_fold/" in one.name),
    *(one for one in families.hypergradients() if "/k_fold/" in one.name or "/leave_one_out/" in one.name),
    *settings.procedures(),
    *settings.solvers(),
    *settings.own_criteria(),
]


def spec_of(request: Mapping[str, Any]) -> JobSpec:
    return JobSpec.model_validate_json(json.dumps(request))


def table(n: int = 60, p: int = 4) -> Problem:
    rng = np.random.default_rng(n + p)
    X = rng.normal(size=(n, p))
    return Problem(X, X @ rng.normal(size=p) + rng.normal(size=n), tuple(f"x{j}" for j in range(p)))


def plan_of(**changes: Any) -> Plan:
    return replace(Plan(Ridge(), KFold(), HypergradientAuto(), OuterAuto()), **changes)


def test_every_plan_without_faults_has_an_estimate() -> None:
    estimated = set()
    for one in CASES:
        try:
            spec = spec_of(one.request)
        except ValueError:  # refused by its schema
            continue
        if "dataset_id" in one.request["data"] or faults(spec):
            continue
        cost = estimate(spec, None)
        for value in (cost.evaluations, cost.flops, cost.bytes, cost.seconds):
            assert math.isfinite(value), one.name
            assert value > 0, one.name
        estimated.add((spec.training.kind, resolve(spec.plan(), spec.problem())[1].kind))
    assert {kind for kind, _ in estimated} == set(TRAININGS)
    assert {method for _, method in estimated} == {kind_of(member) for member in members(ConcreteOuter)}


@dataclass(frozen=True, slots=True)
class Once(SearchSettings):
    """An optimizer that the estimate has never heard of: it evaluates J once."""

    kind: Literal["once"] = "once"

    typical_evaluations: ClassVar[int] = 1

    def search(self, objective: Objective, rho: Float[Array, " k"], state: Mapping[str, Array] | None = None) -> Search:
        assert state is None
        yield Trial(objective.evaluate(rho), 0, 1.0, None)
        return Outcome.STALLED


def test_a_new_optimizer_states_how_many_evaluations_it_takes() -> None:
    once: Any = Once(starts=3)
    cost = expected_cost(plan_of(outer=once), table(), 60)[1]
    *_, step = carry_out(prepare(table(), plan_of(outer=once)))
    assert step.evaluations == 3
    assert 3 <= cost.evaluations <= 6


@pytest.mark.parametrize("folds", [2, 7])
def test_outer_folds_search_again_on_a_part_of_the_rows(folds: int) -> None:
    plain, nested = (expected_cost(plan_of(nested=made), table(), 4000)[1] for made in (None, Nested(folds=folds)))
    assert nested.evaluations == (1 + folds) * plain.evaluations
    assert nested.evaluations_needed == plain.evaluations_needed
    assert (1 + 0.6 * folds) * plain.seconds < nested.seconds < (1 + folds) * plain.seconds
    assert nested.bytes == plain.bytes


@pytest.mark.parametrize("selection", [KFold(), WalkForward(initial=10, horizon=5)], ids=lambda one: one.kind)
@pytest.mark.parametrize("folds", [2, 5])
def test_the_parts_that_outer_folds_tune_on(selection: KFold | WalkForward, folds: int) -> None:
    nested, rows = Nested(folds=folds), np.arange(600)
    lengths = [len(part) / 600 for part, _ in nested.splits(selection, rows, table(600))]
    np.testing.assert_allclose(sorted(nested.shares(selection)), sorted(lengths), atol=0.01)


JOBS: dict[str, Case] = {
    **{kind: case(kind, kind, outer={"kind": "auto"}) for kind in ("ridge", "logistic", "kernel_ridge")},
    "quadratic": case("quadratic", "quadratic", "quadratic", outer={"kind": "auto"}),
    "lbfgs": case("lbfgs", "ridge", outer=outer("lbfgs", max_iterations=100)),
    "nested": case("nested", "ridge", outer={"kind": "auto"}, nested={"folds": 3}),
    "leave_one_out": case("leave_one_out", "ridge", "leave_one_out", outer={"kind": "auto"}),
}


@pytest.mark.parametrize("name", JOBS)
def test_evaluations_are_near_what_a_job_takes(name: str) -> None:
    spec = spec_of(JOBS[name].request)
    *_, step = carry_out(prepare(spec.problem(), spec.plan()))
    assert 1 / 3 < estimate(spec, None).evaluations / step.evaluations < 3


def test_the_refit_and_the_certificates_are_in_the_estimate() -> None:
    """Of one evaluation, most of a job is what follows the search."""
    one, two = (expected_cost(plan_of(max_evaluations=most), table(), 100_000)[1] for most in (1, 2))
    assert one.evaluations_needed == two.evaluations_needed > 10
    assert one.seconds > 5 * (two.seconds - one.seconds)


@pytest.mark.parametrize("k", [3, 400])
def test_gradients_that_the_curvature_takes_are_in_the_estimate(k: int) -> None:
    """Without an exact Hessian differences of the gradient replace it, as long as the search took as many."""
    widths = {"kind": "rbf", "widths": {"kind": "per_feature"}}
    data = {"x": [[float(i * j % 7) for j in range(k)] for i in range(20)], "y": [float(i % 3) for i in range(20)]}
    spec = spec_of({"data": data, "training": {"kind": "kernel_ridge", "kernel": widths}})
    one, two = (
        estimate(spec.model_copy(update={"limits": spec.limits.model_copy(update={"evaluations": most})}), None)
        for most in (2 * k + 1, 2 * k + 3)
    )
    evaluations = (two.seconds - one.seconds) / one.seconds * one.evaluations
    assert evaluations < 1 if k > 100 else evaluations > 1


def cost_of(seconds: float = 1.0, evaluations: int = 30) -> Cost:
    return Cost(evaluations, evaluations, 1e9, 1e6, seconds)


def test_only_limits_that_are_clearly_below_the_estimate_get_a_note() -> None:
    assert limit_notes(600.0, None, cost_of()) == []
    assert limit_notes(CLEARLY_BELOW * 80.0, 15, cost_of(80.0)) == []
    (seconds,) = limit_notes(39.0, 30, cost_of(80.0))
    assert (seconds.code, seconds.severity) == ("limit_below_estimate", "warning")
    assert "80 s" in seconds.text
    assert "limits.seconds is 39" in seconds.text
    (evaluations,) = limit_notes(600.0, 14, cost_of())
    assert evaluations.code == "limit_below_estimate"
    assert "30 evaluations" in evaluations.text
    assert "limits.evaluations is 14" in evaluations.text
    assert len(limit_notes(1.0, 1, cost_of(80.0))) == 2


def test_a_budget_lowers_the_estimated_time_and_not_what_is_needed() -> None:
    whole, cut = (estimate(spec_of(document(**limits)), None) for limits in ({}, {"limits__evaluations": 3}))
    assert cut.evaluations == 3
    assert cut.evaluations_needed == whole.evaluations_needed == whole.evaluations
    assert cut.seconds < whole.seconds
