"""Kernel machines: derivatives by differences, and results beside linear models, refits and scikit-learn."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize
from scipy.sparse import csr_array
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.linear_model import LogisticRegression as SklearnLogistic
from sklearn.svm import LinearSVC

from tests.oracles import differences
from worker.core.hypergradient import Implicit
from worker.core.kernels import Linear, Matern, Periodic, Polynomial, Rbf, SharedWidth, Sum, WidthPerFeature
from worker.core.losses import Brier, Huber, LogLoss, PlattLogLoss, SmoothedAuc, SmoothedError, SmoothedF
from worker.core.losses.training import HuberizedHingeLoss
from worker.core.outer import Lbfgs
from worker.core.records import Outcome, Start, Trial
from worker.core.rows.problem import Problem
from worker.core.search.plan import Plan, prepare
from worker.core.search.tune import tune
from worker.core.selection import Evidence, Holdout, KFold, LeaveOneOut, MarginalLikelihood, Reml, StratifiedKFold
from worker.core.selection.evidence_settings import NoiseVariance
from worker.core.training import KernelLogistic, KernelRidge, KernelSvm, LogisticRegression, Ridge, SquaredHinge
from worker.core.training.kernel_machines import KernelPenalty, Landmarks
from worker.core.verdict.certificates import certify
from worker.core.verdict.conclude import conclude

ARD = WidthPerFeature(spread=None)
KERNELS = {
    "rbf": Rbf(widths=ARD),
    "matern": Matern(nu="3/2", widths=ARD),
    "polynomial": Polynomial(widths=ARD),
    "sum": Sum(terms=(Rbf(widths=ARD), Linear())),
}
TRAININGS = {
    "ridge": KernelRidge,
    "svm": KernelSvm,
    "huberized": lambda **settings: KernelSvm(hinge="huberized", **settings),
    "logistic": KernelLogistic,
}


def table(n=48, *, classes=True, seed=0):
    random = np.random.default_rng(seed)
    X = random.normal(size=(n, 3)) * [1.0, 3.0, 0.5] + [0.0, 5.0, -1.0]
    t = np.sin(2.0 * X[:, 0]) + 0.3 * (X[:, 1] - 5.0) + 0.4 * random.normal(size=n)
    y, names = ((t > 0).astype(float), ("no", "yes")) if classes else (t, ())
    return Problem(X, y, ("a", "b", "c"), weights=random.uniform(0.5, 2.0, n), classes=names)


def objective_of(problem, training, selection):
    return prepare(problem, Plan(training, selection, Implicit(), Lbfgs())).objective


def assert_gradient(objective, rho, h=1e-3, rtol=1e-6):
    at = objective.evaluate(rho)
    assert at.failure is None
    assert_allclose(at.value, objective.value(rho), rtol=1e-10)
    direction = np.random.default_rng(5).normal(size=len(rho))
    direction /= np.linalg.norm(direction)
    slope = differences(lambda t: objective.value(rho + t[0] * direction), np.zeros(1), h)[0]
    assert_allclose(slope, direction @ at.gradient, rtol=rtol, atol=rtol * objective.unit(at.value))
    residuals = objective.residuals(rho)
    assert residuals.inner_gradient_norm < 1e-8
    assert residuals.adjoint_residual < 1e-8


@pytest.mark.parametrize("landmarks", [None, Landmarks(10)], ids=["exact", "landmarks"])
@pytest.mark.parametrize(("training", "kernel"), list(itertools.product(TRAININGS, KERNELS)))
def test_gradients_of_every_machine_and_kernel(training, kernel, landmarks):
    """Away from changes of the active set, where J has kinks: a step this short does not cross one here."""
    machine = TRAININGS[training](kernel=KERNELS[kernel], landmarks=landmarks, intercept=kernel != "matern")
    objective = objective_of(table(classes=training != "ridge"), machine, KFold(folds=3))
    rho = objective.hyperparameters.initial + np.random.default_rng(8).normal(
        scale=0.2, size=len(objective.hyperparameters.names)
    )
    assert_gradient(objective, rho, 1e-5 if training in {"svm", "huberized"} else 1e-3)


@pytest.mark.parametrize(
    ("training", "selection"),
    [
        (KernelSvm(), StratifiedKFold(folds=3, loss=PlattLogLoss())),
        (KernelSvm(class_weights="balanced"), Holdout(loss=SmoothedAuc())),
        (KernelSvm(), Holdout(loss=SmoothedF())),
        (KernelLogistic(class_weights={"yes": 3.0}), KFold(folds=3, loss=LogLoss())),
        (KernelLogistic(), KFold(folds=3, loss=Brier())),
        (KernelLogistic(), KFold(folds=3, loss=SmoothedError())),
        (KernelRidge(kernel=KERNELS["rbf"]), KFold(folds=3, loss=Huber(0.5))),
        (KernelRidge(kernel=KERNELS["rbf"]), LeaveOneOut()),
        (KernelRidge(kernel=KERNELS["sum"], intercept=False), LeaveOneOut(loss=Huber(0.5))),
        (KernelRidge(kernel=KERNELS["matern"]), Evidence()),
        (KernelRidge(kernel=KERNELS["rbf"], intercept=False), Evidence(NoiseVariance())),
        (KernelRidge(kernel=KERNELS["polynomial"]), Reml()),
        (KernelRidge(), MarginalLikelihood()),
        (KernelRidge(kernel=KERNELS["rbf"]), Reml(NoiseVariance())),
    ],
    ids=lambda one: one.kind if hasattr(one, "folds") or hasattr(one, "fraction") else None,
)
def test_gradients_of_every_selection(training, selection):
    objective = objective_of(table(classes=training.classifies), training, selection)
    rho = objective.hyperparameters.initial + 0.1
    assert_gradient(objective, rho, 1e-5 if training.kind == "kernel_svm" else 1e-3)


LAM = 0.05
FLAT = KernelPenalty(initial=LAM)
LINE = Linear()


@pytest.mark.parametrize(
    ("machine", "linear", "selection"),
    [
        (KernelRidge(LINE, FLAT), Ridge(), KFold(folds=4)),
        (KernelRidge(LINE, FLAT), Ridge(), LeaveOneOut()),
        (KernelRidge(LINE, FLAT), Ridge(), Evidence()),
        (KernelRidge(LINE, FLAT), Ridge(), Reml()),
        (KernelRidge(LINE, FLAT), Ridge(), Evidence(NoiseVariance(initial=0.7))),
        (KernelRidge(LINE, FLAT), Ridge(), Reml(NoiseVariance(initial=0.7))),
        (KernelLogistic(LINE, FLAT, class_weights="balanced"), LogisticRegression(class_weights="balanced"), KFold()),
        (KernelLogistic(LINE, FLAT), LogisticRegression(standardize=True), Holdout(loss=SmoothedAuc())),
        (KernelSvm(LINE, FLAT), SquaredHinge(), KFold(folds=4)),
        (KernelLogistic(LINE, FLAT, landmarks=Landmarks(40, nugget=1e-13)), LogisticRegression(), KFold(folds=4)),
    ],
)
def test_a_linear_kernel_gives_the_linear_model(machine, linear, selection):
    """Values and derivatives in the penalty, of code that has nothing in common."""
    problem = table(60, classes=machine.classifies)
    one, other = (objective_of(problem, training, selection) for training in (machine, linear))
    rho = np.append(np.log(LAM), other.hyperparameters.initial[1:])
    a, b = one.evaluate(rho), other.evaluate(rho)
    assert_allclose(a.value, b.value, rtol=1e-8)
    assert_allclose(a.gradient, b.gradient, rtol=1e-6, atol=1e-8 * one.unit(a.value))


def test_leave_one_out_is_n_refits():
    problem, training = table(25, classes=False), KernelRidge(Rbf(widths=ARD), KernelPenalty(initial=0.02))
    objective = objective_of(problem, training, LeaveOneOut())
    split, lam = objective.formula.split, np.exp(objective.hyperparameters.initial)
    errors = []
    for i in range(25):
        kept = np.delete(np.arange(25), i)
        left = split.X.rows(np.array([i]))
        part = replace(split, X=split.X.rows(kept), y=split.y[kept], shares=split.shares[kept], scored=left)
        fit = part.fit(training.kernel.over(problem.features), lam, None)
        errors.append(problem.y[i] - fit.scored[0])
    wanted = np.average(np.square(errors), weights=problem.weights)
    assert_allclose(objective.value(objective.hyperparameters.initial), wanted, rtol=1e-10)


def gaussian_process(problem, noise=True):
    training = KernelRidge(Rbf(widths=ARD), intercept=False, standardize=False)
    return prepare(
        problem, Plan(training, Evidence(NoiseVariance() if noise else None), Implicit(), Lbfgs(tolerance=1e-8))
    )


def test_evidence_is_that_of_scikit_learn():
    """At the same hyperparameters, and an optimum at least as good from the same start."""
    problem = table(40, classes=False)
    X = (problem.X - problem.X.mean(0)) / problem.X.std(0)
    problem = Problem(X, problem.y - problem.y.mean(), problem.features)
    prepared = gaussian_process(problem)
    lam, widths, s2 = 0.02, np.array([1.2, 0.8, 2.5]), 0.3
    amplitude = s2 / (40 * lam)
    theirs = GaussianProcessRegressor(
        ConstantKernel(amplitude, (1e-5, 1e8)) * RBF(widths, (1e-2, 1e4)) + WhiteKernel(s2, (1e-6, 1e6)), alpha=0.0
    )
    kernel = theirs.kernel
    value, gradient = (
        GaussianProcessRegressor(kernel, optimizer=None, alpha=0.0)
        .fit(X, problem.y)
        .log_marginal_likelihood(kernel.theta, eval_gradient=True)
    )
    rho = np.log(np.concatenate([[lam], widths, [s2]]))
    at = prepared.objective.evaluate(rho)
    assert_allclose(at.value, -value, rtol=1e-8)
    assert_allclose(at.gradient[1:4], -gradient[1:4], rtol=1e-7)
    assert_allclose(at.gradient[0], gradient[0], rtol=1e-7)  # the amplitude goes down as the penalty goes up
    best = list(tune(prepared))[-1].best.best
    theirs.fit(X, problem.y)
    assert best.value <= -theirs.log_marginal_likelihood_value_ + 1e-6


def test_profiled_noise_is_the_best_noise():
    problem = table(30, classes=False)
    free, tuned = gaussian_process(problem, noise=False).objective, gaussian_process(problem).objective
    rho = free.hyperparameters.initial
    s2 = free.noise_variance(rho)
    at = tuned.evaluate(np.append(rho, np.log(s2)))
    assert_allclose(at.value, free.value(rho), rtol=1e-12)
    assert abs(at.gradient[-1]) < 1e-10


@pytest.mark.parametrize("selection", [Evidence(NoiseVariance()), LeaveOneOut()], ids=lambda chosen: chosen.kind)
def test_the_level_of_the_target_costs_no_digits(selection):
    problem = table(40, classes=False)
    plan = Plan(KernelRidge(Rbf(widths=ARD)), selection, Implicit(), Lbfgs())
    here, far = (prepare(replace(problem, y=y), plan).objective for y in (problem.y, problem.y + 1e8))
    rho = here.hyperparameters.initial
    at, there = here.evaluate(rho), far.evaluate(rho)
    assert_allclose(there.value, at.value, rtol=1e-7)  # adding the level rounds the target itself to 1e-8
    assert_allclose(there.gradient, at.gradient, rtol=1e-6, atol=1e-7 * here.unit(at.value))


def test_decision_values_are_those_of_scikit_learn():
    """One kernel matrix for everybody: the linear kernel's machines are the linear machines of other solvers."""
    problem = table(60)
    X, lam = problem.X, 0.02
    problem = Problem(X, problem.y, problem.features, classes=problem.classes)
    svm = KernelSvm(LINE, intercept=False, standardize=False).model(
        Problem(X - X.mean(0), problem.y, problem.features), np.arange(60), np.array([lam])
    )
    theirs = LinearSVC(C=0.5 / (60 * lam), fit_intercept=False, dual=False, tol=1e-12, max_iter=100_000)
    theirs.fit(X - X.mean(0), problem.y)
    assert_allclose(svm.predict(X - X.mean(0)), theirs.decision_function(X - X.mean(0)), rtol=1e-5, atol=1e-6)
    ours = KernelLogistic(LINE, standardize=False).model(problem, np.arange(60), np.array([lam]))
    logistic = SklearnLogistic(C=1 / (60 * lam), tol=1e-12, max_iter=10_000).fit(X, problem.y)
    assert_allclose(ours.predict(X), logistic.decision_function(X), rtol=1e-5, atol=1e-6)


