"""The gradient of the training criterion at the model that is returned, recomputed with NumPy from its coefficients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.sparse import csr_array
from scipy.special import expit, softmax

from tests.core.conftest import regression
from worker.core.family import members
from worker.core.hypergradient import HypergradientAuto
from worker.core.inner.kernel import damped_newton
from worker.core.kernels import Linear, Polynomial
from worker.core.outer import OuterAuto
from worker.core.penalties import PerFeature
from worker.core.records import Start, Trial
from worker.core.search.plan import Plan, prepare
from worker.core.selection import KFold
from worker.core.training import (
    HuberRegression,
    KernelLogistic,
    KernelRidge,
    KernelSvm,
    LinearTraining,
    LogisticRegression,
    PoissonRegression,
    Quadratic,
    Ridge,
)
from worker.core.training.kernel_machines import Landmarks
from worker.core.verdict.certificates import RESIDUAL_LIMIT
from worker.core.verdict.conclude import conclude
from worker.core.weights import SigmoidTime

pytestmark = pytest.mark.unchecked

HEALTHY = 1e-9
HALF_WIDTH = 0.3
ONE = "The returned model is the minimum of its training criterion to"


def sign(y):
    return 2 * y - 1


SLOPES = {  # of a row's loss in eta
    "ridge": lambda y, eta: eta - y,
    "kernel_ridge": lambda y, eta: eta - y,
    "logistic": lambda y, eta: expit(eta) - y,
    "kernel_logistic": lambda y, eta: expit(eta) - y,
    "squared_hinge": lambda y, eta: -sign(y) * np.maximum(0.0, 1 - sign(y) * eta),
    "kernel_svm": lambda y, eta: -sign(y) * np.maximum(0.0, 1 - sign(y) * eta),
    "huberized": lambda y, eta: -sign(y) * np.clip((1 - sign(y) * eta + HALF_WIDTH) / (2 * HALF_WIDTH), 0.0, 1.0),
    "poisson": lambda y, eta: np.exp(eta) - y,
    "gamma": lambda y, eta: 1 - y * np.exp(-eta),
    "multinomial": lambda y, eta: softmax(eta, axis=1) - np.eye(eta.shape[1])[y[:, 0].astype(int)],
}
LINEAR = [
    *(one() for one in members(LinearTraining)),
    Ridge(penalty=PerFeature(), intercept=False),
    Ridge(penalty=PerFeature(), standardize=False),
    Ridge(penalty=PerFeature(), weights=SigmoidTime()),
    LogisticRegression(penalty=PerFeature(), class_weights="balanced"),
    LogisticRegression(penalty=PerFeature(), solver="newton_cg"),
    PoissonRegression(intercept=False),
]
MACHINES = [
    KernelRidge(),
    KernelSvm(),
    KernelSvm(hinge="huberized", half_width=HALF_WIDTH),
    KernelLogistic(class_weights="balanced"),
    KernelSvm(Linear(), hinge="huberized", half_width=HALF_WIDTH, landmarks=Landmarks(12)),
    KernelSvm(Polynomial(), landmarks=Landmarks(30)),
    KernelRidge(intercept=False, landmarks=Landmarks(10)),
]


def name_of(training):
    return training.kind + ("_weighted" if getattr(training, "weights", None) else "")


def shares(training, problem, lam, penalties):
    w = problem.weights.copy()
    if getattr(training, "class_weights", None) == "balanced":
        counts = np.bincount(problem.y.astype(int), w)
        w *= (counts.sum() / len(counts) / counts)[problem.y.astype(int)]
    if getattr(training, "weights", None):
        steepness, midpoint = lam[penalties:]
        t = (problem.time - problem.time.min()) / np.ptp(problem.time)
        w *= expit(steepness * (t - midpoint))
    return w / w.sum(), problem.weights if not getattr(training, "class_weights", None) else w


def gradient(training, problem, lam, model):
    """Gradient in slopes and intercepts with the sum of the sizes of its terms, of each output: p + 1 numbers."""
    X, b, c = problem.X, np.atleast_2d(model.coefficients), np.atleast_1d(model.intercept)
    p = X.shape[1]
    penalties = p if training.penalty.kind == "per_feature" else 1
    s, base = shares(training, problem, lam, penalties)
    eta = c + X @ b.T + (0.0 if problem.offset is None else problem.offset[:, None])
    if training.kind == "huber":
        delta = training.row_loss(problem, np.arange(len(X))).delta
        slope = s[:, None] * np.clip(eta - problem.y[:, None], -delta, delta)
    else:
        slope = s[:, None] * SLOPES[training.kind](problem.y[:, None], eta)
    mean = base @ X / base.sum()
    scale = base @ (X - mean) ** 2 / base.sum() if training.standardize else np.ones(p)
    prior = np.broadcast_to(lam[:penalties], p) * scale * b
    Z = X - mean * training.intercept
    g, size = slope.T @ Z + prior, np.abs(slope).T @ np.abs(Z) + np.abs(prior)
    if training.intercept:
        g, size = np.column_stack([g, slope.sum(axis=0)]), np.column_stack([size, np.abs(slope).sum(axis=0)])
    return g, size


def refit(training, factor=1.7):
    problem = training.example()
    box = training.hyperparameters(problem)
    lam = box.natural(box.initial) * factor
    return problem, lam, training.model(problem, np.arange(len(problem.y)), lam)


@pytest.mark.parametrize("training", LINEAR, ids=name_of)
def test_a_linear_model_is_a_minimum_and_its_norm_says_so(training):
    problem, lam, model = refit(training)
    g, size = gradient(training, problem, lam, model)
    assert np.abs(g / size).max() < HEALTHY
    assert 0 <= model.gradient_norm < HEALTHY


@pytest.mark.parametrize("training", LINEAR, ids=name_of)
def test_a_model_beside_the_minimum_has_the_norm_of_the_distance(training):
    """Of its slopes and of its intercept: each is seen, in units of its own."""
    problem, lam, model = refit(training)
    rows = np.arange(len(problem.y))
    moves = [np.zeros(np.atleast_2d(model.coefficients).shape[1]) for _ in range(3)]
    for j, move in enumerate(moves):
        move[j] = 1.0
    for relative in (1e-2, 1e-5):
        for move in moves:
            moved = replace(model, coefficients=model.coefficients * (1 + relative * move))
            norm = training._gradient_norm(moved, problem, rows, lam)
            share = np.abs(model.coefficients * move).max() / np.abs(model.coefficients).max()
            assert 1e-2 * share * relative < norm < 30 * relative
        if training.intercept and training.kind != "multinomial":
            moved = replace(model, intercept=model.intercept + relative)
            assert 1e-2 * relative < training._gradient_norm(moved, problem, rows, lam) < 30 * relative


def test_the_norm_of_ridge_is_what_it_is_said_to_be():
    training = Ridge(penalty=PerFeature())
    problem, lam, model = refit(training)
    model = replace(model, coefficients=model.coefficients * [1.0, 1.1, 0.9, 1.3], intercept=model.intercept + 0.2)
    X, y, s = problem.X, problem.y, problem.weights / problem.weights.sum()
    mean = s @ X
    variance = s @ (X - mean) ** 2
    slope = s * (model.intercept + X @ model.coefficients - y)
    g, h = slope @ (X - mean) + lam * variance * model.coefficients, (1 + lam) * variance
    size = np.sqrt(h @ model.coefficients**2)
    expected = np.sqrt(np.sum(g**2 / h)) / size + abs(slope.sum()) / (s @ np.abs(y))
    norm = training._gradient_norm(model, problem, np.arange(len(y)), lam)
    assert_allclose(norm, expected, rtol=1e-10)


@pytest.mark.parametrize("training", MACHINES, ids=lambda one: f"{one.kind}-{one.kernel.kind}")
def test_a_kernel_machine_is_a_minimum_and_its_norm_says_so(training):
    """The gradient in the space of the kernel, from the model document's numbers alone."""
    problem, lam, model = refit(training)
    norm = machine_norm(training, problem, lam, model)
    assert norm < RESIDUAL_LIMIT
    assert model.gradient_norm < RESIDUAL_LIMIT
    assert norm < HEALTHY or training.kernel.kind == "polynomial"


