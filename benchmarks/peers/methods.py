"""Everybody's way to search, each as strong as its library allows. A method tells `found(rho)` whenever it has a point.

Black-box searches get our value function: second moments of the folds built once, one factorization a fold and trial.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator

import numpy as np

from benchmarks.peers.tasks import BOX, FOLDS, Task
from worker.core.outer import Lbfgs, OuterAuto
from worker.core.records import Step
from worker.core.search.tune import tune

Found = Callable[[np.ndarray], None]


def improvements(task: Task, found: Found) -> Callable[[np.ndarray], float]:
    """Our value function, which tells every point that is better than those before."""
    objective = task.prepare(OuterAuto()).objective
    best = np.inf

    def value(rho: np.ndarray) -> float:
        nonlocal best
        J = float(objective.value(np.asarray(rho, dtype=float)))
        if best > J:
            best = J
            found(np.asarray(rho))
        return J

    return value


def follow(steps: Iterator[Step], found: Found) -> None:
    best = np.inf
    for step in steps:
        if step.best.best.value < best:
            best = step.best.best.value
            found(step.best.best.rho)


def gradtune(task: Task, found: Found) -> None:
    follow(tune(task.prepare(OuterAuto(tolerance=1e-7, max_iterations=100_000))), found)


def gradtune_lbfgs(task: Task, found: Found) -> None:
    follow(tune(task.prepare(Lbfgs(tolerance=1e-7, max_iterations=100_000))), found)


def best_shared(task: Task, found: Found) -> None:
    """The best single penalty by Brent's method, which is what a grid search approaches."""
    from scipy.optimize import minimize_scalar  # noqa: PLC0415

    value = improvements(task, found)
    minimize_scalar(lambda r: value(np.full(task.k, r)), bounds=BOX, method="bounded", options={"xatol": 1e-9})


def eigendecomposition(task: Task, found: Found) -> None:
    """What a numerical analyst writes for one penalty: one eigendecomposition a fold, then Brent's method."""
    from scipy.linalg import eigh  # noqa: PLC0415
    from scipy.optimize import minimize_scalar  # noqa: PLC0415

    G = [task.X[task.folds == f].T @ task.X[task.folds == f] for f in range(FOLDS)]
    c = [task.X[task.folds == f].T @ task.y[task.folds == f] for f in range(FOLDS)]
    parts = []
    for f in range(FOLDS):
        values, Q = eigh(sum(G) - G[f], driver="evd", check_finite=False)
        parts.append((values, Q.T @ (sum(c) - c[f]), Q.T @ c[f], Q, G[f]))
    spectral = [(values, b, v, Q.T @ V @ Q) for values, b, v, Q, V in parts]

    def value(r: float) -> float:
        J = float(task.y @ task.y)
        for values, b, v, V in spectral:
            z = b / (values + np.exp(r) * task.training_rows)
            J += z @ V @ z - 2 * v @ z
        return J

    best = minimize_scalar(value, bounds=BOX, method="bounded", options={"xatol": 1e-9}).x
    found(np.array([best]))


def grid_search(task: Task, found: Found) -> None:
    """scikit-learn: 30 penalties over eight decades, and again 30 around the best."""
    from sklearn.linear_model import Ridge  # noqa: PLC0415
    from sklearn.model_selection import GridSearchCV, PredefinedSplit  # noqa: PLC0415

    low, high = np.log(1e-4), np.log(1e4)
    while high - low > 1e-3:
        search = GridSearchCV(
            Ridge(fit_intercept=False, solver="cholesky"),
            {"alpha": np.exp(np.linspace(low, high, 30)) * task.training_rows},
            cv=PredefinedSplit(task.folds),
            scoring="neg_mean_squared_error",
            refit=False,
        )
        best = np.log(search.fit(task.X, task.y).best_params_["alpha"] / task.training_rows)
        found(np.array([best]))
        low, high = best - (high - low) / 29, best + (high - low) / 29


def himalaya_ridge(task: Task, found: Found) -> None:
    """One singular value decomposition a fold, 200 penalties over eight decades."""
    from himalaya.ridge import RidgeCV  # noqa: PLC0415
    from sklearn.model_selection import PredefinedSplit  # noqa: PLC0415

    alphas = np.logspace(-4, 4, 200) * task.training_rows
    model = RidgeCV(alphas, fit_intercept=False, cv=PredefinedSplit(task.folds), solver_params={"warn": False})
    model.fit(task.X, task.y[:, None])
    found(np.log(model.best_alphas_[:1] / task.training_rows))


def himalaya_random(task: Task, found: Found) -> None:
    """Its banded ridge regression: random directions on the simplex, 20 penalties for each."""
    from himalaya.ridge import GroupRidgeCV  # noqa: PLC0415
    from sklearn.model_selection import PredefinedSplit  # noqa: PLC0415

    best = -np.inf
    for seed in itertools.count():
        settings = {
            "n_iter": 2, "alphas": np.logspace(-4, 4, 20) * task.training_rows, "progress_bar": False, "warn": False,
        }  # fmt: skip
        model = GroupRidgeCV(
            task.column_of, "random_search", settings, cv=PredefinedSplit(task.folds), random_state=seed
        )
        model.fit(task.X, task.y[:, None])
        if model.cv_scores_.max() > best:
            best = model.cv_scores_.max()
            found(-model.deltas_[:, 0] - np.log(task.training_rows))


