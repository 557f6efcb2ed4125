"""What a stored model predicts is what the loss that it was trained by says of its predictor."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tests.contract.specs import parsed
from tests.examples import EXAMPLES, inline
from worker.contract.prediction import Predicted, Rows, fitted_model, predict
from worker.contract.result import QuadraticModel
from worker.core.family import kind_of, members
from worker.core.losses.links import LINKS
from worker.core.losses.training import KERNEL_LOSSES, SMOOTH_LOSSES
from worker.core.search.plan import Prepared, prepare
from worker.core.search.tune import tune
from worker.core.training import Quadratic, Training
from worker.core.verdict.conclude import Conclusion, conclude
from worker.report_model import model_of

PREDICTING = [kind_of(member) for member in members(Training) if member is not Quadratic]


def concluded(kind: str, **rest: Any) -> tuple[Prepared, Conclusion]:
    spec = parsed(
        {
            "data": inline(EXAMPLES[kind]),
            "training": {"kind": kind},
            "outer": {"kind": "lbfgs", "max_iterations": 2},
            **rest,
        }
    )
    prepared = prepare(spec.problem(), spec.plan())
    *_, last = tune(prepared)
    return prepared, conclude(prepared, last.best)


def stored_and_read(prepared: Prepared, conclusion: Conclusion) -> Predicted:
    """The predictions of the training rows by the document of the model."""
    document = model_of(prepared, conclusion, ())
    assert document is not None
    model = fitted_model(b'{"model": ' + document.model_dump_json().encode() + b"}")
    assert model is not None
    assert not isinstance(model, QuadraticModel)
    X = prepared.problem.X
    return predict(model, Rows(X, prepared.problem.features, np.zeros(len(X))))


@pytest.mark.parametrize("kind", PREDICTING)
def test_predictions_are_the_mean_that_the_loss_states(kind: str) -> None:
    prepared, conclusion = concluded(kind)
    training, problem = prepared.plan.training, prepared.problem
    assert not isinstance(training, Quadratic)
    predicted = stored_and_read(prepared, conclusion)
    eta = predicted.eta.reshape(len(problem.y), -1)
    assert conclusion.model is not None
    np.testing.assert_allclose(
        eta, conclusion.model.predictor(problem, np.arange(len(problem.y))), rtol=1e-12, atol=1e-13
    )
    link = training.row_loss(problem).link
    mean = link.mean(eta)
    if training.classifies:
        assert predicted.mean is None
        assert predicted.labels is not None
        assert_array_equal(predicted.labels, eta.argmax(1) if eta.shape[1] > 1 else eta[:, 0] > 0)
        assert (predicted.probabilities is None) == (link.kind == "identity")
        if predicted.probabilities is not None:
            assert_array_equal(predicted.probabilities[:, -mean.shape[1] :], mean)
            np.testing.assert_allclose(predicted.probabilities.sum(1), 1.0, rtol=1e-15)
    else:
        assert predicted.mean is not None
        assert_array_equal(predicted.mean, mean[:, 0])


def test_calibrated_probabilities_are_those_of_platts_line() -> None:
    selection = {"kind": "stratified_k_fold", "folds": 3, "loss": "platt_log_loss"}
    prepared, conclusion = concluded("kernel_svm", selection=selection)
    predicted = stored_and_read(prepared, conclusion)
    assert conclusion.calibration is not None
    slope, offset = conclusion.calibration
    assert predicted.probabilities is not None
    assert_array_equal(
        predicted.probabilities[:, 1], LINKS["logit"].mean(slope * predicted.eta[:, None] + offset)[:, 0]
    )


def test_the_documents_name_the_link_that_each_loss_states() -> None:
    text = (Path(__file__).parents[2] / "docs" / "generalized-linear.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| `[^\n]*\| `(\w+)`[^|\n]*\|$", text, re.MULTILINE))
    for kind in PREDICTING:
        if kind in {"ridge", "kernel_ridge", "kernel_svm", "kernel_logistic"}:  # in other documents
            continue
        prepared, _ = concluded(kind)
        assert not isinstance(prepared.plan.training, Quadratic)
        assert rows[kind] == prepared.plan.training.row_loss(prepared.problem).link.kind


def test_every_loss_states_a_link_that_there_is() -> None:
    assert all(LINKS[loss.link.kind] == loss.link for loss in SMOOTH_LOSSES + KERNEL_LOSSES)
    assert set(LINKS) == {loss.link.kind for loss in SMOOTH_LOSSES}