def machine_norm(training, problem, lam, model):
    s = shares(training, problem, lam, 1)[0]
    f = model.predict(problem.X)
    kind = "huberized" if getattr(training, "hinge", "") == "huberized" else training.kind
    g, g_0 = (s * SLOPES[kind](problem.y, eta) for eta in (f, np.zeros(len(f))))
    points = model.standard.of(problem.X)
    theta = model.coefficients
    K = model.kernel.at(model.support, points, model.lam).K
    among = model.kernel.at(model.support, model.support, model.lam).K
    if training.landmarks is None:
        # lam f - ... in the space of the kernel: lam sum theta_i k_i + sum g_i k_i
        whole = model.kernel.at(points, points, model.lam).K
        v = np.zeros(len(f))
        v[[int(np.flatnonzero((points.scaled == row).all(axis=1))[0]) for row in model.support.scaled]] = lam[0] * theta
        square, square_0 = ((v + g) @ whole @ (v + g), g_0 @ whole @ g_0)
    else:
        among = among + training.landmarks.nugget * np.mean(np.diag(among)) * np.eye(len(among))
        in_gamma, at_zero = lam[0] * among @ theta + K @ g, K @ g_0
        square, square_0 = (v @ np.linalg.lstsq(among, v, rcond=1e-15)[0] for v in (in_gamma, at_zero))
    imbalance = abs(g.sum()) / np.abs(g_0).sum() if training.intercept else 0.0
    return np.sqrt(max(square, 0.0) / square_0) + imbalance


