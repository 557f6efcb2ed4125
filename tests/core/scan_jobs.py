"""Random jobs with one or two hyperparameters: few rows, and data that make J bend in several places.

Heavy tails, targets over many decades, weights and offsets, nearly equal columns and nearly separated classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from worker.core.hypergradient import HypergradientAuto
from worker.core.kernels import Linear, Matern, Rbf
from worker.core.outer import OuterAuto
from worker.core.penalties import Difference, Identity, PerFeature, PerGroup, QuadraticForms, Shared
from worker.core.rows.problem import Problem
from worker.core.search.plan import Plan, Prepared, prepare
from worker.core.selection import (
    ApproximateLeaveOneOut,
    Evidence,
    GeneralizedCV,
    GivenFolds,
    Holdout,
    KFold,
    LaplaceEvidence,
    LeaveOneOut,
    Reml,
    StratifiedKFold,
    WalkForward,
)
from worker.core.selection.evidence_settings import NoiseVariance
from worker.core.training import (
    GammaRegression,
    HuberRegression,
    KernelLogistic,
    KernelRidge,
    KernelSvm,
    LogisticRegression,
    MultinomialRegression,
    PoissonRegression,
    Ridge,
    SquaredHinge,
)
from worker.core.weights import ExponentialTime

Random = np.random.Generator
SMOOTH: tuple[Any, ...] = (
    LogisticRegression, GammaRegression, PoissonRegression, HuberRegression, SquaredHinge, MultinomialRegression,
)  # fmt: skip
JUMPING = (HuberRegression, SquaredHinge)  # their curvature jumps, and so do closed forms that contain it
MACHINES: tuple[Any, ...] = (
    KernelRidge, KernelSvm, lambda **parts: KernelSvm(hinge="huberized", **parts), KernelLogistic,
)  # fmt: skip


def job(seed: int, hyperparameters: int) -> Prepared:
    """A random job with one or two hyperparameters; a draw that does not fit its data is drawn again."""
    random = np.random.default_rng([seed, hyperparameters])
    while True:
        training, selection = (one_hyperparameter, two_hyperparameters)[hyperparameters - 1](random)
        problem = table(random, training)
        plan = Plan(training, selection(random, training, len(problem.y)), HypergradientAuto(), OuterAuto())
        try:
            prepared = prepare(problem, plan)
        except ValueError:
            continue
        if len(prepared.objective.hyperparameters.names) == hyperparameters:
            return prepared


def one_hyperparameter(random: Random) -> tuple[Any, Callable[..., Any]]:
    parts: dict[str, Any] = {"standardize": bool(random.random() < 0.8), "intercept": bool(random.random() < 0.8)}
    kind = int(random.integers(9))
    if kind < 2:
        return Ridge(penalty=Shared(), **parts), selection_of
    if kind < 8:
        return SMOOTH[kind - 2](penalty=Shared(), **parts), selection_of
    return MACHINES[int(random.integers(4))](kernel=Linear(), **parts), selection_of


def two_hyperparameters(random: Random) -> tuple[Any, Callable[..., Any]]:
    parts: dict[str, Any] = {"standardize": bool(random.random() < 0.8), "intercept": bool(random.random() < 0.8)}
    kind = int(random.integers(8))
    if kind >= 5:
        kernel = (Rbf(), Matern(nu="3/2"))[int(random.integers(2))]
        return MACHINES[int(random.integers(4))](kernel=kernel, **parts), selection_of
    if kind == 4:
        if random.random() < 0.5:
            return Ridge(penalty=Shared(), **parts), lambda *_: Evidence(noise_variance=NoiseVariance())
        return Ridge(penalty=Shared(), weights=ExponentialTime(), **parts), selection_of
    penalty = (
        PerGroup(groups={"a": ("x0", "x1"), "b": ("x2",)}, spread=None),
        PerFeature(spread=None),
        QuadraticForms(forms=(Difference(name="smooth", order=1), Identity(name="size")), spread=None),
    )[int(random.integers(3))]
    training = Ridge if kind < 2 else SMOOTH[int(random.integers(6))]
    return training(penalty=penalty, **parts), selection_of


def selection_of(random: Random, training: Any, n: int) -> Any:
    kinds: list[Callable[[], Any]] = [
        lambda: KFold(folds=int(random.integers(2, 6)), seed=int(random.integers(100))),
        lambda: GivenFolds(fold_of_row=tuple(int(fold) for fold in np.arange(n) % 3)),
        lambda: Holdout(fraction=float(random.uniform(0.2, 0.5)), seed=int(random.integers(100))),
    ]
    if training.classifies:
        kinds.append(lambda: StratifiedKFold(folds=int(random.integers(2, 4))))
    else:
        kinds.append(lambda: WalkForward(initial=n // 2, horizon=max(n // 6, 1)))
    if isinstance(training, Ridge):
        kinds += [LeaveOneOut, GeneralizedCV, Evidence, Reml]
    elif isinstance(training, KernelRidge):
        kinds += [LeaveOneOut, Evidence, Reml]
    elif isinstance(training, SMOOTH) and not isinstance(training, JUMPING):
        kinds += [ApproximateLeaveOneOut, LaplaceEvidence]
    return kinds[int(random.integers(len(kinds)))]()


def table(random: Random, training: Any) -> Problem:
    """Rows for a training criterion, named x0, x1, ..."""
    penalty = getattr(training, "penalty", None)
    p = {PerGroup: 3, PerFeature: 2}.get(type(penalty), int(random.integers(1, 9)))
    n = int(random.integers(12, 50))
    X = random.standard_t(3, size=(n, p)) if random.random() < 0.3 else random.normal(size=(n, p))
    if p > 1 and random.random() < 0.4:
        X[:, 1] = X[:, 0] + 10.0 ** random.uniform(-4, 0) * X[:, 1]
    X *= np.exp(random.normal(size=p) * random.choice([0.0, 1.0, 3.0]))
    size = float(random.choice([0.0, 0.3, 1.0, 3.0]))
    eta = (X / X.std(axis=0)) @ random.normal(size=p) * size / np.sqrt(p)
    y, classes = target(random, training, eta)
    weights = np.exp(random.normal(size=n) * random.choice([0.3, 2.0])) if random.random() < 0.3 else None
    offset = random.normal(size=n) if training.refuses_offset is None and random.random() < 0.3 else None
    names = tuple(f"x{j}" for j in range(p))
    return Problem(X, y, names, time=np.arange(n) * 1.0, weights=weights, offset=offset, classes=classes)


def target(random: Random, training: Any, eta: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    n, kind = len(eta), training.kind
    if kind == "multinomial":
        y = np.digitize(eta + random.normal(size=n), [-0.7, 0.7])
        return y.astype(float), ("x", "y", "z")
    if training.classifies:
        return (random.random(n) < 1 / (1 + np.exp(-3.0 * eta))).astype(float), ("no", "yes")
    noise = random.standard_t(2, size=n) if random.random() < 0.4 else random.normal(size=n)
    if kind == "gamma":
        return np.exp(eta + noise * random.choice([0.5, 2.0, 6.0])), ()
    if kind == "poisson":
        return random.poisson(np.exp(np.minimum(eta + noise * random.choice([0.1, 1.0]), 12.0))).astype(float), ()
    return eta + noise * random.choice([0.1, 1.0]) + random.normal(), ()
