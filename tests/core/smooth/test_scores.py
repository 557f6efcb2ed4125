"""Selection losses of predictors against mpmath, naive loops and scikit-learn."""

from __future__ import annotations

import mpmath as mp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn import metrics

from tests.core.smooth.exact import along, hessian, partial, quiet
from worker.core.losses import Brier, Deviance, LogLoss, SmoothedAuc, SmoothedError, SmoothedF
from worker.core.losses import ranking as set_scores
from worker.core.losses.derivatives import ScoreDerivatives
from worker.core.losses.measures import auc, error_rate, f_measure
from worker.core.losses.training import (
    GammaLoss,
    HuberLoss,
    LogisticLoss,
    MultinomialLoss,
    PoissonLoss,
    SquaredHingeLoss,
)

ETA = np.array([0.0, *(s * x for x in (1e-8, 1.0, 30.0, 700.0, 1e3) for s in (1, -1))])


def of(loss):
    return Deviance().of_family(loss)


def wrong(y, eta):
    """The probability of the class that y is not."""
    return 1 / (1 + mp.exp((2 * y - 1) * eta))


BINARY = [
    (LogLoss(), lambda y, eta: -mp.log(wrong(1 - y, eta))),
    (Brier(), lambda y, eta: wrong(y, eta) ** 2),
    (SmoothedError(2.5), lambda y, eta: wrong(y, mp.mpf(2.5) * eta)),
    (of(LogisticLoss()), lambda y, eta: -2 * mp.log(wrong(1 - y, eta))),
]


def poisson(y, eta):
    return 2 * ((y * (mp.log(y) - eta) if y > 0 else 0) - (y - mp.exp(eta)))


def gamma(y, eta):
    return 2 * (-mp.log(y) + eta + y * mp.exp(-eta) - 1)


def check_rows(score, formula, y, eta, rtol):
    """Values and two derivatives of separate rows; derivatives by mpmath."""
    w = np.full(len(eta), 0.5)
    with quiet():
        at = score.at(np.full(len(eta), float(y)), eta[:, None], w)
        assert isinstance(at, ScoreDerivatives)
        bent = at.bend(np.full((len(eta), 1, 1), 2.0))[:, 0, 0]
        value = at.value
    ours = at.losses, 2 * at.slope[:, 0], bent
    for order, numbers in enumerate(ours):
        assert_allclose(numbers, along(formula, y, eta, order), rtol=rtol, atol=1e-300, err_msg=f"{y} {order}")
    assert_allclose(value, 0.5 * at.losses.sum(), rtol=1e-14)


@pytest.mark.parametrize("y", [0, 1])
@pytest.mark.parametrize(("score", "formula"), BINARY, ids=lambda value: getattr(value, "kind", ""))
def test_scores_of_two_classes_are_exact_at_any_scale(score, formula, y):
    check_rows(score, formula, y, ETA, 2e-13)


@pytest.mark.parametrize("score", [Brier(), SmoothedError(2.5)])
def test_third_derivatives(score):
    formula = next(formula for other, formula in BINARY if other == score)
    for y in (0, 1):
        at = score.at(np.full(len(ETA), float(y)), ETA[:, None], np.ones(len(ETA)))
        assert_allclose(at.third, along(formula, y, ETA, 3), rtol=2e-13, atol=1e-300)


@pytest.mark.parametrize("y", [0.0, 0.5, 3.0, 1e6])
def test_poisson_deviance_is_exact(y):
    check_rows(of(PoissonLoss()), poisson, y, ETA[np.abs(ETA) < 705], 2e-13)
    assert of(PoissonLoss()).at(np.array([y]), np.array([[1e3]]), np.ones(1)).value == np.inf


@pytest.mark.parametrize("y", [0.5, 3.0, 1e6])
def test_gamma_deviance_is_exact(y):
    check_rows(of(GammaLoss()), gamma, y, ETA[(ETA > -670) & (ETA < 705)], 2e-13)
    assert of(GammaLoss()).at(np.array([y]), np.array([[-1e3]]), np.ones(1)).value == np.inf


