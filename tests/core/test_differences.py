"""Differences judge gradients by their own error: right ones raise no alarm, wrong ones are seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from worker.core.hypergradient import HypergradientAuto
from worker.core.hyperparameters import Hyperparameters
from worker.core.kernels import Periodic, Product, Rbf, Sum
from worker.core.kernels.stationary import Period
from worker.core.losses import SquaredError
from worker.core.objective.objective import Found, Objective
from worker.core.outer import OuterAuto
from worker.core.penalties import PerFeature, Shared
from worker.core.records import Evaluation, Outcome, Start, Trial
from worker.core.rows.problem import Problem
from worker.core.search.plan import Plan, prepare
from worker.core.search.tune import tune
from worker.core.selection import Evidence, Holdout, KFold, LeaveOneOut, WalkForward
from worker.core.training import KernelRidge, Ridge
from worker.core.verdict.certificates import DIFFERENCE_LIMIT, certify
from worker.core.verdict.conclude import conclude
from worker.core.verdict.differences import Line, ladder, slopes
from worker.core.verdict.remarks import GRADIENT_DISAGREES, GRADIENT_NOT_JUDGED, NEARLY_SINGULAR
from worker.core.weights import SigmoidTime

pytestmark = pytest.mark.unchecked
MOST_VALUES = (
    88  # of a certificate: 24 at the point, one or 4 to look at its gradient, 15 at each of 4 points beside it
)
NOISE = 1e-13


def noisy(f):
    """The function with an error of its values that depends on their place alone, as rounding does."""
    return lambda t: f(t) * (1.0 + NOISE * np.sin(1e15 * t + 0.1))


def found_slopes(f, longest, *, both_sides):
    line = Line(noisy(f), noisy(f)(0.0), 1e-15, both_sides)
    return list(slopes(line, ladder(longest, both_sides=both_sides)))


@pytest.mark.parametrize("both_sides", [True, False])
@pytest.mark.parametrize("frequency", [1.0, 30.0, 1e3, 2e4])
def test_an_error_that_is_stated_holds_and_becomes_small(frequency, both_sides):
    for phase in (0.0, 0.7, 1.3, 2.1):
        found = found_slopes(lambda t, phase=phase: 2.0 + np.sin(frequency * t + phase), 2e-2, both_sides=both_sides)
        exact = frequency * np.cos(phase)
        small = [slope for slope in found if slope.error <= DIFFERENCE_LIMIT]  # they judge a gradient
        assert small
        for slope in small:
            assert abs(slope.value - exact) <= 1e-6 + 3 * slope.error


@pytest.mark.parametrize("frequency", [0.3, 1.0])
def test_four_values_are_enough_for_a_smooth_function(frequency):
    for both_sides, count in ((True, 2), (False, 4)):
        steps = ladder(2e-2, both_sides=both_sides)[:count]
        (slope,) = slopes(Line(lambda t: np.exp(frequency * t), 1.0, 1e-15, both_sides), steps)
        assert abs(slope.value - frequency) < 1e-5
        assert slope.error < DIFFERENCE_LIMIT


@pytest.mark.parametrize("jump", [1e-3, 1.0])
@pytest.mark.parametrize("place", [0.0, 1e-9, 3e-7])
def test_no_slope_is_claimed_on_a_corner(jump, place):
    for slope in found_slopes(lambda t: 1.0 + t + jump * abs(t - place), 2e-2, both_sides=True):
        gradient = 1.0 - jump if place else 1.0 + jump
        assert slope.error > 0.1 * jump or abs(slope.value - gradient) <= slope.error


def test_a_narrow_dip_at_the_point_is_seen():
    """All values but that at the point are equal: a difference of them is zero, and says nothing."""
    found = found_slopes(lambda t: 1.0 - 1e-3 * np.exp(-((t / 1e-4 - 0.5) ** 2)), 2e-2, both_sides=True)
    exact = -1e-3 * np.exp(-0.25) / 1e-4
    assert found[0].error > 1e-2
    assert min(abs(slope.value - exact) for slope in found) < 1e-5


@pytest.mark.parametrize("both_sides", [True, False])
def test_steps_at_which_J_is_not_finite_do_not_count(both_sides):
    values = []

    def J(t):
        values.append(abs(t))
        return np.inf if abs(t) > 1e-3 else np.exp(t)

    found = list(slopes(Line(J, 1.0, 1e-15, both_sides), ladder(2e-2, both_sides=both_sides)))
    assert max(values) > 1e-3
    assert found
    for slope in found:
        assert abs(slope.value - 1.0) <= slope.error < 1e-3


def of_times(seed):
    """Two regimes of a linear model; the weights of time become nearly a step, in which J has wiggles."""
    random = np.random.default_rng([3, seed])
    n, p = int(random.integers(15, 250)), int(random.integers(1, 6))
    X, (before, after) = random.normal(size=(n, p)), random.normal(size=(2, p))
    late = np.arange(n) > random.uniform(0.1, 0.9) * n
    y = np.where(late, X @ after, X @ before) + random.choice([0.01, 0.1, 0.5]) * random.normal(size=n)
    last = Holdout(validation_rows=tuple(range(n - n // 5, n)))
    selection = (WalkForward(initial=max(n // 2, p + 3), horizon=max(n // 10, 1)), last, KFold(folds=4))[seed % 3]
    weights = SigmoidTime(steepness=float(random.choice([30.0, 300.0, 1000.0])), midpoint=random.uniform())
    training = Ridge(penalty=PerFeature() if seed % 2 else Shared(), weights=weights)
    return prepared(X, y, training, selection)


def of_periods(seed):
    """Waves that repeat up to 300 times in the rows, with noise: J bends the more sharply in the period."""
    random = np.random.default_rng([2, seed])
    n, p = int(random.integers(20, 80)), int(random.integers(1, 3))
    period, repeats = random.choice([0.3, 7.0]), random.choice([3.0, 30.0, 300.0])
    t = np.sort(random.uniform(0, repeats * period, n))
    y = np.sin(2 * np.pi * t / period) + random.choice([0.1, 0.5]) * random.normal(size=n)
    wave = Periodic(features=("x0",), period=Period(initial=period * np.exp(0.01 * random.normal())), name="p")
    kernel = (wave, Sum(terms=(wave, Rbf(name="r"))), Product(factors=(wave, Rbf(name="r"))))[seed % 3]
    selection = (KFold(folds=3), Evidence(), LeaveOneOut(), Holdout(fraction=0.3))[seed // 3 % 4]
    return prepared(np.column_stack([t, random.normal(size=(n, p - 1))]), y, KernelRidge(kernel=kernel), selection)


def of_many(k):
    """One penalty for each of many features; those of idle ones go to their upper bound."""
    random = np.random.default_rng(k)
    X = random.normal(size=(2 * k, k))
    y = X[:, :3].sum(axis=1) + random.normal(size=2 * k)
    return prepared(X, y, Ridge(penalty=PerFeature()), KFold(folds=3))


def prepared(X, y, training, selection):
    features = tuple(f"x{j}" for j in range(X.shape[1]))
    return prepare(Problem(X, y, features), Plan(training, selection, HypergradientAuto(), OuterAuto()))


class Watched:
    """The formula of an objective; its gradient may be wrong. No point may lie outside the box."""

    def __init__(self, objective, wrong=None):
        self.inner, self.box, self.wrong, self.values = objective.formula, objective.hyperparameters, wrong, 0
        self.unit = objective.unit

    def value(self, rho):
        self.values += 1
        assert (rho >= self.box.lower).all()
        assert (rho <= self.box.upper).all()
        return self.inner.value(rho)

    def found(self, rho):
        self.values += 1
        at = self.inner.found(rho)
        if at is None or self.wrong is None:
            return at
        return replace(at, gradient=at.gradient + self.wrong * self.unit(at.value))

    def residuals(self, rho):
        return self.inner.residuals(rho)


def judged(objective, best, wrong=None, seed=0):
    """The certificates of the best point by differences, with the gradient of a formula that may be wrong."""
    formula = Watched(objective, wrong)
    watched = replace(objective, formula=formula)
    at = best.best if wrong is None else watched.evaluate(best.best.rho)
    formula.values = 0
    certificates = certify(watched, replace(best, best=at), seed)
    assert formula.values <= MOST_VALUES
    return certificates, formula.values


def begun(plan):
    """The search after its first evaluation."""
    return Start.begin(Trial(plan.objective.evaluate(plan.objective.hyperparameters.start(0, 0)), 0, 0.0, None))


def check(objective, best):
    """A right gradient raises no alarm; one that is wrong by a thousandth of J in a single component does."""
    certificates, _ = judged(objective, best)
    assert certificates.judged
    assert certificates.finite_difference_error <= DIFFERENCE_LIMIT
    k = len(best.best.rho)
    for j in {0, k - 1}:
        certificates, _ = judged(objective, best, 1e-3 * np.eye(k)[j], seed=j)
        assert certificates.finite_difference_error > DIFFERENCE_LIMIT


@pytest.mark.parametrize("seed", [19, 30, 54])
def test_midpoints_of_weights_are_judged(seed):
    plan = of_times(seed)
    check(plan.objective, begun(plan))


@pytest.mark.parametrize("seed", [1, 2, 5, 7, 9, 14])
def test_periods_are_judged(seed):
    plan = of_periods(seed)
    check(plan.objective, begun(plan))


def test_each_of_many_derivatives_is_judged():
    plan = of_many(100)
    check(plan.objective, begun(plan))


@pytest.mark.slow
@pytest.mark.parametrize("job", [of_times, of_periods])
@pytest.mark.parametrize("seed", range(40))
def test_results_are_judged(job, seed):
    """No right gradient is contradicted; differences fail to judge only where training is close to singular."""
    plan = job(seed)
    *_, last = tune(plan)
    messages = set(conclude(plan, last.best).messages)
    assert GRADIENT_DISAGREES not in messages
    assert GRADIENT_NOT_JUDGED not in messages or NEARLY_SINGULAR in messages
    if GRADIENT_NOT_JUDGED not in messages:
        check(plan.objective, last.best)


@pytest.mark.parametrize("initial", [1.0, 1e-6, 1e6])
def test_a_smooth_criterion_takes_four_values_at_a_bound_too(initial):
    random = np.random.default_rng(0)
    X = random.normal(size=(40, 3))
    penalty = PerFeature(initial=initial)
    plan = prepared(X, X.sum(axis=1) + random.normal(size=40), Ridge(penalty=penalty), KFold(folds=3))
    certificates, values = judged(plan.objective, begun(plan))
    assert certificates.finite_difference_error < 1e-6
    assert values == 4


class Noise:
    """A J whose values are noise: no difference of them can judge."""

    def value(self, rho):
        return 1.0 + 1e-3 * float(np.sin(1e15 * rho.sum()))

    def found(self, rho):
        return Found(self.value(rho), np.zeros(len(rho)), np.ones(1))

    def residuals(self, rho):  # noqa: ARG002 - as every formula
        return None


def test_where_no_difference_can_judge_the_certificate_bounds_and_says_so():
    box = Hyperparameters.positive(("a", "b"), 1.0, 1e-3, 1e3)
    objective = Objective(Noise(), box, SquaredError(), "primal")
    best = Start.begin(Trial(objective.evaluate(np.array([0.1, 0.2])), 0, 0.0, None))
    certificates, values = judged(objective, best)
    assert not certificates.judged
    assert DIFFERENCE_LIMIT < certificates.finite_difference_error < 1.0
    assert values > 50


def test_an_approximate_gradient_within_its_bound_is_not_wrong():
    plan = of_many(10)
    best = begun(plan)
    at = best.best
    for off, bound, wrong in ((1e-3, 2e-3, False), (1e-2, 2e-3, True)):
        gradient = at.gradient + off * at.value * np.eye(10)[4]
        approximate = replace(at, gradient=gradient, value_error=1e-6, gradient_error=bound * at.value)
        error = judged(plan.objective, replace(best, best=approximate))[0].finite_difference_error
        assert (error > DIFFERENCE_LIMIT) == wrong


def test_where_training_fails_around_the_point_nothing_is_judged():
    class Alone(Noise):
        def value(self, rho):
            return 1.0 if not rho.any() else np.inf

    objective = Objective(Alone(), Hyperparameters.positive(("a",), 1.0, 1e-3, 1e3), SquaredError(), "primal")
    at = Evaluation(np.zeros(1), 1.0, np.zeros(1), np.ones(1))
    certificates, _ = judged(objective, Start(at, at, 0.0, 1, 1, Outcome.CONVERGED))
    assert not certificates.judged
