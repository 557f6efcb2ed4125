"""Small problems of every kind of generalized linear model."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from worker.core.family import kind_of, members
from worker.core.penalties import (
    Difference,
    Identity,
    PerClass,
    PerCoefficient,
    PerFeature,
    PerGroup,
    QuadraticForms,
    Shared,
)
from worker.core.rows.problem import Problem
from worker.core.training import LinearTraining, Ridge

NAMES = ("a", "b", "c", "d", "e")
TRAINING = {kind_of(member): member for member in members(LinearTraining) if member is not Ridge}
PENALTIES = {
    "shared": Shared(),
    "per_feature": PerFeature(spread=None),
    "per_group": PerGroup(groups={"first": ("a", "b", "c"), "second": ("c", "d", "e")}, spread=None),
    "quadratic_forms": QuadraticForms(forms=(Difference(name="smooth", order=1), Identity(name="size")), spread=None),
}
CLASS_PENALTIES = {"per_class": PerClass(spread=None), "per_coefficient": PerCoefficient(spread=None)}


def table(kind: str, n: int = 70, seed: int = 0, *, sparse: bool = False) -> Problem:
    """Rows in the order of time, with offsets, from the model itself or nearly."""
    random = np.random.default_rng([seed, len(kind)])
    X = random.normal(size=(n, len(NAMES))) * np.array([1.0, 2.0, 0.5, 1.0, 3.0])
    if sparse:
        X *= random.random(X.shape) < 0.5
    eta = X @ random.normal(size=len(NAMES))
    eta *= 1.2 / eta.std()
    classes: tuple[str, ...] = ()
    if kind in {"logistic", "squared_hinge"}:
        y, classes = (random.random(n) < 1 / (1 + np.exp(-eta))).astype(float), ("no", "yes")
    elif kind == "multinomial":
        y, classes = np.digitize(eta + random.normal(size=n), [-0.7, 0.7]).astype(float), ("x", "y", "z")
    elif kind == "poisson":
        y = random.poisson(np.exp(eta)).astype(float)
    elif kind == "gamma":
        y = random.gamma(2.0, np.exp(eta) / 2.0)
    else:
        y = eta + random.standard_t(2, size=n)
    features = csr_array(X) if sparse else X + 1.0
    offset = 0.1 * random.normal(size=n)
    return Problem(
        features, y, NAMES, time=np.arange(n) * 1.0, weights=random.uniform(0.5, 2.0, n), offset=offset, classes=classes
    )