def test_deviance_keeps_its_digits_when_the_prediction_is_nearly_perfect():
    y = np.full(6, 8.0)
    eta = np.log(8.0) + np.array([1e-9, -1e-6, 1e-3, 0.3, -0.499, 0.501])
    for loss, formula in ((PoissonLoss(), poisson), (GammaLoss(), gamma)):
        ours = of(loss).at(y, eta[:, None], np.ones(6)).losses
        exact = np.array(along(formula, 8, eta, 0))
        slack = 4e-15 * np.abs(along(formula, 8, eta, 1)) + 2e-14 * exact  # an ulp in log y or eta, and arithmetic
        assert (np.abs(ours - exact) <= slack).all()


def test_deviance_needs_a_likelihood():
    with pytest.raises(ValueError, match="a likelihood, which a hinge is not"):
        of(SquaredHingeLoss())
    y, eta, w = np.array([0.5, 4.0]), np.array([[0.1], [0.2]]), np.ones(2)
    assert of(HuberLoss(1.0)).at(y, eta, w).value == 2.0 * HuberLoss(1.0).at(y, eta, w).value  # the least is zero
    with pytest.raises(ValueError, match="positive"):
        of(GammaLoss()).check(np.zeros(1))


def softmax(x, y):
    return mp.exp(x[y]) / sum(mp.exp(a) for a in x)


SEVERAL = [
    (LogLoss(), lambda y, *x: -mp.log(softmax(x, y))),
    (Brier(), lambda y, *x: sum((softmax(x, a) - (a == y)) ** 2 for a in range(len(x)))),
    (SmoothedError(2.5), lambda y, *x: 1 - softmax([mp.mpf(2.5) * a for a in x], y)),
    (of(MultinomialLoss(3)), lambda y, *x: -2 * mp.log(softmax(x, y))),
]


@pytest.mark.parametrize(("score", "formula"), SEVERAL, ids=lambda value: getattr(value, "kind", ""))
def test_scores_of_several_classes_are_exact(score, formula):
    rng = np.random.default_rng(0)
    rows = np.array([[0.3, -1.0, 0.5], [0.0, 0.0, 0.0], [5.0, -4.0, 1.0], [1e3, -1e3, 999.0]])
    y, w, V = np.array([2.0, 0.0, 1.0, 0.0]), rng.random(4), rng.normal(size=(4, 3, 2))
    with quiet():
        at = score.at(y, rows, w)
        slope, bent = at.slope, at.bend(V)
    value = 0.0
    for i, eta in enumerate(rows):

        def f(*x, label=int(y[i])):
            return formula(label, *x)

        digits = 50 if i < 3 else 950
        with mp.workdps(digits):
            exact = float(f(*map(mp.mpf, eta)))
        value += w[i] * exact
        assert_allclose(at.losses[i], exact, rtol=1e-13, atol=1e-300)
        first = [partial(f, eta, a, digits=digits) for a in range(3)]
        assert_allclose(slope[i], w[i] * np.array(first), rtol=1e-12, atol=1e-15)
        second = hessian(f, eta, digits)
        assert_allclose(bent[i], w[i] * second @ V[i], rtol=1e-12, atol=1e-14)
    assert_allclose(at.value, value, rtol=1e-13)


def smoothed_auc(slope, y, w):
    def f(*x):
        pairs = [(i, j) for i in range(len(y)) for j in range(len(y)) if y[i] > y[j]]
        total = sum(w[i] * w[j] for i, j in pairs)
        return sum(w) * sum(w[i] * w[j] / (1 + mp.exp(slope * (x[i] - x[j]))) for i, j in pairs) / total

    return f


def smoothed_f(slope, beta, y, w):
    def f(*x):
        p = [1 / (1 + mp.exp(-slope * a)) for a in x]
        hit = sum(a * b * c for a, b, c in zip(w, y, p, strict=True))
        positive, predicted = (sum(a * b for a, b in zip(w, c, strict=True)) for c in (y, p))
        return sum(w) * (1 - (1 + beta**2) * hit / (beta**2 * positive + predicted))

    return f


