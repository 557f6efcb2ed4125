"""The hyper-prior and the tied objective, beside minimizations over the centre, and differences of `J + R`."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from mpmath import findroot, mp, mpf
from numpy.testing import assert_allclose

from tests.core.conftest import grouped, regression
from tests.core.smooth.problems import table
from tests.oracles import differences
from worker.core.hypergradient import CholeskyBackprop, Implicit
from worker.core.kernels import Rbf, WidthPerFeature
from worker.core.losses import SmoothedAuc
from worker.core.objective.prior import FamilyPrior, HyperPrior, with_prior
from worker.core.objective.tied import Tie, tied
from worker.core.outer import Inexact, Lbfgs, Newton
from worker.core.penalties import Difference, Identity, PerCoefficient, PerFeature, QuadraticForms
from worker.core.records import Outcome, Start, Trial
from worker.core.rows.problem import Problem
from worker.core.search.descents import PATH, WITHOUT_CHOICE, Descents
from worker.core.search.plan import Plan, prepare
from worker.core.search.tune import tune
from worker.core.selection import (
    ApproximateLeaveOneOut,
    Evidence,
    GeneralizedCV,
    Holdout,
    KFold,
    LaplaceEvidence,
    LeaveOneOut,
    Reml,
    WalkForward,
)
from worker.core.selection.evidence_settings import NoiseVariance
from worker.core.training import KernelRidge, LogisticRegression, MultinomialRegression, PoissonRegression, Ridge
from worker.core.training.kernel_machines import KernelPenalty
from worker.core.weights import SigmoidTime

NU, WIDEST = 0.5, 3.0
SLOW = pytest.mark.slow


def phi(d, spread):
    """What METHODS write: minus the logarithm of Student's t and of a normal density, without constants."""
    return (NU + 1) / 2 * np.log(1 + d**2 / (NU * spread**2)) + d**2 / (2 * WIDEST**2)


def lowest_centre(t, spread, floor=-np.inf):
    """The minimum over the centre on a dense grid, refined three times."""
    low, high = max(float(t.min()), floor), max(float(t.max()), floor)
    for _ in range(4):
        grid = np.linspace(low, high, 2001)
        best = int(np.argmin(phi(t[:, None] - grid, spread).sum(axis=0)))
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, 2000)]
    return float(grid[best])


def family(members, spread, origin=None, floor=-np.inf):
    members = np.asarray(members)
    return FamilyPrior(members, spread, np.zeros(len(members)) if origin is None else origin, floor)


