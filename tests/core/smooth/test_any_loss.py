"""What holds of every training loss, found by its interface alone; a loss that the product lacks goes through, too."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize_scalar

from tests.core.smooth.exact import quiet
from tests.core.smooth.negative_binomial import NegativeBinomialLoss
from worker.core.family import members
from worker.core.losses import Deviance
from worker.core.losses.derivatives import RowDerivatives
from worker.core.losses.links import LINKS, Link
from worker.core.losses.training import KERNEL_LOSSES, SMOOTH_LOSSES, HuberLoss, MultinomialLoss
from worker.core.losses.training_loss import MachineLoss, RowLoss, TrainingLoss

LOSSES = [*SMOOTH_LOSSES, MultinomialLoss(2), MultinomialLoss(5), NegativeBinomialLoss(0.7), NegativeBinomialLoss(30.0)]
LIKELIHOODS = [loss for loss in LOSSES if loss.is_likelihood]
N = 400


def name(value: object) -> str:
    return f"{type(value).__name__}" if isinstance(value, RowLoss) else ""


def draws(loss: TrainingLoss, seed: int) -> tuple[np.random.Generator, np.ndarray, np.ndarray]:
    """Targets that it takes, and predictors of all sizes, none at a kink."""
    random = np.random.default_rng(seed)
    y = random.choice(loss.example_targets, N)
    return random, y, random.normal(size=(N, loss.outputs)) * 10.0 ** random.uniform(-2, 0.7, (N, 1))


def second(at: RowDerivatives) -> np.ndarray:
    """The weighted second derivative of each row, (n, m, m)."""
    n, m = at.slope.shape
    H = np.zeros((n, m, m))
    for a, b, block in at.blocks():
        H[:, a, b] = H[:, b, a] = block
    return H


def smooth_rows(loss: TrainingLoss, y: np.ndarray, eta: np.ndarray) -> np.ndarray:
    """Rows that are not at a kink, where differences mean nothing."""
    if loss.straight is None:
        return np.ones(len(y), bool)
    return (np.abs(loss.straight.kinks_of(y) - eta[:, 0]) > 1e-3).all(axis=0)


@pytest.mark.parametrize("loss", LOSSES, ids=name)
def test_each_derivative_is_the_slope_of_the_one_before(loss):
    random, y, eta = draws(loss, 0)
    keep = smooth_rows(loss, y, eta)
    y, eta, w = y[keep], eta[keep], random.uniform(0.5, 2.0, keep.sum())
    v, h = random.normal(size=eta.shape), 1e-5
    here, up, down = (loss.at(y, eta + s * h * v, w) for s in (0, 1, -1))
    scale = 1.0 + np.abs(here.losses) + np.abs(y)
    slopes = w * (up.losses - down.losses) / (2 * h)
    assert_allclose((here.slope * v).sum(1) / scale, slopes / scale, atol=1e-8)
    bends = (up.slope - down.slope) / (2 * h)
    assert_allclose(here.bend(v[:, :, None])[:, :, 0] / scale[:, None], bends / scale[:, None], atol=1e-8)
    assert_allclose(np.einsum("nab,nb->na", second(here), v) / scale[:, None], bends / scale[:, None], atol=1e-8)
    assert_allclose(second(here), w[:, None, None] * here.curvatures(), atol=1e-12 * scale.max())
    turns = (second(up) - second(down)) / (2 * h)
    A = np.einsum("na,nb->nab", v, v)
    along = w[:, None] * here.third_contract(A)
    assert_allclose((along * v).sum(1) / scale, np.einsum("nab,na,nb->n", turns, v, v) / scale, atol=1e-8)
    assert_allclose(here.twist(v, v[:, :, None]), [[(along * v).sum()]], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("loss", LOSSES, ids=name)
def test_changes_within_a_radius_stay_below_their_bounds(loss):
    random, y, eta = draws(loss, 1)
    radius, w = 10.0 ** random.uniform(-3, 1, N), np.ones(N)
    here = loss.at(y, eta, w)
    curvature, slope = loss.curvature_change(y, eta, radius), loss.slope_change(y, eta, radius)
    growth = np.exp((loss.concordance or 0.0) * radius)[:, None, None]
    for _ in range(6):
        there = loss.at(y, eta + radius[:, None] * random.uniform(-1, 1, eta.shape), w)
        rounding = 1e-12 * (1 + np.abs(y) + np.abs(here.slope).max(1) + np.abs(there.slope).max(1))
        assert (np.linalg.norm(there.slope - here.slope, axis=1) <= slope * (1 + 1e-12) + rounding).all()
        H, K = second(here), second(there)
        rounding = 1e-12 * (1 + np.abs(H).max((1, 2)) + np.abs(K).max((1, 2)))
        assert (np.linalg.norm(K - H, 2, axis=(1, 2)) <= curvature * (1 + 1e-12) + rounding).all()
        if loss.concordance is not None:
            for spare in (growth * H - K, growth * K - H):
                assert (np.linalg.eigvalsh(spare).min(1) >= -rounding * growth[:, 0, 0]).all()
    zero = np.zeros(N)
    assert (loss.curvature_change(y, eta, zero) == 0).all()
    assert (loss.slope_change(y, eta, zero) == 0).all()


@pytest.mark.parametrize("loss", LOSSES, ids=name)
def test_it_takes_its_examples_and_has_a_best_constant_for_them(loss):
    y = np.repeat(loss.example_targets, 3)
    w = np.linspace(0.5, 2.0, len(y))
    loss.check(y)
    assert loss.lacks(y, w, "split 1 of 2") is None
    slope = loss.at(y, np.tile(loss.constant(y, w), (len(y), 1)), w).slope
    assert_allclose(slope.sum(0), 0, atol=1e-11 * np.abs(slope).sum())
    assert np.isfinite(loss.constant(y, np.zeros(len(y)))).all()
    with pytest.raises(ValueError, match=r"the target is -?\w+ in row 1 \(rows count from 0\); .*this|takes"):
        loss.check(np.array([y[0], np.nan]))


@pytest.mark.parametrize("loss", LIKELIHOODS, ids=name)
def test_the_mean_by_the_link_is_where_the_likelihood_expects_the_target(loss):
    _, _, eta = draws(loss, 2)
    mean, probabilities, w = loss.link.mean(eta), loss.link.probabilities(eta), np.ones(N)
    if probabilities is None:
        slope = loss.at(mean[:, 0], eta, w).slope
        assert_allclose(slope / (1 + mean), 0, atol=1e-13)
        return
    assert_allclose(probabilities.sum(1), 1.0, rtol=1e-14)
    expected = sum(p[:, None] * loss.at(np.full(N, float(c)), eta, w).slope for c, p in enumerate(probabilities.T))
    assert_allclose(expected, 0, atol=1e-14)
    likelihood = [np.exp(-loss.at(np.full(N, float(c)), eta, w).losses) for c in range(probabilities.shape[1])]
    assert_allclose(probabilities.T, likelihood, rtol=1e-12)


@pytest.mark.parametrize("loss", [loss for loss in LIKELIHOODS if loss.outputs == 1], ids=name)
def test_the_deviance_is_twice_the_loss_above_its_least(loss):
    _, y, eta = draws(loss, 3)
    score, w = Deviance().of_family(loss), np.ones(N)
    deviances, losses = score.at(y, eta, w).losses, loss.at(y, eta, w).losses
    assert (deviances >= 0).all()
    score.check(np.array(loss.example_targets))
    for target in loss.example_targets:
        rows, one = y == target, np.array([target])
        least = minimize_scalar(lambda t, one=one: loss.at(one, np.array([[t]]), np.ones(1)).value, (-40.0, 40.0)).fun
        assert_allclose(deviances[rows] / 2, losses[rows] - least, rtol=1e-7, atol=1e-7 * (1 + abs(least)))


@pytest.mark.parametrize("loss", LOSSES, ids=name)
def test_no_predictor_makes_a_nan(loss):
    eta = np.tile(np.array([[-1e300], [-1e4], [-710.0], [0.0], [710.0], [1e4], [1e300]]), loss.outputs)
    with quiet():
        for y in loss.example_targets:
            at = loss.at(np.full(7, y), eta, np.ones(7))
            assert not np.isnan(at.losses).any()
            assert not np.isnan(at.slope).any()
            assert not np.isnan(loss.link.mean(eta)).any()


@pytest.mark.parametrize("loss", [*KERNEL_LOSSES, HuberLoss(0.75)], ids=name)
def test_a_loss_of_machines_bends_only_between_its_kinks_and_never_more_than_it_says(loss):
    y = np.tile([0.0, 1.0], 200)
    eta = np.random.default_rng(4).normal(scale=3.0, size=(400, 1))
    curvatures = loss.at(y, eta, np.ones(400)).second
    assert 0 < curvatures.max() <= loss.largest_curvature
    kinks = loss.kinks_of(y)
    assert kinks.shape[1] == 400
    for kink in kinks:
        sides = [loss.at(y, kink[:, None] + s * 1e-9, np.ones(400)).second for s in (1, -1)]
        assert_allclose(np.abs(sides[0] - sides[1]), loss.largest_curvature)
    jumps = np.array([np.abs(np.diff(loss.at(np.full(2, a), np.array([[b], [b + 1e-7]]), np.ones(2)).second))[0] > 1e-3
                      for a, b in zip(y, eta[:, 0], strict=True)])  # fmt: skip
    assert not jumps.any()


def test_every_loss_has_a_link_of_the_family_and_every_member_its_interface():
    for loss in SMOOTH_LOSSES:
        assert isinstance(loss, TrainingLoss)
        assert isinstance(loss.link, members(Link))
        assert LINKS[loss.link.kind] == loss.link
    assert all(isinstance(loss, MachineLoss) for loss in KERNEL_LOSSES)
    assert len({type(loss) for loss in SMOOTH_LOSSES}) == len(SMOOTH_LOSSES)


def test_a_new_likelihood_sums_to_one():
    y, loss = np.arange(4000.0), NegativeBinomialLoss(0.7)
    for eta in (-2.0, 0.5, 3.0):
        log = loss.at(y, np.full((4000, 1), eta), np.ones(4000)).losses + loss.normalizer(y)
        assert_allclose(np.exp(-log).sum(), 1.0, rtol=1e-10)
        assert_allclose(np.exp(-log) @ y, np.exp(eta), rtol=1e-8)