@pytest.mark.parametrize("chunk", [1, 7, 10**6])
@pytest.mark.parametrize("score", [SmoothedAuc(1.5), SmoothedF(1.5, beta=0.5)], ids=lambda score: score.kind)
def test_scores_of_all_rows_together_are_exact_with_both_derivatives(score, chunk, monkeypatch):
    monkeypatch.setattr(set_scores, "CHUNK_PAIRS", chunk)
    y = np.array([1.0, 0, 0, 1, 0, 1])
    eta = np.array([0.3, 0.3, -1.5, 2.0, 40.0, -0.2])
    w = np.array([1.0, 0.5, 2.0, 0.25, 1.5, 1.0])
    f = smoothed_auc(1.5, y, w) if isinstance(score, SmoothedAuc) else smoothed_f(1.5, 0.5, y, w)
    V = np.random.default_rng(1).normal(size=(6, 1, 3))
    with quiet():
        at = score.at(y, eta[:, None], w)
        slope, bent = at.slope, at.bend(V)
    assert isinstance(at, ScoreDerivatives)
    with mp.workdps(50):
        assert_allclose(at.value, float(f(*map(mp.mpf, eta))), rtol=1e-14)
    assert_allclose(slope[:, 0], [partial(f, eta, a) for a in range(6)], rtol=1e-12, atol=1e-16)
    assert_allclose(bent[:, 0], hessian(f, eta) @ V[:, 0], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("score", [SmoothedAuc(), SmoothedF()], ids=lambda score: score.kind)
def test_scores_of_all_rows_at_the_extremes(score):
    y = (np.arange(len(ETA)) % 2).astype(float)
    with quiet():
        for eta in (ETA, 1e300 * np.sign(ETA), 0 * ETA):
            at = score.at(y, eta[:, None], np.ones(len(y)))
            assert np.isfinite(at.value)
            assert np.isfinite(at.slope).all()
            assert np.isfinite(at.bend(np.ones((len(y), 1, 1)))).all()


def sample(n=400, seed=2):
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.3).astype(float)
    return rng, y, np.round(rng.normal(size=n) + y, 1)[:, None], rng.random(n)


def test_a_row_loses_the_share_of_the_other_class_that_it_is_on_the_wrong_side_of():
    _, y, eta, w = sample()
    at = SmoothedAuc(1e4).at(y, eta, w)
    i = int(np.argmax(y))
    other = y == 0
    ahead = (eta[other, 0] > eta[i, 0]) + 0.5 * (eta[other, 0] == eta[i, 0])
    assert_allclose(at.losses[i], w[other] @ ahead / w[other].sum(), rtol=1e-10)
    assert_allclose(at.value, w @ at.losses, rtol=1e-13)


def test_a_steep_slope_gives_the_unsmoothed_scores():
    _, y, eta, w = sample()
    assert_allclose(SmoothedAuc(1e5).at(y, eta, w).value / w.sum(), 1 - auc(y, eta, w), rtol=1e-12)
    eta += 0.05  # no predictor at the threshold
    assert_allclose(SmoothedF(1e5, 2.0).at(y, eta, w).value / w.sum(), 1 - f_measure(y, eta, w, 2.0), rtol=1e-12)
    assert_allclose(SmoothedError(1e5).at(y, eta, w).value / w.sum(), error_rate(y, eta, w), rtol=1e-12)


def test_auc_counts_pairs_and_half_the_ties():
    _, y, eta, w = sample(60)
    pairs = [(i, j) for i in range(60) for j in range(60) if y[i] > y[j]]
    ordered = sum(w[i] * w[j] * ((eta[i, 0] > eta[j, 0]) + 0.5 * (eta[i, 0] == eta[j, 0])) for i, j in pairs)
    assert_allclose(auc(y, eta, w), ordered / sum(w[i] * w[j] for i, j in pairs), rtol=1e-13)
    assert auc(y, 0 * eta, w) == pytest.approx(0.5, rel=1e-14)


def test_agreement_with_scikit_learn():
    rng, y, eta, w = sample()
    z, total = eta[:, 0], w.sum()
    p = 1 / (1 + np.exp(-z))
    assert_allclose(auc(y, eta, w), metrics.roc_auc_score(y, z, sample_weight=w), rtol=1e-12)
    assert_allclose(f_measure(y, eta, w, 0.7), metrics.fbeta_score(y, z > 0, beta=0.7, sample_weight=w), rtol=1e-12)
    assert_allclose(error_rate(y, eta, w), metrics.zero_one_loss(y, z > 0, sample_weight=w), rtol=1e-12)
    assert_allclose(LogLoss().at(y, eta, w).value / total, metrics.log_loss(y, p, sample_weight=w), rtol=1e-12)
    assert_allclose(Brier().at(y, eta, w).value / total, metrics.brier_score_loss(y, p, sample_weight=w), rtol=1e-12)
    several, label = rng.normal(size=(400, 3)), rng.integers(0, 3, 400).astype(float)
    assert_allclose(
        error_rate(label, several, w), metrics.zero_one_loss(label, several.argmax(1), sample_weight=w), rtol=1e-12
    )
    count, size = rng.poisson(2.0, 400).astype(float), rng.gamma(2.0, 2.0, 400)
    for loss, target, theirs in (
        (PoissonLoss(), count, metrics.mean_poisson_deviance),
        (GammaLoss(), size, metrics.mean_gamma_deviance),
    ):
        ours = of(loss).at(target, eta, w).value / total
        assert_allclose(ours, theirs(target, np.exp(z), sample_weight=w), rtol=1e-12)