def test_support_rows_are_those_inside_the_margin():
    problem = table(60)
    model = KernelSvm(Rbf()).model(problem, np.arange(60), np.array([0.01, 1.5]))
    margins = (2 * problem.y - 1) * model.predict(problem.X)
    assert len(model.coefficients) == (margins < 1).sum() < 60
    kept = model.support.original + model.standard.mean
    assert_allclose(kept, problem.X[margins < 1], rtol=1e-12)


def test_weights_are_repetitions():
    problem = table(30)
    whole = Problem(problem.X, problem.y, problem.features, weights=np.arange(30) % 3 + 0.0, classes=problem.classes)
    repeated = np.repeat(np.arange(30), np.arange(30) % 3)
    listed = Problem(problem.X[repeated], problem.y[repeated], problem.features, classes=problem.classes)
    for machine in (KernelLogistic(), KernelSvm(), KernelSvm(hinge="huberized")):
        lam = np.array([0.02, 1.3])
        one = machine.model(whole, np.arange(30), lam)
        other = machine.model(listed, np.arange(len(repeated)), lam)
        assert_allclose(one.predict(problem.X), other.predict(problem.X), rtol=1e-7, atol=1e-9)


def test_sparse_rows_are_rows():
    problem = table(30)
    sparse = replace(problem, X=csr_array(problem.X))
    lam = np.array([0.02, 1.3])
    ones = [KernelLogistic().model(one, np.arange(30), lam) for one in (problem, sparse)]
    assert_allclose(*(one.predictor(two, np.arange(30)) for one, two in zip(ones, (problem, sparse), strict=True)))


