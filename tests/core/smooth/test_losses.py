"""Training losses against mpmath, and bounds of changes against draws."""

from __future__ import annotations

import mpmath as mp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from tests.core.smooth.exact import along, partial, quiet
from worker.core.losses.derivatives import RowDerivatives
from worker.core.losses.training import (
    SMOOTH_LOSSES,
    GammaLoss,
    HuberLoss,
    LogisticLoss,
    MultinomialLoss,
    PoissonLoss,
    SquaredHingeLoss,
    TrainingLoss,
)

ETA = np.array([0.0, *(s * x for x in (1e-8, 0.4, 1.0, 3.0, 30.0, 700.0, 1e3) for s in (1, -1))])


def huber(y, eta):
    r = abs(y - eta)
    return r**2 / 2 if r <= mp.mpf(0.75) else mp.mpf(0.75) * r - mp.mpf(0.75) ** 2 / 2


EXACT = [
    (LogisticLoss(), lambda y, eta: mp.log(1 + mp.exp(eta)) - y * eta, (0.0, 1.0)),
    (PoissonLoss(), lambda y, eta: mp.exp(eta) - y * eta, (0.0, 2.5, 1e6)),
    (GammaLoss(), lambda y, eta: y * mp.exp(-eta) + eta, (0.7, 1e-3, 1e6)),
    (HuberLoss(0.75), huber, (0.3, -5.0)),
    (SquaredHingeLoss(), lambda y, eta: max(mp.mpf(0), 1 - (2 * y - 1) * eta) ** 2 / 2, (0.0, 1.0)),
]


def name(value):
    return type(value).__name__ if isinstance(value, TrainingLoss) else ""


def test_the_cases_cover_the_family():
    assert {type(loss) for loss, _, _ in EXACT} | {MultinomialLoss} == set(map(type, SMOOTH_LOSSES))


@pytest.mark.parametrize(("loss", "formula", "targets"), EXACT, ids=name)
def test_values_and_derivatives_are_exact_at_any_scale(loss, formula, targets):
    for y in targets:
        eta = ETA[np.abs(ETA) != 1] if isinstance(loss, SquaredHingeLoss) else ETA
        with quiet():
            at = loss.at(np.full(len(eta), y), eta[:, None], np.full(len(eta), 0.5))
        assert isinstance(at, RowDerivatives)
        for order, ours in enumerate((at.losses, at.first, at.second, at.third)):
            assert_allclose(ours, along(formula, y, eta, order), rtol=1e-13, atol=1e-300, err_msg=f"{y} {order}")
        assert (at.slope[:, 0] == 0.5 * at.first).all()


@pytest.mark.parametrize("loss", [loss for loss, _, _ in EXACT], ids=name)
def test_no_predictor_makes_a_nan(loss):
    eta = np.array([[-1e300], [-1e160], [-1e4], [1e4], [1e160], [1e300]])
    n = len(eta)
    with quiet():
        for y in (np.full(n, 0.5 if isinstance(loss, GammaLoss) else 0.0), np.ones(n)):
            at = loss.at(y, eta, np.ones(n))
            assert not np.isnan([at.losses, at.first, at.second, at.third]).any()
            assert not np.isnan(at.value)
            assert not np.isnan(loss.link.mean(eta)).any()
            for radius in (0.0, 1.0, 1e3, np.inf):
                within = np.full(n, radius)
                changes = loss.curvature_change(y, eta, within), loss.slope_change(y, eta, within)
                assert not np.isnan(changes).any()
                assert radius > 0 or (np.array(changes) == 0).all()


def test_a_row_without_weight_counts_nothing_even_where_its_loss_overflows():
    at = PoissonLoss().at(np.ones(3), np.array([[0.0], [2000.0], [1.0]]), np.array([1.0, 0.0, 2.0]))
    assert at.losses[1] == np.inf
    assert_allclose(at.value, 1 + 2 * (np.e - 1), rtol=1e-15)
    assert_allclose(at.slope[:, 0], [0, 0, 2 * (np.e - 1)], rtol=1e-15)
    assert_allclose(at.bend(np.ones((3, 1, 1)))[:, 0, 0], [1, 0, 2 * np.e], rtol=1e-15)
    assert_allclose(at.twist(np.ones((3, 1)), np.ones((3, 1, 1))), [[1 + 2 * np.e]], rtol=1e-15)


