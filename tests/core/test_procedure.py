"""What a result says of itself: the shape of J, intervals, nested cross-validation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from tests.core.conftest import grouped, regression
from tests.oracles import ridge
from worker import checkpoint
from worker.core.hypergradient import Implicit
from worker.core.outer import Newton
from worker.core.penalties import PerGroup, Shared
from worker.core.records import Outcome
from worker.core.rows.problem import Problem
from worker.core.search.nested import Nested
from worker.core.search.plan import Plan, prepare
from worker.core.search.procedure import carry_out
from worker.core.search.tune import tune
from worker.core.selection import Evidence, GivenFolds, GroupKFold, KFold, LeaveOneOut, Reml, WalkForward
from worker.core.training import Ridge
from worker.core.verdict.conclude import conclude
from worker.core.verdict.curvature import curvature


def end_of(prepared):
    *_, last = tune(prepared)
    return last


def test_an_interval_is_where_the_criterion_has_risen_by_half_a_nat():
    problem = regression(4000, 6)
    penalty = replace(grouped(problem), spread=None)
    plan = Plan(Ridge(penalty=penalty), Evidence(), Implicit(), Newton(tolerance=1e-10))
    prepared = prepare(problem, plan)
    last = end_of(prepared)
    shape = curvature(prepared.objective, last.best.best)
    assert shape.point == "minimum"
    rise = 1e-6  # small, so that J is quadratic that far
    width = shape.half_widths(rise)[0]
    others = np.arange(1, 3)
    for side in (-1, 1):  # a profile: the others at their best
        rho = last.best.best.rho.copy()
        rho[0] += side * width
        for _ in range(20):
            at = prepared.objective.evaluate(rho)
            rho[others] -= np.linalg.solve(prepared.objective.hessian(rho, others), at.gradient[others])
        change = prepared.objective.value(rho) - last.best.best.value
        assert_allclose(change, rise * prepared.objective.unit(0.0), rtol=0.05)
    conclusion = conclude(prepared, last.best)
    low, high = conclusion.intervals
    lam = prepared.objective.natural(last.best.best.rho)
    assert (low < lam).all()
    assert (lam < high).all()
    assert conclusion.noise_variance == prepared.objective.noise_variance(last.best.best.rho)
    assert 0.9 < conclusion.noise_variance < 1.1  # the noise of the data is 1


def test_a_point_that_curves_downward_is_no_minimum():
    problem = regression(60, 3)
    prepared = prepare(problem, Plan(Ridge(penalty=Shared()), KFold(), Implicit(), Newton()))
    rho = np.array([3.5])  # on the way to an upper bound J bends over
    shape = curvature(prepared.objective, prepared.objective.evaluate(rho))
    assert shape.point == "saddle"
    assert shape.smallest < 0
    assert shape.half_widths(1.0) is None


def test_a_group_that_is_another_leaves_a_flat_direction():
    problem = regression(30, 25)
    twice = PerGroup(groups={"a": problem.features, "b": problem.features}, spread=None)
    last = end_of(prepared := prepare(problem, Plan(Ridge(penalty=twice), KFold(), Implicit(), Newton(tolerance=1e-9))))
    shape = conclude(prepared, last.best).curvature
    assert abs(shape.smallest) < 1e-6  # the sum alone matters
    assert len(shape.joint) == 2


def test_where_J_levels_off_it_is_flat():
    points = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        problem = Problem(rng.normal(size=(40, 3)), rng.normal(size=40), ("a", "b", "c"))
        last = end_of(prepared := prepare(problem, Plan(Ridge(penalty=Shared()), KFold(), Implicit(), Newton())))
        if last.ended is Outcome.CONVERGED and last.best.best.rho > np.log(1e4):
            points.append(curvature(prepared.objective, last.best.best).point)
    assert len(points) > 4
    assert set(points) == {"flat"}


def test_a_bound_that_J_falls_away_from_does_not_make_a_minimum():
    problem = regression(60, 3)
    prepared = prepare(problem, Plan(Ridge(penalty=Shared(initial=1e3, upper=1e3)), KFold(), Implicit(), Newton()))
    at = prepared.objective.evaluate(prepared.objective.hyperparameters.start(0, 0))
    assert at.gradient > 0
    assert curvature(prepared.objective, at).point != "minimum"


NESTED = [
    (KFold(folds=3), 4),
    (LeaveOneOut(), 3),
    (WalkForward(initial=8, horizon=3), 3),
    (GroupKFold(group_of_row=tuple(i // 4 for i in range(60)), folds=3), 3),
]


@pytest.mark.parametrize(("selection", "folds"), NESTED, ids=lambda value: getattr(value, "kind", value))
def test_nested_cross_validation_is_a_loop_over_the_whole_procedure(selection, folds):
    problem = regression(60, 3)
    plan = Plan(Ridge(penalty=Shared()), selection, Implicit(), Newton(tolerance=1e-9), nested=Nested(folds))
    prepared = prepare(problem, plan)
    steps = list(carry_out(prepared))
    assert len(steps[-1].folds) == folds
    assert steps[-1].ended == end_of(prepared).ended
    assert_allclose(steps[-1].best.best.value, end_of(prepared).best.best.value)
    splits = plan.nested.splits(selection, prepared.rows, problem)
    assert len(splits) == folds
    for (rows, scored), fold in zip(splits, steps[-1].folds, strict=True):
        assert not set(rows) & set(scored)
        part = plan.selection.partition(rows, 60, problem)
        objective = selection.objective(problem, part, plan.training, Implicit())
        *_, trial = Newton(tolerance=1e-9).search(objective, np.zeros(1))
        lam = np.exp(trial.evaluation.rho)
        constant, theta = ridge(problem.X[rows], problem.y[rows], np.repeat(lam, 3), intercept=True, standardize=True)
        errors = (problem.y[scored] - constant - problem.X[scored] @ theta) ** 2
        assert_allclose(fold.value, errors.mean(), rtol=1e-6)
        assert fold.rows == len(scored)
    counts = [step.evaluations for step in steps]
    assert counts == sorted(counts)


def test_an_interrupted_nested_run_ends_with_the_same_numbers():
    problem = regression(60, 3)
    prepared = prepare(problem, Plan(Ridge(), KFold(folds=3), Implicit(), Newton(), nested=Nested(3)))
    steps = list(carry_out(prepared))
    states = [step.state for step in steps if step.state is not None]
    assert len([state for state in states if all(start.outcome for start in state.starts)]) == 4
    for state in states:
        *_, last = carry_out(prepared, checkpoint.unpack(checkpoint.pack(state)))
        assert last.folds == steps[-1].folds
        assert last.ended == steps[-1].ended
        assert last.evaluations == steps[-1].evaluations


def test_nested_cross_validation_tells_where_weights_leave_too_few_rows():
    problem = regression(20, 2)
    weights = np.zeros(20)
    weights[[0, 10]] = 1.0
    plan = Plan(Ridge(), LeaveOneOut(), Implicit(), Newton(), nested=Nested(2))
    with pytest.raises(ValueError, match="without the rows of outer fold 1, all rows"):
        prepare(replace(problem, weights=weights, scoring=np.ones(20)), plan)


def test_an_outer_fold_that_cannot_be_tuned_leaves_the_rest():
    problem, y = regression(40, 3), np.zeros(40)
    y[4] = 1.0  # without it the target is constant
    prepared = prepare(replace(problem, y=y), Plan(Ridge(), Reml(), Implicit(), Newton(), nested=Nested(4)))
    *_, last = carry_out(prepared)
    assert np.isfinite(last.best.best.value)
    assert [np.isfinite(fold.value) for fold in last.folds].count(False) == 1


def test_nested_cross_validation_needs_rows_that_it_may_cut():
    with pytest.raises(ValueError, match="cuts the rows itself"):
        Nested(3).splits(GivenFolds(fold_of_row=(0, 1) * 5), np.arange(10), regression(10, 2))
    with pytest.raises(ValueError, match="need more than the 5 rows"):
        Nested(5).splits(KFold(folds=2), np.arange(5), regression(5, 2))