def test_relevant_features_have_short_widths():
    """Six columns, of which two matter, found by the evidence."""
    random = np.random.default_rng(0)
    X = random.normal(size=(150, 6))
    y = np.sin(2.0 * X[:, 1]) + X[:, 4] ** 2 / 3 + 0.1 * random.normal(size=150)
    prepared = prepare(
        Problem(X, y, tuple("abcdef")), Plan(KernelRidge(Rbf(widths=ARD)), Evidence(), Implicit(), Lbfgs())
    )
    step = list(tune(prepared))[-1]
    assert step.ended is Outcome.CONVERGED
    widths = dict(zip("abcdef", prepared.objective.natural(step.best.best.rho)[1:], strict=True))
    assert 10.0 * max(widths["b"], widths["e"]) < min(widths[name] for name in "acdf")
    concluded = conclude(prepared, step.best)
    assert concluded.certificates.finite_difference_error < 1e-6
    assert_allclose(concluded.noise_variance, 0.01, rtol=0.4)


@pytest.mark.unchecked
def test_a_plateau_is_told():
    """Widths so short that no row is like another, or so long that all are alike: nothing is learnt, and it is told."""
    narrow = Rbf(widths=SharedWidth(initial=0.02, upper=0.03))
    for selection in (Evidence(), KFold(folds=3)):
        prepared = prepare(table(40, classes=False), Plan(KernelRidge(narrow), selection, Implicit(), Lbfgs()))
        concluded = conclude(prepared, list(tune(prepared))[-1].best)
        assert sum("No row is like another" in told for told in concluded.messages) == 1
    wide = Rbf(widths=SharedWidth(initial=1e7, lower=1e6, upper=1e8))
    for selection in (Evidence(), Evidence(NoiseVariance()), LeaveOneOut(), KFold(folds=3)):
        prepared = prepare(table(40, classes=False), Plan(KernelRidge(wide), selection, Implicit(), Lbfgs()))
        concluded = conclude(prepared, list(tune(prepared))[-1].best)
        assert sum("hardly better than that of a constant" in told for told in concluded.messages) == 1
    prepared = prepare(table(40, classes=False), Plan(KernelRidge(), KFold(folds=3), Implicit(), Lbfgs()))
    assert not conclude(prepared, list(tune(prepared))[-1].best).messages


