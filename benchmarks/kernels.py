"""Kernel machines beside a grid search, on Raetsch's suite; widths that find the relevant inputs of pumadyn32nm.

Each random split has the sizes of the suite. `one` has a penalty and one width, tuned by 5-fold cross-validation of a
smoothed error; `ARD` goes on from half-way with one width for each feature. With a spread these have a hyper-prior, and
the search itself begins at the best shared width. The grid is scikit-learn's 5-fold search.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.answers import SPREADS, Lines, Spread, with_spread
from worker.core.hypergradient import Implicit
from worker.core.kernels import Rbf, SharedWidth, WidthPerFeature
from worker.core.losses import SmoothedError
from worker.core.outer import Lbfgs
from worker.core.rows.problem import Problem
from worker.core.search.plan import Plan, prepare
from worker.core.search.procedure import carry_out
from worker.core.search.tune import tune
from worker.core.selection import Evidence, Selection, StratifiedKFold
from worker.core.selection.evidence_settings import NoiseVariance
from worker.core.training import KernelRidge, KernelSvm, Model
from worker.core.training.kernel_machines import KernelPenalty, KernelTraining

SETS = ("banana", "diabetis", "german", "heart", "image", "splice", "waveform")
SPLITS = 10
WIDTHS = (1e-3, 1e5)  # the box of the widths beside scikit-learn
C_GRID, GAMMA_GRID = np.logspace(-2, 4, 13), np.logspace(-4, 1, 11)
FOLDS, SLOPE = 5, 6.0
EVALUATIONS = 14  # of each search: 71 trainings, a tenth of the grid's


@dataclass(frozen=True)
class Found:
    """The error of the test rows, CPU seconds, and how many machines were trained."""

    error: float
    seconds: float
    trainings: int


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the command line takes for this benchmark alone."""
    group = parser.add_argument_group("kernels")
    group.add_argument(
        "--sets", type=lambda text: tuple(text.split(",")), metavar="heart,splice",
        help="of Raetsch's suite, by default all; nothing else of this benchmark is run",
    )  # fmt: skip
    group.add_argument("--without-grid", action="store_true", help="compare with one width, not with scikit-learn")


def search(
    problem: Problem, training: KernelTraining, selection: Selection, evaluations: int, tolerance: float = 1e-3
) -> tuple[np.ndarray, int, Model]:
    """The best hyperparameters, the evaluations, and the model of all rows."""
    plan = Plan(training, selection, Implicit(), Lbfgs(tolerance=tolerance), max_evaluations=evaluations)
    prepared = prepare(problem, plan)
    step = list(tune(prepared))[-1]
    lam = prepared.objective.natural(step.best.best.rho)
    model = training.model(problem, np.arange(len(problem.y)), lam)
    assert model is not None
    return lam, step.evaluations, model