def himalaya_gradient(task: Task, found: Found) -> None:
    """Its gradient descent on kernels of the groups, from where we start, ten iterations at a time."""
    from himalaya.kernel_ridge import MultipleKernelRidgeCV  # noqa: PLC0415
    from sklearn.model_selection import PredefinedSplit  # noqa: PLC0415

    kernels = np.stack([part @ part.T for part in (task.X[:, task.column_of == j] for j in range(task.k))])
    deltas = np.full((task.k, 1), -np.log(task.training_rows))
    for seed in itertools.count():
        settings = {"max_iter": 10, "initial_deltas": deltas, "progress_bar": False, "tol": 0}
        model = MultipleKernelRidgeCV(
            "precomputed", solver="hyper_gradient", solver_params=settings,
            cv=PredefinedSplit(task.folds), random_state=seed,
        )  # fmt: skip
        model.fit(kernels, task.y[:, None])
        deltas = model.deltas_
        found(-deltas[:, 0] - np.log(task.training_rows))


def optuna_tpe(task: Task, found: Found) -> None:
    import optuna  # noqa: PLC0415

    value = improvements(task, found)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.TPESampler(seed=0, multivariate=task.k > 1)
    warnings.simplefilter("ignore")
    study = optuna.create_study(sampler=sampler)
    study.enqueue_trial({str(j): 0.0 for j in range(task.k)})
    study.optimize(lambda trial: value(np.array([trial.suggest_float(str(j), *BOX) for j in range(task.k)])))


def cma_es(task: Task, found: Found) -> None:
    """The package `cmaes` behind Optuna's sampler, without Optuna's overhead; separable beyond 200 penalties."""
    from cmaes import CMA, SepCMA  # noqa: PLC0415

    value = improvements(task, found)
    make = CMA if task.k <= 200 else SepCMA
    bounds = np.tile(BOX, (task.k, 1))
    search = make(mean=np.zeros(task.k), sigma=2.0, bounds=bounds, seed=0)
    while not search.should_stop():
        asked = [search.ask() for _ in range(search.population_size)]
        search.tell([(x, value(x)) for x in asked])


def torch_lbfgs(task: Task, found: Found) -> None:
    """Automatic differentiation through `torch.linalg.solve` on second moments of the folds, L-BFGS-B of scipy."""
    import torch  # noqa: PLC0415
    from scipy.optimize import minimize  # noqa: PLC0415

    torch.set_num_threads(1)
    X, y = torch.from_numpy(task.X), torch.from_numpy(task.y)
    folds = [torch.from_numpy(task.folds == f) for f in range(FOLDS)]
    G = torch.stack([X[f].T @ X[f] for f in folds])
    c = torch.stack([X[f].T @ y[f] for f in folds])
    H0, b = (G.sum(0) - G) / task.training_rows, (c.sum(0) - c) / task.training_rows
    column_of, yy, best = torch.from_numpy(task.column_of), y @ y, np.inf

    def evaluate(rho: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal best
        r = torch.tensor(rho, requires_grad=True)
        theta = torch.linalg.solve(H0 + torch.diag(r.exp()[column_of]), b[..., None])[..., 0]
        J = (yy + (theta * (G @ theta[..., None])[..., 0]).sum() - 2 * (c * theta).sum()) / len(y)
        J.backward()
        if J.item() < best:
            best = J.item()
            found(rho)
        return J.item(), r.grad.numpy()

    limits = {"maxiter": 100_000, "maxfun": 1_000_000, "ftol": 1e-14, "gtol": 1e-9}
    minimize(evaluate, np.zeros(task.k), jac=True, method="L-BFGS-B", bounds=[BOX] * task.k, options=limits)


def pygam(task: Task, found: Found) -> None:
    """Its grid search: one shared penalty first, then random ones around the best so far, with its GCV at gamma 1."""
    import pygam as library  # noqa: PLC0415

    assert task.covariates is not None
    m = task.X.shape[1] // task.k + 1
    terms = sum((library.s(t, n_splines=m) for t in range(1, task.k)), library.s(0, n_splines=m))
    rng, best, n = np.random.default_rng(0), (np.inf, np.zeros(task.k)), len(task.y)
    candidates = [np.full(task.k, r) for r in np.linspace(np.log(1e-4), np.log(1e2), 7)]
    for i in itertools.count():
        rho = candidates[i] if i < len(candidates) else best[1] + 1.5 * rng.normal(size=task.k)
        model = library.LinearGAM(terms).set_params(lam=[[float(np.exp(r) * n)] for r in rho])
        model.fit(task.covariates, task.y)
        rss = float(np.sum((task.y - model.predict(task.covariates)) ** 2))
        gcv = n * rss / (n - model.statistics_["edof"]) ** 2
        if gcv < best[0]:
            best = gcv, rho
            found(rho)