def test_a_smooth_criterion_that_bends_sharply_is_certified():
    """Far from the first row the phase follows the period quickly: a difference needs a short step."""
    rng = np.random.default_rng(0)
    x = np.linspace(0.0, 50.0, 120)
    problem = Problem(x[:, None], np.sin(2 * np.pi * x / 20.0) + 0.05 * rng.normal(size=120), ("x",))
    objective = objective_of(problem, KernelRidge(Periodic()), Evidence())
    at = objective.evaluate(np.log([1e-2, 1.0, 20.0]))
    assert at.failure is None
    assert certify(objective, Start.begin(Trial(at, 0, 0.0, None)), 0).finite_difference_error < 1e-6


def test_a_search_goes_on_bit_for_bit():
    prepared = prepare(table(40), Plan(KernelSvm(Rbf(widths=ARD)), KFold(folds=3), Implicit(), Lbfgs(max_iterations=8)))
    steps = list(tune(prepared))
    state = next(step.state for step in steps[5:] if step.state is not None)
    fresh = prepare(table(40), Plan(KernelSvm(Rbf(widths=ARD)), KFold(folds=3), Implicit(), Lbfgs(max_iterations=8)))
    assert list(tune(fresh, state))[-1].best.best.rho.tobytes() == steps[-1].best.best.rho.tobytes()