@pytest.mark.parametrize("spread", [0.25, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("m", [3, 4, 7, 40])
def test_the_value_is_the_minimum_over_the_centre(m, spread):
    rng = np.random.default_rng([m, int(4 * spread)])
    for _ in range(5):
        t = 2.0 + 0.8 * spread * rng.normal(size=m) + 5.0 * spread * (rng.random(m) < 0.15)
        lowest = lowest_centre(t, spread)
        for floor in (lowest - 1.0, lowest + 0.3):
            centre = lowest_centre(t, spread, floor)
            prior = HyperPrior((family(np.arange(m), spread, floor=floor),), 0.03)
            assert_allclose(prior.value(t), 0.03 * phi(t - centre, spread).sum(), rtol=1e-12)
            d, held = prior.families[0].deviations(t)
            assert held is (centre == floor)
            assert_allclose(d, t - centre, atol=1e-5)


def test_the_centre_is_a_zero_of_the_slope_to_round_off():
    rng = np.random.default_rng(3)
    with mp.workdps(40):
        for spread in (0.25, 1.0):
            t = rng.standard_t(1, size=9)
            prior = family(np.arange(9), spread)
            centre = t[0] - prior.deviations(t)[0][0]

            def slope(m, t=t, spread=spread):
                width = mpf(NU) * mpf(spread) ** 2
                terms = (((NU + 1) / (width + d**2) + 1 / mpf(WIDEST) ** 2) * d for d in (mpf(x) - m for x in t))
                return sum(terms)

            assert_allclose(centre, float(findroot(slope, mpf(centre))), rtol=1e-14, atol=1e-14)


@pytest.mark.unchecked
@pytest.mark.parametrize("spread", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("m", [2, 3, 5, 8, 21, 60])
def test_of_several_valleys_the_lowest_is_found(m, spread):
    """Members in heaps; far from each other, the normal density makes a valley of its own between them.

    Of valleys that differ by less than a thousandth either may be taken.
    """
    rng = np.random.default_rng([8, m])
    for _ in range(12):
        heaps = 8.0 * spread * rng.random() * rng.integers(0, 4, m)
        t = heaps + 2.0 * spread * rng.random() * rng.normal(size=m)
        floor = -np.inf if rng.random() < 0.5 else float(np.quantile(t, 0.4))
        d, _ = family(np.arange(m), spread, floor=floor).deviations(t)
        assert t[0] - d[0] >= floor - 1e-9
        assert_allclose(phi(d, spread).sum(), phi(t - lowest_centre(t, spread, floor), spread).sum(), rtol=1e-3)


@pytest.mark.unchecked
@pytest.mark.parametrize("m", [2, 4, 9])
def test_the_value_is_continuous_where_the_centre_changes_its_valley(m):
    rng = np.random.default_rng(m)
    jumps = 0
    for _ in range(4):
        begin, end = (6.0 * rng.integers(0, 2, m) + rng.normal(size=m) for _ in range(2))
        prior = family(np.arange(m), 0.25, floor=0.5)
        way = np.linspace(0.0, 1.0, 401)
        found = [prior.deviations(begin + s * (end - begin))[0] for s in way]
        values = np.array([phi(d, 0.25).sum() for d in found])
        # |dR/drho| is at most the sum of |phi'|, each below 6 here
        assert np.abs(np.diff(values)).max() <= 6.0 * np.abs(end - begin).sum() / 400
        centres = begin[0] + way * (end - begin)[0] - np.array([d[0] for d in found])
        jumps += np.abs(np.diff(centres)).max() > 0.5
    assert jumps > 0


@pytest.mark.parametrize("far", [1e-3, 0.1, 1.0, 6.0])
@pytest.mark.parametrize("level", [0.0, 7.0, -25.0])
def test_derivatives_of_two_members(far, level):
    """Near each other the centre is in the middle, else in one of two valleys that are alike."""
    t = np.array([level - far, level + 1.1 * far])
    prior = HyperPrior((family([0, 1], 0.25),), 1.0)
    assert_allclose(prior.value(t), phi(t - lowest_centre(t, 0.25), 0.25).sum(), rtol=1e-9)
    step = 1e-3 * min(far, 0.1)
    assert_allclose(prior.gradient(t), differences(prior.value, t, step), rtol=1e-6, atol=1e-9)
    H = differences(prior.gradient, t, step)
    assert_allclose(prior.hessian(t), H, rtol=1e-5, atol=1e-6 * np.abs(H).max())


@pytest.mark.parametrize("gap", [-1e-4, -1e-6, 0.0, 1e-6, 1e-4])
def test_near_the_floor_a_prior_without_it_has_second_derivatives(gap):
    """Differences across the jump are not the Hessian on either side; the smooth prior touches R from below."""
    rng = np.random.default_rng(4)
    t = 0.3 * rng.normal(size=5)
    floor = lowest_centre(t, 0.5) - gap
    prior = HyperPrior((family(np.arange(5), 0.5, floor=floor),), 1.0)
    smooth = prior.smooth_near(t)
    assert_allclose(smooth.value(t), prior.value(t), atol=10 * gap**2 + 1e-12)
    assert smooth.value(t) <= prior.value(t) + 1e-12
    across = differences(prior.gradient, t, 2e-3)
    H = differences(smooth.gradient, t, 2e-3)
    assert_allclose(smooth.hessian(t), H, rtol=1e-4, atol=1e-6)
    assert np.abs(across - prior.hessian(t)).max() > 0.1
    assert np.linalg.eigvalsh(prior.hessian(t) - smooth.hessian(t)).min() > -0.01


def test_far_from_the_floor_nothing_is_smoothed():
    t = 0.3 * np.random.default_rng(4).normal(size=5)
    for floor in (lowest_centre(t, 0.5) - 0.3, lowest_centre(t, 0.5) + 0.3):
        prior = HyperPrior((family(np.arange(5), 0.5, floor=floor),), 1.0)
        assert prior.smooth_near(t) == prior


def two_families(rng, floors):
    """Of nine hyperparameters: four and three that are interleaved, and two in no family."""
    first, second = np.array([0, 2, 5, 8]), np.array([1, 3, 6])
    offsets = rng.normal(size=4), 3.0 + rng.normal(size=3)
    return HyperPrior((family(first, 0.5, offsets[0], floors[0]), family(second, 1.0, offsets[1], floors[1])), 0.07)


@pytest.mark.parametrize("floors", [(-9.0, -9.0), (9.0, -9.0), (-9.0, 9.0), (9.0, 9.0)], ids=str)
def test_derivatives_of_two_families_with_offsets(floors):
    rng = np.random.default_rng(5)
    prior = two_families(rng, floors)
    for _ in range(3):
        rho = 0.4 * rng.normal(size=9)
        held = [one.deviations(rho)[1] for one in prior.families]
        assert held == [floor > 0 for floor in floors]
        gradient = prior.gradient(rho)
        assert_allclose(gradient, differences(prior.value, rho, 1e-3), rtol=1e-7, atol=1e-10)
        H = prior.hessian(rho)
        assert_allclose(H, differences(prior.gradient, rho, 1e-3), rtol=1e-6, atol=1e-9)
        assert (gradient[[4, 7]] == 0).all()
        assert (H[[4, 7]] == 0).all()
        assert (H == H.T).all()
        for one, fixed in zip(prior.families, held, strict=True):
            together = np.zeros(9)
            together[one.members] = 1.0
            if fixed:
                assert abs(gradient @ together) > 1e-3
            else:  # the centre follows: all together may move at no cost
                assert_allclose([gradient @ together, *(H @ together)], 0.0, atol=1e-12)


def test_each_family_has_its_own_value_and_offsets_are_its_zero():
    rng = np.random.default_rng(6)
    prior = two_families(rng, (-9.0, 9.0))
    rho = rng.normal(size=9)
    parts = [HyperPrior((one,), prior.c) for one in prior.families]
    assert_allclose(prior.value(rho), sum(part.value(rho) for part in parts))
    for part in parts:
        (one,) = part.families
        moved = HyperPrior((family(one.members, one.spread, floor=one.floor),), prior.c)
        at = rho.copy()
        at[one.members] -= one.origin
        assert_allclose(moved.value(at), part.value(rho))


def test_what_is_kept_of_a_point_is_not_another_points():
    rng = np.random.default_rng(7)
    rho = rng.normal(size=(2, 9))
    prior = two_families(rng, (-9.0, -9.0))
    found = [(prior.value(at), prior.gradient(at), prior.hessian(at)) for at in rho[[0, 1, 0, 1]]]
    for i in (0, 1):
        assert found[i][0] == found[i + 2][0] != found[1 - i][0]
        assert (found[i][1] == found[i + 2][1]).all()
        assert (found[i][2] == found[i + 2][2]).all()


# J + R, and J with a value for each family


def of_classes(n=60):
    return table("multinomial", n)


RIDGE = (Ridge(penalty=PerFeature()), regression(40, 5))
FORMS = QuadraticForms(
    forms=(
        *(Identity(name=f"size {i}", features=(f"x{i}", f"x{i + 1}")) for i in (0, 3)),
        *(Difference(name=f"order {order}", order=order) for order in (1, 2)),
    )
)
CLASSES = "multinomial per_coefficient"
CASES = {
    "ridge k_fold": (*RIDGE, KFold(folds=3)),
    "ridge walk_forward": (*RIDGE, WalkForward(initial=20, horizon=6)),
    "ridge leave_one_out": (*RIDGE, LeaveOneOut()),
    "ridge generalized_cv": (*RIDGE, GeneralizedCV()),
    "ridge evidence": (*RIDGE, Evidence()),
    "ridge noise_variance": (*RIDGE, Evidence(NoiseVariance())),
    "ridge reml": (*RIDGE, Reml()),
    "ridge forms": (Ridge(penalty=FORMS), regression(40, 6), KFold(folds=3)),
    "poisson k_fold": (PoissonRegression(penalty=PerFeature()), table("poisson", 50), KFold(folds=3)),
    "logistic holdout": (LogisticRegression(penalty=PerFeature()), table("logistic", 50, 4), Holdout(fraction=0.4)),
    "logistic approximate": (
        LogisticRegression(penalty=PerFeature()), table("logistic", 50), ApproximateLeaveOneOut(),
    ),
    "logistic laplace": (LogisticRegression(penalty=PerFeature()), table("logistic", 50), LaplaceEvidence()),
    "logistic auc": (
        LogisticRegression(penalty=PerFeature()), table("logistic", 60), KFold(folds=3, loss=SmoothedAuc()),
    ),
    CLASSES: (
        MultinomialRegression(penalty=PerCoefficient()), of_classes(), KFold(folds=3),
    ),
    "kernel ridge": (
        KernelRidge(kernel=Rbf(widths=WidthPerFeature()), penalty=KernelPenalty(initial=0.1)),
        regression(30, 3), KFold(folds=3),
    ),
    "kernel ridge evidence": (
        KernelRidge(kernel=Rbf(widths=WidthPerFeature()), penalty=KernelPenalty(initial=0.1)),
        regression(24, 3), Evidence(),
    ),
}  # fmt: skip
QUICK = {"ridge k_fold", "ridge leave_one_out", "ridge evidence", "ridge forms", "logistic holdout", "kernel ridge"}
ROUTES = [
    pytest.param(name, route, marks=() if name in QUICK else SLOW)
    for name in CASES
    for route in ((Implicit(), CholeskyBackprop()) if name.startswith("ridge") else (Implicit(),))
]


def job_of(name, route, outer=None):
    training, problem, selection = CASES[name]
    return prepare(problem, Plan(training, selection, route, outer or Lbfgs()))


def shared_at(job, t):
    """What the descent with a shared value would end with, were it at t."""
    tie = Tie.of(job.objective.hyperparameters)
    return Start.begin(Trial(tie.expanded(tied(job.objective, tie).evaluate(t)), 0, 0.0, None), 0.0)


def assert_derivatives(objective, rho, h, scale, atol):
    """Gradient and Hessian by differences; a direction in place of all coordinates."""
    at = objective.evaluate(rho)
    assert at.failure is None
    assert_allclose(at.value, objective.value(rho), rtol=1e-11)
    direction = np.random.default_rng(11).normal(size=len(rho))
    direction /= np.linalg.norm(direction)

    def along(t):
        return rho + t[0] * direction

    slope = differences(lambda t: objective.value(along(t)), np.zeros(1), h)[0]
    assert_allclose(slope, direction @ at.gradient, atol=atol * scale)
    if objective.has_hessian:
        bend = differences(lambda t: objective.evaluate(along(t)).gradient, np.zeros(1), h)[0]
        H = objective.hessian(rho)
        assert_allclose(H @ direction, bend, atol=10 * atol * scale)
        chosen = np.arange(len(rho))[::2]
        assert_allclose(objective.hessian(rho, chosen), H[np.ix_(chosen, chosen)], atol=1e-9 * scale)


@pytest.mark.parametrize(("name", "route"), ROUTES, ids=lambda value: getattr(value, "kind", value))
@pytest.mark.parametrize("held", [False, True], ids=["free", "floor"])
def test_derivatives_of_a_criterion_with_its_prior(name, route, held):
    """The unit is so large that R weighs as much as J does: a factor of R that is wrong shows."""
    job = job_of(name, route)
    box = job.objective.hyperparameters
    rng = np.random.default_rng(9)
    shared = shared_at(job, Tie.of(box).hyperparameters.initial + (2.0 if held else -2.0))
    prior = Descents(job).prior(shared, 0.5)
    rho = box.initial + 0.4 * rng.normal(size=len(box.names))
    assert [one.deviations(rho)[1] for one in prior.families] == [held] * len(box.families)
    scale = abs(job.objective.value(rho))
    heavy = HyperPrior(prior.families, scale)
    h, atol = (1e-3, 1e-7) if name != "logistic auc" else (1e-3, 1e-6)
    assert_derivatives(with_prior(job.objective, heavy), rho, h, scale, atol)
    own, added = job.objective.evaluate(rho), with_prior(job.objective, prior).evaluate(rho)
    R = 0.0
    for one in prior.families:
        t = rho[one.members] - one.origin
        centre = shared.best.rho[one.members[0]] if held else lowest_centre(t, 0.5)
        R += prior.c * phi(t - centre, 0.5).sum()
    assert_allclose(added.value - own.value, R, rtol=1e-6)
    assert (added.per_split == own.per_split).all()


@pytest.mark.parametrize(("name", "route"), ROUTES, ids=lambda value: getattr(value, "kind", value))
def test_derivatives_of_a_tied_criterion(name, route):
    job = job_of(name, route)
    tie = Tie.of(job.objective.hyperparameters)
    objective = tied(job.objective, tie)
    t = tie.hyperparameters.initial + 0.3 * np.random.default_rng(2).normal(size=len(tie.hyperparameters.names))
    assert_derivatives(objective, t, 1e-3, abs(objective.value(t)), 1e-6 if name == "logistic auc" else 1e-7)
    assert objective.value(t) == job.objective.value(tie.expand(t))
    assert_allclose(tie.reduce(tie.expand(t)), t, rtol=1e-14)


@pytest.mark.parametrize(
    "name", ["logistic holdout", *(pytest.param(name, marks=SLOW) for name in ("poisson k_fold", CLASSES))]
)
def test_error_bounds_of_an_approximation_hold_for_all_that_is_added(name):
    job = job_of(name, Implicit())
    box = job.objective.hyperparameters
    tie = Tie.of(box)
    prior = Descents(job).prior(shared_at(job, tie.hyperparameters.initial), 0.5)
    for objective, rho in (
        (with_prior(job.objective, prior), box.initial + 0.3), (tied(job.objective, tie), tie.hyperparameters.initial),
    ):  # fmt: skip
        exact = objective.evaluate(rho)
        objective.forget()
        rough = objective.approximate(rho, 1e-2)
        assert rough.value_error > 0
        assert abs(rough.value - exact.value) <= 1.01 * rough.value_error
        assert np.linalg.norm(rough.gradient - exact.gradient) <= 1.01 * rough.gradient_error
    at = tie.expand(tie.hyperparameters.initial)
    job.objective.forget()
    alone = job.objective.approximate(at, 1e-2)  # its errors may be equal in all members, and then they add up
    assert_allclose(rough.gradient_error, np.sqrt(len(at)) * alone.gradient_error)


def test_what_tells_of_rows_and_of_the_model_is_that_of_the_criterion():
    job = job_of("ridge k_fold", Implicit())
    prior = Descents(job).prior(shared_at(job, np.zeros(1)), 0.5)
    objective, rho = with_prior(job.objective, prior), np.linspace(-1.0, 1.0, 5)
    mine, own = (one.row_scores(job.problem, job.partition, rho) for one in (objective, job.objective))
    assert (mine.losses == own.losses).all()
    assert objective.residuals(rho) == job.objective.residuals(rho)
    assert (objective.natural(rho) == job.objective.natural(rho)).all()


def test_a_tie_keeps_the_constants_between_starts_and_the_box():
    """Boxes in units of the columns: one value moves all penalties, each in its own unit."""
    problem = regression(40, 3)
    scaled = Problem(problem.X * [1.0, 1e3, 1e-2], problem.y, problem.features)
    job = prepare(scaled, Plan(Ridge(standardize=False, penalty=PerFeature()), KFold(), Implicit(), Lbfgs()))
    box = job.objective.hyperparameters
    tie = Tie.of(box)
    assert tie.hyperparameters.names == ("penalty",)
    lam = np.exp(tie.expand(np.array([box.initial[0] + 1.0])))
    units = scaled.X.var(axis=0)
    assert_allclose(lam, np.e * units, rtol=1e-12)
    assert np.ptp(tie.offset) > 10
    for end, own in ((tie.hyperparameters.lower, box.lower), (tie.hyperparameters.upper, box.upper)):
        assert_allclose(tie.expand(end), own, rtol=1e-12)


def test_a_tie_of_unequal_boxes_is_inside_all_of_them():
    box = prepare(
        regression(40, 4), Plan(Ridge(penalty=PerFeature()), KFold(), Implicit(), Lbfgs())
    ).objective.hyperparameters
    for j, (low, high) in enumerate(((-3.0, 5.0), (-1.0, 9.0), (-7.0, 2.0), (-4.0, 4.0))):
        box.lower[j], box.upper[j] = low, high
        box.box[0][j], box.box[1][j] = np.exp(low), np.exp(high)
    tie = Tie.of(box)
    assert (tie.hyperparameters.lower, tie.hyperparameters.upper) == (-1.0, 2.0)
    assert_allclose(tie.hyperparameters.box, np.exp([[-1.0], [2.0]]))
    assert (tie.expand(np.array([2.0])) == 2.0).all()


def test_forms_of_one_kind_and_weights_of_time_are_tied_apart():
    training = Ridge(penalty=FORMS, weights=SigmoidTime())
    problem = regression(40, 6)
    problem = Problem(problem.X, problem.y, problem.features, time=np.arange(40.0))
    tie = Tie.of(prepare(problem, Plan(training, KFold(), Implicit(), Lbfgs())).objective.hyperparameters)
    assert tie.hyperparameters.names[:2] == ("penalty[identity]", "penalty[difference]")
    assert tie.to.tolist() == [0, 0, 1, 1, *range(2, len(tie.hyperparameters.names))]


STATIONARY = [
    (Newton(tolerance=1e-8), "ridge k_fold"), (Lbfgs(tolerance=1e-6), "ridge k_fold"),
    (Inexact(tolerance=1e-5), "logistic holdout"), (Newton(tolerance=1e-8), "ridge leave_one_out"),
    (Newton(tolerance=1e-8), "ridge noise_variance"), pytest.param(Lbfgs(tolerance=1e-5), "kernel ridge", marks=SLOW),
    pytest.param(Inexact(tolerance=1e-6), "poisson k_fold", marks=SLOW),
    pytest.param(Newton(tolerance=1e-8), CLASSES, marks=SLOW),
]  # fmt: skip


@pytest.mark.unchecked
@pytest.mark.parametrize(("outer", "name"), STATIONARY, ids=lambda value: getattr(value, "kind", value))
def test_each_search_ends_at_a_stationary_point_of_the_sum(outer, name):
    job = job_of(name, Implicit(), outer)
    box = job.objective.hyperparameters
    *_, last = tune(job)
    shared, *others = last.starts
    judged = name != "ridge noise_variance"  # evidence is no mean over rows
    assert [start.spread for start in last.starts] == ([0.0, *PATH] if judged else [0.0, WITHOUT_CHOICE])
    tie = Tie.of(box)
    sums = tie.sums(job.objective.evaluate(shared.best.rho).gradient)
    t = tie.reduce(shared.best.rho)
    assert shared.outcome is Outcome.CONVERGED
    assert np.abs(tie.hyperparameters.projected(t, sums)).max() <= outer.tolerance * abs(shared.best.value)
    for start in others:
        at = start.best
        assert start.outcome is Outcome.CONVERGED
        prior = Descents(job).prior(shared, start.spread)
        R = differences(prior.value, at.rho, 1e-3)
        total = job.objective.evaluate(at.rho).gradient + R
        assert_allclose(at.value, job.objective.value(at.rho) + prior.value(at.rho), rtol=1e-10)
        assert_allclose([at.prior, at.selection], [prior.value(at.rho), job.objective.value(at.rho)], rtol=1e-9)
        small = outer.tolerance * job.objective.unit(at.value)
        assert np.abs(box.projected(at.rho, total)).max() <= small + 1e-9 * abs(at.value)
    for narrow, wide in pairwise(last.starts):  # the wider prior costs less at the point of the narrower one
        assert wide.best.value <= narrow.best.value + 1e-9 * abs(narrow.best.value)


def test_the_unit_is_a_nat_or_twice_the_shared_optimum():
    """Of other losses: see `rule_in_loops`."""
    rows = {"ridge k_fold": 40, "poisson k_fold": None, "logistic holdout": None}
    for name, n in rows.items():
        job = job_of(name, Implicit())
        shared = shared_at(job, np.zeros(1))
        scored = np.concatenate([job.partition.rows(rows) for _, rows in job.partition.splits])
        w = job.problem.score_weights(scored)
        effective = w.sum() ** 2 / (w**2).sum()
        assert n is None or effective == n
        unit = 2.0 * shared.best.value if name.startswith("ridge") else 1.0
        assert_allclose(Descents(job).prior(shared, 0.5).c, unit / effective)
    job = job_of("ridge evidence", Implicit())
    assert Descents(job).prior(shared_at(job, np.zeros(1)), 0.5).c == 1.0


def test_groups_are_a_family_and_a_single_member_is_none():
    problem = regression(40, 5)
    families = [
        Ridge(penalty=penalty).hyperparameters(problem).families for penalty in (grouped(problem), PerFeature())
    ]
    assert [one.members.tolist() for (one,) in families] == [[0, 1, 2], [0, 1, 2, 3, 4]]
    alone = Problem(problem.X[:, :1], problem.y, ("x0",))
    assert Ridge(penalty=PerFeature()).hyperparameters(alone).families == ()