CHANGES = [
    *((score, 1) for score, _ in BINARY),
    *((score, 3) for score, _ in SEVERAL),
    (Brier(), 2),
    (SmoothedError(), 2),
    (of(PoissonLoss()), 1),
    (of(GammaLoss()), 1),
]


@pytest.mark.parametrize(("score", "m"), CHANGES)
def test_slopes_never_change_by_more_than_their_bounds(score, m):
    rng = np.random.default_rng(m)
    n = 3000
    y = rng.gamma(2.0, 2.0, n) if m == 1 and score in (of(PoissonLoss()), of(GammaLoss())) else None
    y = rng.integers(0, max(m, 2), n).astype(float) if y is None else y
    eta = rng.normal(size=(n, m)) * 10.0 ** rng.uniform(-2, 1.3, (n, 1))
    radius = 10.0 ** rng.uniform(-5, 1.3, n)
    r = radius[:, None]
    peak = np.log(2.0) * (1.0 - 2.0 * y[:, None])  # where the slope of the Brier score of two classes is largest
    moves = [r + 0 * eta, -r + 0 * eta, np.clip(-eta, -r, r), np.clip(-peak - eta, -r, r), np.clip(peak - eta, -r, r)]
    moves += [r * rng.choice([-1.0, 1.0], eta.shape) for _ in range(8)]
    moves += [r * rng.uniform(-1, 1, eta.shape) for _ in range(8)]
    g, w = score.at(y, eta, np.ones(n)).slope, np.ones(n)
    bound, most = score.slope_change(y, eta, radius), np.zeros(n)
    for move in moves:
        there = score.at(y, eta + move, w).slope
        change, size = np.linalg.norm(there - g, axis=1), np.abs(there).max(1) + np.abs(g).max(1)
        rounding = 1e-15 * (1 + size) * (1 + np.abs(eta).max(1) + radius)
        assert (change <= bound * (1 + 1e-12) + rounding).all()
        np.maximum(most, change, out=most)
    assert (score.slope_change(y, eta, 0 * radius) == 0).all()
    if m == 1:  # the extreme moves are among those tried
        assert (bound <= most * (1 + 1e-9) + 1e-13 * (np.abs(g[:, 0]) + np.abs(y) + 1)).all()
    else:
        visible = most > 1e-9
        assert np.median(bound[visible] / most[visible]) < 6


def test_targets_that_a_score_does_not_take():
    SmoothedAuc().check(np.array([0.0, 1.0]))
    SmoothedF().check(np.array([0.0, 1.0]))
    for score in (LogLoss(), Brier(), SmoothedError()):
        score.check(np.array([0.0, 1.0, 2.0]))
        with pytest.raises(ValueError, match=r"target is 0\.5 in row 1"):
            score.check(np.array([0.0, 0.5]))
    assert "all validation rows are of class 1; use stratified folds" in SmoothedAuc().lacks(np.ones(3))
    assert "no validation row has a weight" in SmoothedAuc().lacks(np.zeros(0))
    assert "no validation row is one" in SmoothedF().lacks(np.zeros(3))
    assert "no validation row has a weight" in SmoothedF().lacks(np.zeros(0))
    assert (
        SmoothedAuc().lacks(np.array([0.0, 1.0]))
        is SmoothedF().lacks(np.ones(1))
        is LogLoss().lacks(np.ones(1))
        is None
    )
    for score in (SmoothedAuc(), SmoothedF()):
        with pytest.raises(ValueError, match="target is 2 in row 1"):
            score.check(np.array([0.0, 2.0]))


def test_nothing_to_count_is_an_f_measure_of_zero():
    assert f_measure(np.zeros(3), -np.ones((3, 1)), np.ones(3), 1.0) == 0