def test_kinks_belong_to_the_inside():
    assert HuberLoss(0.5).at(np.zeros(2), np.array([[0.5], [-0.5]]), np.ones(2)).second.tolist() == [1, 1]
    assert SquaredHingeLoss().at(np.ones(1), np.ones((1, 1)), np.ones(1)).second.tolist() == [0]


def test_elementwise_directions():
    rng = np.random.default_rng(1)
    eta, w, U, V = rng.normal(size=(6, 1)), rng.random(6), rng.normal(size=(6, 1)), rng.normal(size=(6, 1, 2))
    at = LogisticLoss().at(np.ones(6), eta, w)
    p = 1 / (1 + np.exp(-eta[:, 0]))
    assert_allclose(at.bend(V)[:, 0], (w * p * (1 - p))[:, None] * V[:, 0], rtol=1e-13)
    third = np.einsum("n,n,nf,ng->fg", w * p * (1 - p) * (1 - 2 * p), U[:, 0], V[:, 0], V[:, 0])
    assert_allclose(at.twist(U, V), third, rtol=1e-12)
    ((a, b, block),) = at.blocks()
    assert (a, b) == (0, 0)
    assert_allclose(block, w * p * (1 - p), rtol=1e-13)


EXTREME = np.array(
    [
        [0.0, 0.0, 0.0],
        [1e-8, -1e-8, 0.0],
        [30.0, -30.0, 1.0],
        [700.0, -700.0, 699.0],
        [-1e3, 1e3, 1e3],
        [1e3, -1e3, 1.0],
        [-1e3, -1e3, -700.0],
    ]
)


@pytest.mark.parametrize("y", [0, 1, 2])
def test_softmax_is_exact_with_mixed_extremes(y):
    n, w = len(EXTREME), 3.0
    with quiet():
        at = MultinomialLoss(3).at(np.full(n, float(y)), EXTREME, np.full(n, w))
        blocks = {(a, b): block for a, b, block in at.blocks()}
        slope, probabilities = at.slope, MultinomialLoss(3).link.mean(EXTREME)
    for i, eta in enumerate(EXTREME):
        with mp.workdps(400):
            e = [mp.exp(mp.mpf(x)) for x in eta]
            p = [x / sum(e) for x in e]
            loss, first = float(-mp.log(p[y])), [float(w * (p[a] - (a == y))) for a in range(3)]
            second = {(a, b): float(w * p[a] * ((a == b) - p[b])) for a in range(3) for b in range(a, 3)}
        assert_allclose(at.losses[i], loss, rtol=1e-13)
        assert_allclose(slope[i], first, rtol=1e-13, atol=1e-300)
        assert_allclose(probabilities[i], [float(x) for x in p], rtol=1e-13, atol=1e-300)
        assert set(blocks) == set(second)
        for pair, value in second.items():
            assert_allclose(blocks[pair][i], value, rtol=1e-13, atol=1e-300)


def test_softmax_directions_are_exact_to_the_third_derivative():
    rng = np.random.default_rng(2)
    eta, U, V = 2 * rng.normal(size=(1, 3)), rng.normal(size=(1, 3)), rng.normal(size=(1, 3, 2))
    at = MultinomialLoss(3).at(np.array([2.0]), eta, np.array([0.7]))

    def f(*x):
        return 0.7 * (mp.log(sum(mp.exp(a) for a in x)) - x[2])

    H = [[partial(f, eta[0], a, b) for b in range(3)] for a in range(3)]
    T = [[[partial(f, eta[0], a, b, c) for c in range(3)] for b in range(3)] for a in range(3)]
    assert_allclose(at.slope[0], [partial(f, eta[0], a) for a in range(3)], rtol=1e-13)
    assert_allclose(at.bend(V)[0], H @ V[0], rtol=1e-12)
    assert_allclose(at.twist(U, V), np.einsum("abc,a,bf,cg->fg", T, U[0], V[0], V[0]), rtol=1e-12)


