"""Every fit has exactly the interface that `inner/protocols.py` writes down, and its parts agree with each other."""

from __future__ import annotations

import ast
import functools
import inspect
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from tests.core.conftest import grouped, regression
from tests.core.smooth.problems import table
from tests.core.test_quadratic import MIXED, random_criteria
from tests.oracles import differences
from worker.core.hypergradient import CholeskyBackprop, Implicit
from worker.core.inner import protocols
from worker.core.inner.least_squares.of_inverse import ByInverse
from worker.core.kernels import Rbf
from worker.core.penalties import PerFeature, Shared
from worker.core.selection import Holdout
from worker.core.training import KernelLogistic, KernelRidge, LogisticRegression, MultinomialRegression, Ridge
from worker.core.training.kernel_machines import Landmarks
from worker.core.training.quadratic import empty_problem
from worker.core.training.ridge import MIN_TRIALS_FOR_SPECTRAL
from worker.core.weights import SigmoidTime

CORE = Path(protocols.__file__).parents[1]


class RidgeOfRows(Ridge):
    """Ridge that factors rows at any cost."""

    __slots__ = ()
    arithmetic = "rows"


def first(systems, box, lam=None):
    """The system of the first split, and natural hyperparameters."""
    return systems[0], np.exp(np.linspace(-1.5, 0.5, len(box.names))) if lam is None else lam


def ridge(p=5, kind=Ridge, penalty=grouped, **options):
    problem = regression(24, p)
    training = kind(penalty=penalty(problem), weights=options.pop("weights", None))
    partition = Holdout(fraction=0.25).partition(np.arange(24), 24)
    return first(training.systems(problem, partition, **options), training.hyperparameters(problem))


def per_feature(problem):
    return PerFeature()


def shared(problem):
    return Shared()


def generalized(kind, training):
    problem = table(kind, 40)
    partition = Holdout(fraction=0.25).partition(np.arange(40), 40, problem)
    return first(training.systems(problem, partition), training.hyperparameters(problem))


def given(shape):
    problem = empty_problem(random_criteria())
    return MIXED.system(problem, shape=shape), np.array([0.5, 0.4, 1.3])


def machine(training):
    problem = table("logistic", 30)
    partition = Holdout(fraction=0.25).partition(np.arange(30), 30, problem)
    objective = training.mean_of_splits(problem, partition, None, None, Implicit(), 1)
    return first(objective.formula.fits.systems, objective.hyperparameters)


LEAST_SQUARES = {
    "primal": ridge,
    "primal, one entry each": lambda: ridge(penalty=per_feature),
    "orthogonal": lambda: ridge(kind=RidgeOfRows),
    "spectral": lambda: ridge(penalty=shared, trials=MIN_TRIALS_FOR_SPECTRAL),
    "dual": lambda: ridge(40, dual=True),
    "dual, more hyperparameters": lambda: ridge(20, penalty=per_feature, dual=True),
    "dual by rows": lambda: ridge(40, RidgeOfRows, dual=True),
    "weighted": lambda: ridge(weights=SigmoidTime()),
    "weighted by rows": lambda: ridge(kind=RidgeOfRows, weights=SigmoidTime()),
}
GIVEN = {shape: lambda shape=shape: given(shape) for shape in ("dense", "banded", "sparse")}
ITERATIVE = {
    "newton_cholesky": lambda: generalized("logistic", LogisticRegression(solver="newton_cholesky")),
    "newton_cg": lambda: generalized("multinomial", MultinomialRegression(solver="newton_cg")),
}
MACHINES = {
    "kernel matrix": lambda: machine(KernelRidge(kernel=Rbf())),
    "landmarks": lambda: machine(KernelLogistic(kernel=Rbf(), landmarks=Landmarks(count=8))),
}
OF_THETA = LEAST_SQUARES | GIVEN | ITERATIVE
ALL = OF_THETA | MACHINES
SWEPT = [*LEAST_SQUARES, "dense"]


def members(protocol):
    bases = [base for base in protocol.__mro__ if base.__module__ == protocols.__name__]
    return {name for base in bases for name in vars(base) if not name.startswith("_")}


def assert_implements(part, protocol):
    """All names are there, properties are no methods, and methods take the arguments that the interface names."""
    for name in members(protocol):
        stated, found = getattr(protocol, name), inspect.getattr_static(type(part), name)
        if isinstance(stated, property):
            assert name == "sweep" or not inspect.isfunction(found), name  # a sweep is a method, or None
            continue
        wanted, taken = (list(inspect.signature(f).parameters.values()) for f in (stated, found))
        assert [one.name for one in taken][: len(wanted)] == [one.name for one in wanted], name
        assert all(one.default is not one.empty for one in taken[len(wanted) :]), name


@pytest.fixture(scope="module")
def fit_of():
    """A function from a name to its fit and the system and the point that it belongs to; each is made once."""
    made = {}

    def build(name):
        if name not in made:
            system, lam = ALL[name]()
            made[name] = system.fit(lam), system, lam
        return made[name]

    return build