def ours(train: Problem, test: Problem) -> tuple[Found, Found]:
    """One width with all evaluations; one for each feature, begun at half-way of that, without a hyper-prior."""
    selection, began = StratifiedKFold(folds=FOLDS, loss=SmoothedError(slope=SLOPE)), time.process_time()
    start = KernelSvm(penalty=KernelPenalty(initial=0.1))
    _, used, model = search(train, start, selection, EVALUATIONS)
    one = Found(wrong(model, test), time.process_time() - began, FOLDS * used + 1)
    began = time.process_time()
    lam, used, _ = search(train, start, selection, EVALUATIONS // 2)
    widths = with_spread(WidthPerFeature(initial=float(lam[1])), None)
    penalty = KernelPenalty(initial=float(lam[0]))
    _, more, model = search(train, KernelSvm(Rbf(widths=widths), penalty), selection, EVALUATIONS // 2)
    return one, Found(wrong(model, test), time.process_time() - began, FOLDS * (used + more) + 1)


def with_prior(train: Problem, test: Problem, spread: Spread) -> Found:
    """One width for each feature with a hyper-prior of this spread: each of its searches has as many iterations."""
    selection, began = StratifiedKFold(folds=FOLDS, loss=SmoothedError(slope=SLOPE)), time.process_time()
    kernel = Rbf(widths=with_spread(WidthPerFeature(), spread))
    training = KernelSvm(kernel, KernelPenalty(initial=0.1))
    outer = Lbfgs(max_iterations=EVALUATIONS, tolerance=1e-3)
    prepared = prepare(train, Plan(training, selection, Implicit(), outer))
    *_, last = carry_out(prepared)
    lam = prepared.objective.natural(last.best.best.rho)
    model = training.model(train, np.arange(len(train.y)), lam)
    assert model is not None
    return Found(wrong(model, test), time.process_time() - began, FOLDS * last.evaluations + 1)


def grid(train: Problem, test: Problem) -> Found:
    from sklearn.model_selection import GridSearchCV  # noqa: PLC0415 - not in the other benchmarks
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415
    from sklearn.svm import SVC  # noqa: PLC0415

    began = time.process_time()
    choices = {"svc__C": C_GRID, "svc__gamma": GAMMA_GRID}
    chosen = GridSearchCV(make_pipeline(StandardScaler(), SVC()), choices, cv=FOLDS).fit(train.X, train.y)
    error = float(np.mean(chosen.predict(test.X) != test.y))
    return Found(error, time.process_time() - began, FOLDS * len(C_GRID) * len(GAMMA_GRID) + 1)


def wrong(model: Model, test: Problem) -> float:
    return float(np.mean((model.predictor(test, np.arange(len(test.y)))[:, 0] > 0) != test.y))


def splits(data: Path, name: str, count: int) -> Iterator[tuple[Problem, Problem]]:
    stored, sizes = (
        np.load(data / "raetsch" / f"{name}.npz"),
        json.loads((data / "raetsch" / "split_sizes.json").read_text()),
    )
    X, y = stored["X"], (stored["y"] > 0).astype(float)
    names, train = tuple(f"x{j}" for j in range(X.shape[1])), sizes[name]["n_train"]
    for seed in range(count):
        order = np.random.default_rng(seed).permutation(len(y))[: train + sizes[name]["n_test"]]
        yield tuple(Problem(X[part], y[part], names, classes=("0", "1")) for part in (order[:train], order[train:]))  # type: ignore[misc]


def raetsch(data: Path, options: argparse.Namespace, *, short: bool) -> None:
    spreads = [spread for spread in SPREADS if spread is not None]
    methods = ["one", "ARD", *(f"s {spread}" for spread in spreads)]
    lines = Lines(options.results)
    reference, others = ("one", methods) if options.without_grid else ("grid", [*methods, "grid"])
    print(f"means over splits: test error in percent, its difference from that of `{reference}` (standard errors),")
    print("machines trained, CPU seconds; `s` is the spread of the hyper-prior on widths for each feature")
    for name in options.sets or (SETS[:1] if short else SETS):
        rows = []
        for seed, (train, test) in enumerate(splits(data, name, options.splits or (1 if short else SPLITS))):
            key = ["raetsch", name, seed, others]
            if lines.get(key) is None:
                peers = () if options.without_grid else (grid(train, test),)
                priors = (with_prior(train, test, spread) for spread in spreads)
                each = (*ours(train, test), *priors, *peers)
                lines.add(key, {label: asdict(found) for label, found in zip(others, each, strict=True)})
            rows.append(lines.get(key) or {})
        of_method = {label: [Found(**row[label]) for row in rows] for label in others}
        compared = np.array([found.error for found in of_method[reference]])
        for label, found in of_method.items():
            errors = np.array([f.error for f in found])
            trainings, seconds = np.mean([f.trainings for f in found]), np.mean([f.seconds for f in found])
            print(
                f"{name:10s} {label:6s} {percent(errors)}  {percent(errors - compared)}"
                f"  {trainings:6.0f}  {seconds:7.1f} s",
                flush=True,
            )


def percent(errors: np.ndarray) -> str:
    """The mean over splits and its standard error."""
    spread = errors.std(ddof=1) / np.sqrt(len(errors)) if len(errors) > 1 else np.nan
    return f"{100.0 * errors.mean():5.1f} ({100.0 * spread:.1f})"


def pumadyn(data: Path, *, short: bool) -> None:
    """Evidence of 2,000 rows, one width or one for each of 32 inputs; the test rows are the others."""
    stored = np.load(data / "uci" / "pumadyn32nm.npz")
    X, y = stored["X"], stored["y"].ravel()
    names = tuple(f"x{j}" for j in range(X.shape[1]))
    order = np.random.default_rng(0).permutation(len(y))
    n = 300 if short else 2000
    train, test = (Problem(X[part], y[part], names) for part in (order[:n], order[n:]))
    for label, widths in (("one width", SharedWidth()), ("ARD", WidthPerFeature())):
        began = time.process_time()
        lam, used, model = search(train, KernelRidge(Rbf(widths=widths)), Evidence(), 80, 1e-6)
        seconds = time.process_time() - began
        error = np.mean((model.predictor(test, np.arange(len(test.y)))[:, 0] - test.y) ** 2) / np.var(test.y)
        print(
            f"pumadyn32nm, {label}: {error:.4f} of the variance of the test rows, {used} evaluations, {seconds:.0f} s"
        )
        if len(lam) > 2:
            shortest = np.argsort(lam[1:])[:6]
            print("   shortest widths: " + ", ".join(f"{names[j]} {lam[1 + j]:.3g}" for j in shortest), flush=True)


def beside_scikit_learn(data: Path, *, short: bool) -> None:
    """The evidence of 500 rows of pumadyn32nm with 32 widths, from four starts, and scikit-learn's from the same."""
    from sklearn.gaussian_process import GaussianProcessRegressor  # noqa: PLC0415
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel  # noqa: PLC0415

    stored = np.load(data / "uci" / "pumadyn32nm.npz")
    order, n = np.random.default_rng(0).permutation(len(stored["y"])), 200 if short else 500
    X, y = stored["X"][order[:n]], stored["y"].ravel()[order[:n]]
    train = Problem((X - X.mean(0)) / X.std(0), (y - y.mean()) / y.std(), tuple(f"x{j}" for j in range(X.shape[1])))
    print(f"log evidence of {n} rows in nats, CPU seconds; from a width, a noise variance and an amplitude")
    found = []
    for width, noise, amplitude in ((5.0, 0.5, 0.5), (3.0, 0.1, 1.0), (8.0, 0.3, 0.7), (4.0, 1.0, 1.0))[
        : 1 if short else 4
    ]:
        penalty = KernelPenalty(initial=noise / (n * amplitude), lower=1e-9)
        kernel = Rbf(widths=WidthPerFeature(initial=width, lower=WIDTHS[0], upper=WIDTHS[1]))
        training = KernelRidge(kernel, penalty, intercept=False, standardize=False)
        outer = Lbfgs(max_iterations=1000, tolerance=1e-6)
        plan = Plan(training, Evidence(NoiseVariance(initial=noise)), Implicit(), outer, max_evaluations=1000)
        began = time.process_time()
        best = list(tune(prepare(train, plan)))[-1]
        ours = time.process_time() - began
        theirs = ConstantKernel(amplitude, (1e-5, 1e5)) * RBF(np.full(X.shape[1], width), WIDTHS)
        peer = GaussianProcessRegressor(theirs + WhiteKernel(noise, (1e-6, 1e4)), alpha=0.0)
        began = time.process_time()
        with warnings.catch_warnings(action="ignore"):  # widths at their bounds
            peer.fit(train.X, train.y)
        seconds = time.process_time() - began
        print(
            f"({width:g}, {noise:g}, {amplitude:g}): {-best.best.best.value:.3f}, {best.evaluations} evaluations, "
            f"{ours:.1f} s;  scikit-learn {peer.log_marginal_likelihood_value_:.3f}, {seconds:.1f} s",
            flush=True,
        )
        found.append((-best.best.best.value, peer.log_marginal_likelihood_value_))
    print("best of these starts: {:.3f};  scikit-learn {:.3f}".format(*np.max(found, axis=0)))


def main(*, short: bool, data: Path | None, options: argparse.Namespace) -> None:
    if data is None:
        print("left out: `--data DIR` says where Raetsch's suite and pumadyn32nm are")
        return
    if not options.sets:
        pumadyn(data, short=short)
        beside_scikit_learn(data, short=short)
    raetsch(data, options, short=short)
