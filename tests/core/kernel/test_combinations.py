"""Every kernel with every machine and every selection criterion: gradients by differences. Takes a minute or two."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose

from tests.core.kernel.test_kernels import KERNELS
from tests.core.kernel.test_machines import TRAININGS, objective_of, table
from tests.oracles import differences
from worker.core.losses import PlattLogLoss, SmoothedAuc, SmoothedF
from worker.core.selection import Evidence, Holdout, KFold, LeaveOneOut, Reml, StratifiedKFold, WalkForward
from worker.core.selection.evidence_settings import NoiseVariance
from worker.core.training.kernel_machines import Landmarks

pytestmark = [pytest.mark.slow, pytest.mark.unchecked]

RESAMPLED = [Holdout(fraction=0.3), KFold(folds=3), WalkForward(initial=24, horizon=12)]
OF_CLASSES = [Holdout(fraction=0.3, loss=SmoothedAuc()), StratifiedKFold(folds=3, loss=SmoothedF())]
SELECTIONS = {
    "ridge": [*RESAMPLED, LeaveOneOut(), Evidence(), Evidence(NoiseVariance()), Reml()],
    "svm": [*RESAMPLED, *OF_CLASSES, StratifiedKFold(folds=3, loss=PlattLogLoss())],
    "huberized": [*RESAMPLED, *OF_CLASSES],
    "logistic": [*RESAMPLED, *OF_CLASSES],
}
CASES = [
    (kernel, training, selection, landmarks)
    for kernel, training in itertools.product(KERNELS, TRAININGS)
    for selection in SELECTIONS[training]
    for landmarks in (None, Landmarks(10))
    if landmarks is None or not selection.closed_form
]


@pytest.mark.parametrize(("kernel", "training", "selection", "landmarks"), CASES)
def test_the_gradient(kernel, training, selection, landmarks):
    problem = table(classes=training != "ridge")
    machine = TRAININGS[training](kernel=KERNELS[kernel], landmarks=landmarks)
    objective = objective_of(problem, machine, selection)
    box = objective.hyperparameters
    rho = box.initial + 0.1 * np.random.default_rng(8).normal(size=len(box.names))
    at = objective.evaluate(rho)
    assert at.failure is None
    direction = np.random.default_rng(5).normal(size=len(rho))
    direction /= np.linalg.norm(direction)
    short = 1e-5 if training in {"svm", "huberized"} else 5e-4  # does not cross a change of the active set here
    slope = differences(lambda t: objective.value(rho + t[0] * direction), np.zeros(1), short)[0]
    assert_allclose(slope, direction @ at.gradient, rtol=1e-6, atol=1e-6 * objective.unit(at.value))