def test_two_classes_are_logistic():
    rng = np.random.default_rng(3)
    eta, y, w = 5 * rng.normal(size=(50, 2)), (rng.random(50) < 0.5).astype(float), rng.random(50)
    both, one = MultinomialLoss(2), LogisticLoss()
    difference = np.diff(eta)
    assert_allclose(both.at(y, eta, w).losses, one.at(y, difference, w).losses, rtol=1e-12)
    assert_allclose(np.diff(both.constant(y, w)), one.constant(y, w), rtol=1e-12)
    radius = rng.random(50) * 4
    exact = np.sqrt(2) * one.slope_change(y, difference, 2 * radius)
    assert_allclose(both.slope_change(y, eta, radius), np.minimum(exact, np.sqrt(2) * np.tanh(radius / 2)), rtol=1e-12)


def draws(loss, seed, n=3000):
    """Targets, predictors and radii of all sizes."""
    rng = np.random.default_rng(seed)
    continuous = isinstance(loss, PoissonLoss | GammaLoss | HuberLoss)
    y = rng.gamma(2.0, 2.0, n) if continuous else rng.choice(loss.example_targets, n)
    eta = rng.normal(size=(n, loss.outputs)) * 10.0 ** rng.uniform(-2, 1.3, (n, 1))
    return rng, y, eta, 10.0 ** rng.uniform(-5, 1.3, n)


def moves(rng, eta, radius):
    """Random moves within the radius, and all to the ends and towards zero."""
    r = radius[:, None]
    yield from (np.broadcast_to(s * r, eta.shape) for s in (1, -1))
    yield np.clip(-eta, -r, r)
    yield from (r * rng.choice([-1.0, 1.0], eta.shape) for _ in range(8))
    yield from (r * rng.uniform(-1, 1, eta.shape) for _ in range(8))


def second(at):
    """The second derivative of each row, (n, m, m)."""
    n, m = at.slope.shape
    H = np.zeros((n, m, m))
    for a, b, block in at.blocks():
        H[:, a, b] = H[:, b, a] = block
    return H


LOSSES = [loss for loss, _, _ in EXACT] + [MultinomialLoss(2), MultinomialLoss(5)]


@pytest.mark.parametrize("loss", LOSSES, ids=name)
def test_changes_never_exceed_their_bounds(loss):
    rng, y, eta, radius = draws(loss, 4)
    w = np.ones(len(y))
    here = loss.at(y, eta, w)
    H, g = second(here), here.slope
    curvature, slope = loss.curvature_change(y, eta, radius), loss.slope_change(y, eta, radius)
    most = np.zeros(len(y)), np.zeros(len(y))
    for move in moves(rng, eta, radius):
        there = loss.at(y, eta + move, w)
        changes = np.linalg.norm(second(there) - H, 2, axis=(1, 2)), np.linalg.norm(there.slope - g, axis=1)
        # a slope is a difference from the target or from 1, and rounds like these
        terms = np.abs(g).max(1) + np.abs(there.slope).max(1) + np.abs(y) + 1
        sizes = np.abs(H).max((1, 2)) + np.abs(second(there)).max((1, 2)), terms
        for bound, change, size, top in zip((curvature, slope), changes, sizes, most, strict=True):
            rounding = 1e-15 * size * (1 + np.abs(eta).max(1) + radius)
            assert (change <= bound * (1 + 1e-12) + rounding).all()
            np.maximum(top, change, out=top)
    if loss.outputs == 1:  # where the extreme moves are among those tried, the bound is the largest change itself
        assert (slope <= most[1] * (1 + 1e-9) + 1e-14 * (np.abs(g[:, 0]) + np.abs(y) + 1)).all()
    if isinstance(loss, LogisticLoss | PoissonLoss | GammaLoss):
        assert (curvature <= most[0] * (1 + 1e-9) + 1e-14 * (H[:, 0, 0] + 1)).all()
    if isinstance(loss, LogisticLoss):
        assert (curvature <= np.minimum(H[:, 0, 0] * np.expm1(radius), 0.25) * (1 + 1e-12)).all()
    if isinstance(loss, MultinomialLoss):
        assert curvature.max() <= 0.5
        for bound, top in zip((curvature, slope), most, strict=True):
            visible = top > 1e-9
            assert visible.sum() > 1000
            assert np.median(bound[visible] / top[visible]) < 4


