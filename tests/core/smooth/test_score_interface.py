"""What selection losses state of themselves is so, and each training criterion takes those that it always took."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from tests.core.smooth.exact import quiet
from worker.core.family import kind_of, members
from worker.core.losses import Huber, PredictorScore, Score
from worker.core.losses.relative import Length, RelativeDelta
from worker.core.losses.training import LogisticLoss, PoissonLoss
from worker.core.rows.problem import Problem
from worker.core.training import Quadratic, Training

RESIDUALS = ["squared_error", "huber", "absolute_error", "quantile_error"]
TWO_CLASSES = ["log_loss", "brier", "deviance", "smoothed_error", "smoothed_auc", "smoothed_f"]
TAKEN = {  # the first is the default
    "ridge": RESIDUALS,
    "kernel_ridge": RESIDUALS,
    "huber": ["huber", "squared_error", "absolute_error", "quantile_error"],
    "logistic": TWO_CLASSES,
    "kernel_logistic": TWO_CLASSES,
    "multinomial": ["log_loss", "brier", "deviance", "smoothed_error"],
    "squared_hinge": ["smoothed_error", "smoothed_auc", "smoothed_f"],
    "kernel_svm": ["smoothed_error", "smoothed_auc", "smoothed_f", "platt_log_loss"],
    "poisson": ["deviance"],
    "gamma": ["deviance"],
}
REFUSALS = {
    "ridge": "scores classes or counts; ridge predicts numbers: use squared_error or huber",
    "kernel_ridge": "scores classes; kernel_ridge predicts numbers: use squared_error or huber",
}
N = 40


@pytest.mark.parametrize("kind", TAKEN)
def test_each_training_criterion_takes_the_losses_that_score_it(kind):
    training = next(one for one in members(Training) if kind_of(one) == kind)()
    assert training.score(None).kind == TAKEN[kind][0]
    refusal = REFUSALS.get(kind, f"does not score this training criterion; use one of {', '.join(TAKEN[kind])}")
    for score in members(Score):
        if kind_of(score) in TAKEN[kind]:
            assert training.score(score()) == score()
        else:
            with pytest.raises(ValueError, match=f"^{kind_of(score)} {refusal}$"):
                training.score(score())


def test_the_table_has_every_training_criterion():
    assert set(TAKEN) == {kind_of(one) for one in members(Training) if one is not Quadratic}


def rows() -> tuple[Problem, np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    problem = Problem(random.normal(size=(N, 1)), (random.random(N) < 0.5).astype(float), ("a",))
    return problem, random.normal(size=(N, 1)), random.uniform(0.5, 2.0, N)


def scored(kind: type) -> PredictorScore:
    """The score of this kind, as J would sum it."""
    return kind().in_units(rows()[0], np.arange(N)).of_family(LogisticLoss())


@pytest.mark.parametrize("kind", members(Score), ids=kind_of)
def test_a_score_is_of_residuals_exactly_if_it_says_so(kind):
    (problem, eta, w), score = rows(), scored(kind)
    assert (kind().residual_loss is not None) == (kind_of(kind) in RESIDUALS)
    if kind().residual_loss is not None:
        shifted = score.at(problem.y + 8.0, eta + 8.0, w)
        assert_allclose(shifted.value, score.at(problem.y, eta, w).value, rtol=1e-12)


@pytest.mark.parametrize("kind", members(Score), ids=kind_of)
def test_a_score_is_a_sum_over_rows_exactly_if_it_says_so(kind):
    (problem, eta, w), score = rows(), scored(kind)
    moved = eta.copy()
    moved[0] += 1.0
    others = score.at(problem.y, moved, w).slope[1:] == score.at(problem.y, eta, w).slope[1:]
    assert others.all() == (score.by_row is not None)


@pytest.mark.parametrize("kind", members(Score), ids=kind_of)
def test_moments_suffice_exactly_if_the_curvature_is_constant(kind):
    loss = kind().residual_loss
    if loss is not None:
        known = loss.in_units(rows()[0], np.arange(N))
        curvatures = known.of(np.linspace(-9.0, 9.0, 50))[2]
        assert loss.by_moments == bool(np.ptp(curvatures) == 0)


@pytest.mark.parametrize("kind", members(Score), ids=kind_of)
@pytest.mark.parametrize("y", [np.zeros(4), np.ones(4), np.array([0.0, 1.0])], ids=str)
def test_rows_lack_something_exactly_if_their_score_would_mean_nothing(kind, y):
    score, w = scored(kind), np.ones(len(y))
    score.check(y)
    lacks = score.lacks(y)
    with quiet(), np.errstate(divide="ignore", invalid="ignore"):
        value = score.at(y, np.linspace(-1.0, 1.0, len(y))[:, None], w).value
    if lacks is None:
        assert np.isfinite(value)
    else:
        assert lacks.startswith("the ")
        assert not y.any() or score.kind == "smoothed_auc"
        assert np.isnan(value) or score.kind == "smoothed_f"  # an F measure without class 1 is one, whatever eta is


@pytest.mark.parametrize("kind", members(Score), ids=kind_of)
def test_a_calibration_minimizes_its_score(kind):
    (problem, eta, w), score = rows(), scored(kind)
    assert (score.calibrator is not None) == (kind_of(kind) == "platt_log_loss")
    if score.calibrator is not None:
        a, c = score.calibrator.calibration(problem.y, eta, w)
        assert_allclose(score.at(problem.y, a * eta + c, w).value, score.at(problem.y, eta, w).value, rtol=1e-12)
        assert_allclose(score.calibrator.calibration(problem.y, a * eta + c, w), (1.0, 0.0), atol=1e-9)


@pytest.mark.parametrize("kind", members(Score), ids=kind_of)
def test_in_units_every_length_is_a_number(kind):
    problem, _, _ = rows()
    problem = replace(problem, y=np.arange(N, dtype=float))
    known = kind().in_units(problem, np.arange(N))
    if kind().length is None:
        assert known == kind()
    else:
        assert known.length.number == kind().length.of(problem, np.arange(N)) == pytest.approx(1.35 * 1.4826 * 10)
        assert known.in_units(problem, np.arange(3)) == known


def test_a_length_is_a_number_or_relative():
    y = np.array([0.0, 0.0, 0.0, 4.0])
    problem, every = Problem(np.ones((4, 1)), y, ("a",)), np.arange(4)
    number, relative = Length.given(2.0), Length.given(RelativeDelta(3.0))
    assert (number.of(problem, every), number.lacks_spread(problem, every)) == (2.0, False)
    assert relative.of(problem, every) == pytest.approx(3.0 * y.std())
    assert relative.lacks_spread(problem, every)
    assert not relative.lacks_spread(replace(problem, y=np.arange(4.0)), every)
    with pytest.raises(TypeError, match="no length before the target is known"):
        Huber().of(np.zeros(1))


def test_only_a_deviance_depends_on_the_likelihood():
    for kind in members(Score):
        score = kind()
        assert (score.of_family(LogisticLoss()) is score) == (kind_of(kind) != "deviance")


def test_counts_without_an_event_have_no_finite_intercept():
    y, w = np.array([0.0, 3.0]), np.array([1.0, 0.0])
    assert "all counts that split 2 of 5 trains on are zero" in PoissonLoss().lacks(y, w, "split 2 of 5")
    assert PoissonLoss().lacks(y, np.ones(2), "split 2 of 5") is None