@pytest.mark.parametrize("hinge", ["squared", "huberized"])
@pytest.mark.parametrize("lam", [1e-6, 1e2])
@pytest.mark.parametrize("width", [1e-2, 1e4])
def test_machines_at_the_corners_of_the_box(hinge, lam, width):
    """All rows alike or all different, free or held: a finite value or a named outcome, never an exception."""
    objective = objective_of(table(40), KernelSvm(Rbf(), hinge=hinge), KFold(folds=4))
    at = objective.evaluate(np.log([lam, width]))
    assert at.failure is None or at.failure in {Outcome.SINGULAR, Outcome.NON_FINITE}
    if at.failure is None:
        assert np.isfinite(at.gradient).all()
        assert objective.residuals(np.log([lam, width])).adjoint_residual < 1e-5


def test_constant_columns_and_duplicate_rows_do_no_harm():
    problem = table(40)
    X = np.column_stack([problem.X, np.full(40, 7.0)])
    X[1::2], y = X[::2], problem.y
    odd = Problem(X, y, ("a", "b", "c", "d"), classes=problem.classes)
    objective = objective_of(odd, KernelSvm(Rbf(widths=ARD)), KFold(folds=4))
    at = objective.evaluate(objective.hyperparameters.initial)
    assert at.failure is None
    assert abs(at.gradient[-1]) < 1e-20  # the width of the constant column


def test_slopes_of_the_huberized_hinge():
    loss, y, w = HuberizedHingeLoss(0.3), np.tile([0.0, 1.0], 40), np.ones(80)
    eta = np.linspace(-2.0, 2.0, 80)
    at = loss.at(y, eta[:, None], w)
    slopes = (loss.at(y, eta[:, None] + 1e-6, w).losses - loss.at(y, eta[:, None] - 1e-6, w).losses) / 2e-6
    assert_allclose(at.first, slopes, atol=1e-6)
    hinge = np.maximum(0.0, 1.0 - (2 * y - 1) * eta)
    assert (np.abs(at.losses - hinge) <= 0.3 / 4 + 1e-12).all()


