"""The estimate of a job: it is there for every plan, and near what the job takes."""

from __future__ import annotations

import json
import math
from collections.abc import Generator, Mapping
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
from worker.core.kernels import Rbf
from worker.core.kernels.widths import WidthPerFeature
from worker.core.objective.objective import Formula, Found, Objective, Residuals
from worker.core.outer import ConcreteOuter, Optimizer, OuterAuto
from worker.core.penalties import PerFeature
from worker.core.records import Array, Trial
from worker.core.rows.problem import Problem
from worker.core.search.nested import Nested
from worker.core.search.plan import Plan, prepare, resolve
from worker.core.search.procedure import carry_out
from worker.core.selection import KFold, WalkForward
from worker.core.training import KernelRidge, Ridge
from worker.core.verdict.certificates import TYPICAL_EVALUATIONS
from worker.core.verdict.conclude import conclude
from worker.core.verdict.curvature import evaluations_of_curvature
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
        estimated.add(
            (
                spec.training.kind,
                resolve(spec.plan(), spec.problem(), spec.plan().hyperparameters(spec.problem()))[1].kind,
            )
        )
    assert {kind for kind, _ in estimated} == set(TRAININGS)
    assert {method for _, method in estimated} == {kind_of(member) for member in members(ConcreteOuter)}


@dataclass(frozen=True, slots=True)
class Once(Optimizer):
    """An optimizer that the estimate has never heard of: it evaluates J once."""

    kind: Literal["once"] = "once"

    typical_evaluations: ClassVar[int] = 1

    def begin(self, objective: Objective, rho: Float[Array, " k"]) -> Generator[Trial, None, Trial]:
        yield from ()
        return self.trial(objective, objective.evaluate(rho), 0, {})

    def step(self, objective: Objective, state: dict[str, Array]) -> Generator[Trial, None, None]:  # noqa: ARG002
        yield from ()

    def ended(self, objective: Objective, state: Mapping[str, Array]) -> None:  # noqa: ARG002
        return None


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


def test_outer_folds_that_choose_a_spread_refit_at_each() -> None:
    plan = plan_of(training=Ridge(penalty=PerFeature()), nested=Nested(folds=3))
    by_rows, by_folds = (expected_cost(replace(plan, spread_by=by), table(), 4000)[1] for by in ("auto", "nested"))
    assert by_folds.evaluations == by_rows.evaluations
    assert by_rows.seconds < by_folds.seconds < 1.5 * by_rows.seconds


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


def kernel_job(rows: int, features: int, evaluations: int) -> Cost:
    """The estimate of a job with a width for each feature and a budget; every evaluation takes long."""
    kernel = Rbf(widths=WidthPerFeature())
    training = KernelRidge(kernel=kernel)
    return expected_cost(plan_of(training=training, max_evaluations=evaluations), table(60, features), rows)[1]


def test_the_refit_and_the_certificates_are_in_the_estimate() -> None:
    one, two = (kernel_job(5_000, 10, evaluations) for evaluations in (1, 2))
    assert one.evaluations_needed == two.evaluations_needed > 10
    assert one.seconds > 8 * (two.seconds - one.seconds)


@pytest.mark.parametrize("features", [3, 20])
def test_gradients_that_the_curvature_takes_are_in_the_estimate(features: int) -> None:
    """Without an exact Hessian differences of the gradient replace it, if the search itself took as many."""
    k = features + 1
    before, there, after = (kernel_job(5_000, features, 2 * k + more).seconds for more in (-1, 0, 1))
    assert (there - before) / (after - there) == pytest.approx(1 + 3 + 2 * k, rel=0.01)
    assert evaluations_of_curvature(501, 10**6, exact=False) == 0


@dataclass
class Counted:
    """A formula that counts the points at which it is asked for J."""

    formula: Formula
    points: int = 0

    def value(self, rho: Float[Array, " k"]) -> float:
        self.points += 1
        return self.formula.value(rho)

    def found(self, rho: Float[Array, " k"]) -> Found | None:
        self.points += 1
        return self.formula.found(rho)

    def residuals(self, rho: Float[Array, " k"]) -> Residuals | None:
        self.points += 1
        return self.formula.residuals(rho)


@pytest.mark.parametrize("training", [Ridge(), KernelRidge()], ids=lambda one: one.kind)
def test_a_conclusion_takes_as_many_evaluations_as_is_estimated(training: Ridge | KernelRidge) -> None:
    prepared = prepare(table(40), plan_of(training=training))
    *_, step = carry_out(prepared)
    counted = Counted(prepared.objective.formula)
    conclude(replace(prepared, objective=replace(prepared.objective, formula=counted)), step.starts[0])
    k, exact = len(prepared.objective.hyperparameters.names), prepared.objective.has_hessian
    expected = TYPICAL_EVALUATIONS + evaluations_of_curvature(k, step.evaluations, exact=exact)
    assert expected / 2 < counted.points < 2 * expected


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