@pytest.mark.parametrize("name", ALL)
def test_a_fit_has_the_interface_that_is_written_down(fit_of, name):
    fit, system, _ = fit_of(name)
    assert_implements(system, protocols.System)
    assert_implements(fit, protocols.Fit)
    if name in OF_THETA:
        assert_implements(system, protocols.LinearSystem)
        assert_implements(fit, protocols.SmoothFit)
    if name in LEAST_SQUARES:
        assert_implements(fit, protocols.LeastSquaresFit)
        assert_implements(fit.in_rho, protocols.InRho)
        assert_implements(fit.of_inverse, protocols.OfInverse)
    assert (fit.sweep is not None) == (name in SWEPT)


@pytest.mark.parametrize("name", ALL)
def test_a_sweep_is_the_pullback_or_an_error_in_words(fit_of, name):
    fit, system, _ = fit_of(name)
    _, bar = system.loss.value_and_gradient(fit.scored)
    if name in SWEPT:
        assert_allclose(CholeskyBackprop()(fit, bar), fit.pullback(bar), rtol=1e-9, atol=1e-12 * np.abs(bar).max())
    else:
        with pytest.raises(ValueError, match="cholesky_backprop needs"):
            CholeskyBackprop()(fit, bar)


@pytest.mark.parametrize("name", SWEPT)
def test_a_sweep_carries_the_cotangent_of_the_factor_of_the_hessian(fit_of, name):
    """`log |H| = 2 sum_i log L_ii`, so that the cotangent `diag(2 / L_ii)` gives its derivatives."""
    fit, system, lam = fit_of(name)
    nothing = np.zeros_like(fit.theta)

    def of_factor(L):
        return np.diag(2.0 / np.diag(L))

    if name.startswith("dual"):
        with pytest.raises(ValueError, match="factor of H is not known"):
            fit.sweep(nothing, of_factor)
        return
    # `slope` is d lam / d rho: lam itself, or one for a multiplier that enters linearly
    slope = fit.slope if name == "dense" else np.append(lam[:-1], 1.0) if name.startswith("weighted") else lam

    def log_determinant(at):
        moved = system.fit(at)
        return np.linalg.slogdet(moved.apply(np.eye(len(moved.theta))))[1]

    expected = slope * differences(log_determinant, lam)
    assert_allclose(fit.sweep(nothing, of_factor), expected, atol=1e-7 * np.abs(expected).max())
    if name in LEAST_SQUARES:
        assert_allclose(fit.of_inverse.log_determinant_gradient(), expected, atol=1e-7 * np.abs(expected).max())
        assert_allclose(fit.log_determinant(), log_determinant(lam), rtol=1e-10)


@pytest.mark.parametrize("name", [name for name in LEAST_SQUARES if name.startswith("dual")])
def test_the_rows_give_the_functions_of_the_inverse(fit_of, name):
    fit, system, _ = fit_of(name)
    by_rows, by_inverse = fit.of_inverse, ByInverse(fit)
    X, n = system.X.dense(), len(system.y)
    W, bar = fit.solve(np.asfortranarray(X.T)).T, np.linspace(-1.0, 2.0, n)
    for one in ("log_determinant_gradient", "log_determinant_hessian", "hat_trace_hessian"):
        assert_allclose(getattr(by_rows, one)(), getattr(by_inverse, one)(), rtol=1e-7, atol=1e-9)
    for mine, other in zip(by_rows.hat_trace(), by_inverse.hat_trace(), strict=True):
        assert_allclose(mine, other, rtol=1e-8)
    for one in ("contract_rows", "rows_hessian"):
        assert_allclose(getattr(by_rows, one)(W, bar), getattr(by_inverse, one)(W, bar), rtol=1e-7, atol=1e-9)
    r, shares = system.y - X @ fit.theta, np.full(n, 1.0 / n)
    mine, other = by_rows.leverages(X, r, shares, 1.0), by_inverse.leverages(X, r, shares, 1.0)
    for one in ("XP", "r", "q", "remainders"):
        assert_allclose(getattr(mine, one), getattr(other, one), rtol=1e-6, atol=1e-9)


PARTS = [one for one in vars(protocols).values() if getattr(one, "__module__", "") == protocols.__name__]
PARTS = [one for one in PARTS if getattr(one, "_is_protocol", False)]


@functools.cache
def asked_for():
    """The names of all attributes in the core."""
    trees = [ast.parse(path.read_text()) for path in CORE.rglob("*.py")]
    return {node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


@pytest.mark.parametrize("protocol", PARTS, ids=lambda one: one.__name__)
def test_the_interface_is_documented_and_used(protocol):
    """Each name has a docstring, and somebody asks for it."""
    used = asked_for()
    assert protocol.__doc__
    for name in members(protocol):
        assert getattr(protocol, name).__doc__, name
        assert name in used, name