def test_platts_line_is_the_best_one():
    random = np.random.default_rng(0)
    y = (random.uniform(size=50) > 0.4).astype(float)
    eta, w = 2.0 * y - 1.0 + 2.0 * random.normal(size=50), random.uniform(0.5, 2.0, 50)
    at = PlattLogLoss().at(y, eta[:, None], w)
    a, c = at.line

    def loss(line):
        z = line[0] * eta + line[1]
        return float(w @ (np.logaddexp(0.0, z) - at.t * z))

    assert_allclose(at.value, loss((a, c)), rtol=1e-12)
    assert_allclose(differences(loss, np.array([a, c]), 1e-3), 0.0, atol=1e-7)
    V = random.normal(size=(50, 1, 2))
    moved = [PlattLogLoss().at(y, eta[:, None] + s * 1e-4 * V[:, :, 0], w).slope for s in (1, -1)]
    assert_allclose(at.bend(V)[:, :, 0], (moved[0] - moved[1]) / 2e-4, atol=1e-5)
    separated = PlattLogLoss().at(y, (100.0 * (2 * y - 1))[:, None], w)
    assert np.isfinite(separated.value)
    assert np.isfinite(separated.line).all()


@pytest.mark.parametrize("landmarks", [None, Landmarks(6)], ids=["exact", "landmarks"])
def test_where_no_row_is_curved(landmarks):
    """A large penalty: every row is on the straight part of the hinge, and the intercept follows two of them."""
    training = KernelSvm(hinge="huberized", penalty=KernelPenalty(initial=400.0, upper=1e3), landmarks=landmarks)
    y = np.array([0.0, 1, 0, 1, 0, 1, 0, 1])
    problem = Problem(np.random.default_rng(0).normal(size=(8, 2)), y, ("a", "b"), classes=("0", "1"))
    objective = objective_of(problem, training, Holdout(validation_rows=(0, 1)))
    assert_gradient(objective, objective.hyperparameters.initial)


def test_too_many_rows_are_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r"about 16 GB .*landmarks"):
        KernelRidge().check_size(20_000, 5)
    KernelRidge(landmarks=Landmarks(500)).check_size(20_000, 5)


@pytest.mark.unchecked
@pytest.mark.parametrize("landmarks", [None, Landmarks(10)], ids=["exact", "landmarks"])
def test_platts_line_of_the_result_counts_rows(landmarks):
    problem = table(60)
    prepared = prepare(problem, Plan(KernelSvm(landmarks=landmarks), KFold(loss=PlattLogLoss()), Implicit(), Lbfgs(3)))
    *_, last = tune(prepared)
    pooled = prepared.objective.pooled(last.best.best.rho)
    y, eta = pooled.y, pooled.eta[:, 0]
    w = np.concatenate([problem.score_weights(prepared.partition.rows(v)) for _, v in prepared.partition.splits])
    positive, negative = w @ y, w @ (1 - y)
    t = np.where(y > 0, (positive + 1) / (positive + 2), 1 / (negative + 2))
    found = minimize(
        lambda line: w @ (np.logaddexp(0, line[0] * eta + line[1]) - t * (line[0] * eta + line[1])), [1, 0]
    )
    assert_allclose(conclude(prepared, last.best).calibration, found.x, rtol=1e-3, atol=1e-3)


def test_a_row_without_weight_is_as_good_as_absent_from_leave_one_out():
    problem = table(40, classes=False)
    problem.weights[[3, 17]] = 0.0
    kept = np.flatnonzero(problem.weights)
    rest = Problem(problem.X[kept], problem.y[kept], problem.features, weights=problem.weights[kept])
    for selection in (LeaveOneOut(), Evidence()):
        one, other = (objective_of(p, KernelRidge(kernel=KERNELS["rbf"]), selection) for p in (problem, rest))
        rho = np.array([-3.0, 0.5, 0.1, 0.3])
        assert_allclose(one.value(rho), other.value(rho), rtol=1e-12)
        assert_allclose(one.evaluate(rho).gradient, other.evaluate(rho).gradient, rtol=1e-10)
    with pytest.raises(ValueError, match="scores training rows only"):
        objective_of(replace(problem, scoring=np.ones(40)), KernelRidge(), LeaveOneOut())