@pytest.mark.parametrize("loss", [loss for loss in LOSSES if loss.concordance is not None], ids=name)
def test_curvature_grows_no_faster_than_its_concordance_says(loss):
    rng, y, eta, radius = draws(loss, 6, 1000)
    radius = np.minimum(radius, 3.0)
    here, factor = second(loss.at(y, eta, np.ones(1000))), np.exp(loss.concordance * radius)[:, None, None]
    for move in moves(rng, eta, radius):
        there = second(loss.at(y, eta + move, np.ones(1000)))
        for spare in (factor * here - there, factor * there - here):
            assert (np.linalg.eigvalsh(spare).min(1) >= -1e-13 * np.abs(factor * (here + there)).max((1, 2))).all()


def test_kinks_in_reach():
    one = np.ones(3)
    huber, hinge = HuberLoss(1.0), SquaredHingeLoss()
    assert huber.curvature_change(0 * one, np.array([[0.0], [0.95], [3.0]]), 0.1 * one).tolist() == [0, 1, 0]
    assert huber.slope_change(0 * one, np.array([[0.0], [0.95], [3.0]]), np.array([0.5, 0.25, 1.0])).tolist() == [
        0.5,
        0.25,
        0,
    ]
    assert hinge.curvature_change(one, np.array([[0.0], [0.95], [3.0]]), 0.1 * one).tolist() == [0, 1, 0]
    assert hinge.slope_change(one, np.array([[0.0], [1.25], [3.0]]), 0.5 * one).tolist() == [0.5, 0.25, 0]


@pytest.mark.parametrize("loss", LOSSES, ids=name)
def test_the_constant_is_the_best_one(loss):
    rng, y, _, _ = draws(loss, 5, 200)
    w = rng.random(200)
    best = loss.constant(y, w)
    assert best.shape == (loss.outputs,)
    slope = loss.at(y, np.tile(best, (200, 1)), w).slope
    assert_allclose(slope.sum(0), 0, atol=1e-12 * np.abs(slope).sum())


def test_a_constant_is_finite_whatever_the_rows():
    one, none = np.ones(4), np.zeros(4)
    assert_allclose(LogisticLoss().constant(none, one), [np.log(1 / 8)])
    assert_allclose(LogisticLoss().constant(one, one), [np.log(8)])
    assert_allclose(PoissonLoss().constant(none, one), [np.log(1 / 8)])
    assert_allclose(MultinomialLoss(3).constant(none, one), np.log([4, 0.5, 0.5]) - np.log([4, 0.5, 0.5]).mean())
    for loss in LOSSES:
        assert np.isfinite(loss.constant(one, none)).all()
    assert HuberLoss(0.1).constant(np.array([0.0, 1.0, 50.0]), np.ones(3)) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("loss", "good", "bad", "message"),
    [
        (LogisticLoss(), [0, 1], 0.5, "target is 0.5 in row 2 .*two classes, 0 and 1"),
        (SquaredHingeLoss(), [0, 1], -1, "target is -1 in row 2 .*two classes"),
        (MultinomialLoss(3), [0, 2], 3, "target is 3 in row 2 .*0 to 2"),
        (MultinomialLoss(3), [0, 2], 0.5, "target is 0.5 in row 2"),
        (PoissonLoss(), [0, 2.5], -1, "target is -1 in row 2 .*zero or more"),
        (PoissonLoss(), [0, 2.5], np.nan, "target is nan in row 2"),
        (GammaLoss(), [0.1, 2.5], 0, "target is 0 in row 2 .*positive"),
        (HuberLoss(1.0), [0.1, -2.5], np.inf, "target is inf in row 2 .*finite"),
    ],
)
def test_targets_that_a_loss_does_not_take(loss, good, bad, message):
    loss.check(np.array(good, float))
    with pytest.raises(ValueError, match=message):
        loss.check(np.array([*good, bad, bad], float))


def test_predictions_are_on_the_scale_of_the_target():
    eta = np.array([[0.0], [1.0]])
    assert_allclose(LogisticLoss().link.mean(eta)[:, 0], [0.5, 1 / (1 + np.exp(-1))])
    assert_allclose(PoissonLoss().link.mean(eta)[:, 0], [1, np.e])
    assert_allclose(GammaLoss().link.mean(eta)[:, 0], [1, np.e])
    assert (HuberLoss(1.0).link.mean(eta) == eta).all()
    assert (SquaredHingeLoss().link.mean(eta) == eta).all()