@pytest.mark.parametrize(
    "training",
    [KernelSvm(hinge="huberized", half_width=HALF_WIDTH), KernelLogistic(), KernelSvm(landmarks=Landmarks(20))],
    ids=lambda one: one.kind,
)
def test_training_that_ends_too_early_is_seen_in_the_model(training, monkeypatch):
    """Fits of the splits are whatever they are: the norm is that of the model."""
    monkeypatch.setattr(damped_newton, "LARGEST_EXACT_DECREMENT", 0.1)
    problem, lam, model = refit(training, 0.3)
    norm = machine_norm(training, problem, lam, model)
    assert norm > 1e-5
    assert_allclose(model.gradient_norm, norm, rtol=1e-5)


def test_the_minimizer_of_given_matrices_is_the_model():
    training = Quadratic()
    problem, lam, model = refit(training)
    criteria = problem.criteria
    h = np.append(1.0, lam)
    H = sum(
        f * np.asarray(A.toarray() if hasattr(A, "toarray") else A) for f, A in zip(h, criteria.matrices, strict=True)
    )
    b = criteria.vectors @ h
    residual = np.linalg.norm(H @ model.coefficients - b) / np.linalg.norm(b)
    assert residual < 1e-12
    assert model.gradient_norm < 1e-12


def concluded(training, problem):
    plan = Plan(training, KFold(folds=3), HypergradientAuto(), OuterAuto())
    prepared = prepare(problem, plan)
    at = prepared.objective.evaluate(prepared.objective.hyperparameters.initial)
    start = Start.begin(Trial(at, 0, prepared.outer.relative_gradient(prepared.objective, at), None))
    return conclude(prepared, start)


def test_a_refit_that_is_no_minimum_gets_a_certificate_and_a_message(monkeypatch):
    problem = KernelSvm.example()
    training = KernelSvm(hinge="huberized", half_width=HALF_WIDTH)
    good = concluded(training, problem)
    assert good.certificates.refit_gradient_norm < HEALTHY
    assert not any(message.startswith(ONE) for message in good.messages)
    model = KernelSvm.model

    def ended_early(self, *arguments):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(damped_newton, "LARGEST_EXACT_DECREMENT", 0.1)
            return model(self, *arguments)

    monkeypatch.setattr(KernelSvm, "model", ended_early)
    bad = concluded(training, problem)
    assert bad.certificates.inner_gradient_norm < HEALTHY  # fits of the splits
    assert bad.certificates.refit_gradient_norm > RESIDUAL_LIMIT
    assert any(message.startswith(ONE) for message in bad.messages)


LINE = regression(30, 3)
EXTREME = {
    "constant columns": replace(LINE, X=np.ones((30, 3)) * [1.0, 0.0, 5.1]),
    "constant target": replace(LINE, y=np.full(30, 5.1)),
    "zero": replace(LINE, y=np.zeros(30)),
    "wide": regression(9, 20),
    "level": replace(LINE, y=LINE.y + 1e8),
    "far": replace(LINE, X=LINE.X + 1e6),
    "scales": replace(LINE, X=LINE.X * [1e-8, 1.0, 1e8]),
    "sparse": replace(LINE, X=csr_array(np.maximum(LINE.X, 0.0))),
}


@pytest.mark.parametrize("problem", EXTREME.values(), ids=EXTREME)
@pytest.mark.parametrize("training", [Ridge(penalty=PerFeature()), HuberRegression(penalty=PerFeature())], ids=name_of)
def test_rounding_alone_raises_no_alarm(training, problem):
    for lam in (1e-6, 1.0, 1e6):
        model = training.model(problem, np.arange(len(problem.y)), np.full(problem.X.shape[1], lam))
        assert model.gradient_norm < RESIDUAL_LIMIT


def test_slopes_are_judged_whatever_the_level_of_the_target_is():
    training, problem = Ridge(penalty=PerFeature()), regression(30, 3)
    problem, lam = replace(problem, y=problem.y + 1e6), np.ones(3)
    model = training.model(problem, np.arange(30), lam)
    moved = replace(model, coefficients=model.coefficients * (1 + 1e-5))
    assert training._gradient_norm(moved, problem, np.arange(30), lam) > RESIDUAL_LIMIT


def test_landmarks_that_nearly_depend_on_each_other_cost_digits_of_the_model():
    """In an orthonormal basis the machine is a minimum to 1e-15; at the coefficients of its landmarks it is not."""
    problem, training = KernelSvm.example(), KernelSvm(Polynomial(), landmarks=Landmarks(40))
    lam = np.array([1e-4, 6e3, 2e3])
    model = training.model(problem, np.arange(len(problem.y)), lam)
    s = problem.weights / problem.weights.sum()
    f, points = model.predict(problem.X), model.standard.of(problem.X)
    g, g_0 = (s * SLOPES["kernel_svm"](problem.y, eta) for eta in (f, np.zeros(len(f))))
    imbalance = abs(g.sum()) / np.abs(g_0).sum()
    assert imbalance > 1e-11
    assert model.gradient_norm > 0.01 * imbalance
    assert len(points) == len(f)