@pytest.mark.parametrize("landmarks", [None, Landmarks(6)], ids=["exact", "landmarks"])
def test_a_constant_target_is_fitted(landmarks):
    problem = replace(table(30, classes=False), y=np.full(30, 3.3))
    objective = objective_of(problem, KernelRidge(landmarks=landmarks), KFold())
    at = objective.evaluate(np.array([-3.0, 0.5]))
    assert at.failure is None
    assert at.value < 1e-28
    assert objective.residuals(at.rho).inner_gradient_norm < 1e-12


@pytest.mark.parametrize("training", TRAININGS)
def test_columns_that_are_all_constant_are_trained_on_exactly(training):
    problem = table(30, classes=training != "ridge")
    problem = replace(problem, X=np.ones_like(problem.X))
    objective = objective_of(problem, TRAININGS[training](), Holdout(fraction=0.4))
    assert objective.residuals(np.array([-3.0, 0.5])).inner_gradient_norm < 1e-10


@pytest.mark.unchecked
@pytest.mark.parametrize("landmarks", [None, Landmarks(12)], ids=["exact", "landmarks"])
@pytest.mark.parametrize("kernel", [Rbf(), Linear()], ids=["rbf", "linear"])
@pytest.mark.parametrize("training", ["logistic", "svm", "huberized"])
def test_a_fit_does_not_depend_on_where_it_began(training, kernel, landmarks):
    problem = table(50)
    partition = KFold(folds=2).partition(np.arange(50), 50)
    machine = replace(TRAININGS[training](kernel=kernel), landmarks=landmarks)
    objective = KFold(folds=2).objective(problem, partition, machine, Implicit())
    far, rho = np.array([np.log(1e-13), 1.0]), np.array([-3.0, 0.5])
    k = len(objective.hyperparameters.names)
    far, rho = far[:k], rho[:k]
    cold = objective.evaluate(rho)
    objective.forget()
    objective.evaluate(far)  # decision values at which no row is curved
    warm = objective.evaluate(rho)
    assert_allclose(warm.value, cold.value, rtol=1e-9)
    assert_allclose(warm.gradient, cold.gradient, rtol=1e-6, atol=1e-9)


def test_a_fit_whose_values_fall_by_many_digits_is_exact():
    rng = np.random.default_rng(27)
    X = rng.normal(size=(40, 2))
    y = (X[:, 0] + 0.5 * rng.normal(size=40) > 0).astype(float)
    problem = Problem(X, y, ("a", "b"), classes=("u", "v"))
    objective = objective_of(problem, KernelLogistic(Polynomial(degree=3)), StratifiedKFold(folds=2))
    assert objective.residuals(np.array([-13.3, -3.4, -0.5])).inner_gradient_norm < 1e-9


@pytest.mark.unchecked
def test_a_search_ends_at_the_lowest_point_that_it_saw():
    # here L-BFGS-B converges on a plateau, after a line search had passed by a valley
    random = np.random.default_rng(3)
    problem = Problem(random.normal(size=(25, 3)), random.normal(size=25), ("a", "b", "c"))
    training = KernelRidge(penalty=KernelPenalty(initial=1.0))
    prepared = prepare(problem, Plan(training, KFold(), Implicit(), Lbfgs()))
    steps = list(tune(prepared))
    assert steps[-1].ended is Outcome.CONVERGED
    assert steps[-1].best.gradient_norm <= 1e-6
    states = [step.state for step in steps if step.state is not None]
    begun = [i for i, state in enumerate(states) if state.search["begins"]]
    assert begun, "it did not begin anew: another problem is needed here"
    for state in states[begun[0] - 1 : begun[0] + 2]:
        *_, again = tune(prepared, state)
        assert (again.best.best.rho == steps[-1].best.best.rho).all()
        assert again.evaluations == steps[-1].evaluations


@pytest.mark.parametrize("share", [2.0**-60, 2.0**60])
def test_the_units_of_the_target_change_nothing(share):
    problem = table(30, classes=False)
    rho = np.array([-3.0, 0.5])
    one, other = (
        objective_of(replace(problem, y=y), KernelRidge(), KFold(folds=3)).evaluate(rho)
        for y in (problem.y, problem.y * share)
    )
    assert_allclose(other.value, share**2 * one.value, rtol=1e-12)
    assert_allclose(other.gradient, share**2 * one.gradient, rtol=1e-10)
