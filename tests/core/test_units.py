"""Boxes that are omitted have the units of the columns: rescaling a column changes its penalty and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array

from tests.core.conftest import regression
from worker.core.hypergradient import HypergradientAuto
from worker.core.hyperparameters import Box
from worker.core.kernels import Linear, Polynomial, Rbf, Sum, WidthPerFeature, WidthPerGroup
from worker.core.outer import OuterAuto
from worker.core.penalties import (
    Difference,
    Identity,
    Matrix,
    PerClass,
    PerCoefficient,
    PerFeature,
    PerGroup,
    QuadraticForms,
    Shared,
)
from worker.core.penalties.splines import Spline
from worker.core.rows.problem import Imputation, Problem
from worker.core.search.plan import Plan, Prepared, prepare
from worker.core.search.tune import tune
from worker.core.selection import Holdout
from worker.core.training import (
    GammaRegression,
    HuberRegression,
    KernelRidge,
    LogisticRegression,
    MultinomialRegression,
    PoissonRegression,
    Ridge,
    SquaredHinge,
)

FACTORS = (1e-6, 1e-4, 1e6)
ALL, FIRST, NOT_LAST = np.ones(3), np.array([1.0, 0.0, 0.0]), np.array([1.0, 1.0, 0.0])
GROUPS = {"a": ("x0", "x1"), "b": ("x2",)}
FORMS = (Identity(name="size", features=("x0", "x1", "x2")), Difference(name="smooth", features=("x0", "x1")))


def table(n: int = 36, **parts: Any) -> Problem:
    random = np.random.default_rng(1)
    X = random.normal(size=(n, 3)) * [1.0, 3.0, 0.5] + [0.3, 0.0, -0.2]
    y = X @ [1.0, -0.5, 0.0] + random.normal(size=n)
    return Problem(X, y, ("x0", "x1", "x2"), **parts)


def classes(names: str = "ab") -> Problem:
    problem = table(60)
    edges = np.quantile(problem.y, np.arange(1, len(names)) / len(names))
    return replace(problem, y=np.searchsorted(edges, problem.y).astype(float), classes=tuple(names))


def counts(problem: Problem) -> Problem:
    return replace(problem, y=np.round(np.exp(problem.y / 2)) + 1.0)


def sparse() -> Problem:
    problem = table()
    return replace(problem, X=csr_array(np.where(np.abs(problem.X) > 0.4, problem.X, 0.0)))


def with_gaps() -> Problem:
    problem = table(weights=np.linspace(0.0, 2.0, 36))
    X = problem.X.copy()
    X[::5, 0] = np.nan
    return replace(problem, X=X, imputation=Imputation(np.array([0]), ("median",), np.zeros(1)))


def constant_without_intercept() -> Problem:
    problem = table()
    return replace(problem, X=np.column_stack([np.full(36, 2.0), problem.X[:, 1:]]))


# The columns that are rescaled; the criterion without `standardize`; the table; the powers of the factor by which the
# hyperparameters change.
Case = tuple[np.ndarray, Any, Callable[[], Problem], list[int]]
CASES: dict[str, Case] = {
    "one of its own": (FIRST, Ridge(penalty=PerFeature()), table, [2, 0, 0]),
    "one for all": (ALL, Ridge(penalty=Shared()), table, [2]),
    "a group": (NOT_LAST, Ridge(penalty=PerGroup(groups=GROUPS)), table, [2, 0]),
    "forms": (ALL, Ridge(penalty=QuadraticForms(forms=FORMS)), table, [2, 2]),
    "splines": (NOT_LAST, Ridge(splines=(Spline(feature="x0", basis=6),), penalty=PerFeature()), table, [2, 0, 0]),
    "sparse": (FIRST, Ridge(penalty=PerFeature()), sparse, [2, 0, 0]),
    "gaps and weights": (FIRST, Ridge(penalty=PerFeature()), with_gaps, [2, 0, 0]),
    "a constant": (FIRST, Ridge(intercept=False, penalty=PerFeature()), constant_without_intercept, [2, 0, 0]),
    "logistic": (FIRST, LogisticRegression(penalty=PerFeature()), classes, [2, 0, 0]),
    "hinge": (FIRST, SquaredHinge(penalty=PerFeature()), classes, [2, 0, 0]),
    "poisson": (FIRST, PoissonRegression(penalty=PerFeature()), lambda: counts(table()), [2, 0, 0]),
    "gamma": (ALL, GammaRegression(penalty=Shared()), lambda: counts(table()), [2]),
    "huber": (FIRST, HuberRegression(penalty=PerFeature()), table, [2, 0, 0]),
    "of all classes": (FIRST, MultinomialRegression(penalty=PerFeature()), lambda: classes("abc"), [2, 0, 0]),
    "classes": (ALL, MultinomialRegression(penalty=PerClass()), lambda: classes("abc"), [2, 2, 2]),
    "coefficients": (FIRST, MultinomialRegression(penalty=PerCoefficient()), lambda: classes("abc"), [2, 0, 0] * 3),
    "widths": (FIRST, KernelRidge(Rbf(widths=WidthPerFeature())), table, [0, 1, 0, 0]),
    "groups of widths": (NOT_LAST, KernelRidge(Rbf(widths=WidthPerGroup(groups=GROUPS))), table, [0, 1, 0]),
    "one width": (ALL, KernelRidge(Rbf()), table, [0, 1]),
    "polynomial": (ALL, KernelRidge(Polynomial()), table, [0, 1, 0]),
    "linear kernel": (ALL, KernelRidge(Linear()), table, [2]),
    "sum of kernels": (ALL, KernelRidge(Sum(terms=(Rbf(), Linear()))), table, [0, 1, -2]),
}


def prepared(training: Any, problem: Problem) -> Prepared:
    return prepare(problem, Plan(training, Holdout(fraction=0.4), HypergradientAuto(), OuterAuto(tolerance=1e-7)))


def rescaled(problem: Problem, chosen: np.ndarray, factor: float) -> Problem:
    X = problem.X * factor**chosen
    return replace(problem, X=csr_array(X) if isinstance(problem.X, csr_array) else X)


def scaled_numbers(made: Prepared, factor: float, powers: list[int]) -> np.ndarray:
    """Initial values and bounds in units that do not change with the factor."""
    box = made.objective.hyperparameters
    return np.array([box.natural(box.initial), *box.box]) / factor ** np.array(powers)


@pytest.mark.unchecked
@pytest.mark.parametrize("name", CASES)
def test_the_box_follows_a_column_that_is_rescaled_and_j_is_the_same_function(name: str) -> None:
    chosen, training, make, powers = CASES[name]
    training = replace(training, standardize=False)
    reference = prepared(training, make())
    for factor in FACTORS:
        made = prepared(training, rescaled(make(), chosen, factor))
        numbers, wanted = scaled_numbers(made, factor, powers), scaled_numbers(reference, 1.0, powers)
        assert_allclose(numbers, wanted, rtol=1e-9)
        start = made.objective.hyperparameters.start(0, 0)
        for move in (0.0, 0.3):
            now = made.objective.evaluate(start + move)
            before = reference.objective.evaluate(reference.objective.hyperparameters.start(0, 0) + move)
            assert_allclose(now.value, before.value, rtol=1e-7)
            assert_allclose(now.gradient, before.gradient, atol=1e-6 * abs(before.value))


@pytest.mark.unchecked
@pytest.mark.parametrize("name", ["one of its own", "logistic", "poisson", "coefficients"])
@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_the_search_ends_at_the_same_j(name: str, factor: float) -> None:
    chosen, training, make, powers = CASES[name]
    training = replace(training, standardize=False)
    ends = []
    for c in (1.0, factor):
        made = prepared(training, rescaled(make(), chosen, c))
        *_, last = tune(made)
        best = last.best.best
        ends.append((best.value, made.objective.hyperparameters.natural(best.rho) / c ** np.array(powers)))
    assert_allclose(ends[1][0], ends[0][0], rtol=1e-6)
    # at the bound of a flat direction everything is as good
    at_minimum = np.abs(np.log10(ends[0][1])) < 3
    assert_allclose(ends[1][1][at_minimum], ends[0][1][at_minimum], rtol=2e-2)


@pytest.mark.unchecked
def test_a_column_of_another_scale_is_not_lost() -> None:
    """With the numbers of standardized columns its penalty would begin on a plateau."""
    problem = rescaled(table(), FIRST, 1e-4)
    plain, standard = (Ridge(standardize=standardize, penalty=PerFeature()) for standardize in (False, True))
    ends = [list(tune(prepared(training, problem)))[-1].best.best.value for training in (plain, standard)]
    assert ends[0] < 1.05 * ends[1]


@pytest.mark.parametrize("training", [Ridge(penalty=PerFeature()), LogisticRegression(), KernelRidge()])
def test_standardized_columns_have_the_unit_one(training: Any) -> None:
    problem = regression(30, 3)
    if training.classifies:
        problem = replace(problem, y=(problem.y > np.median(problem.y)).astype(float), classes=("a", "b"))
    made = prepared(training, problem)
    assert made.problem.variances is None
    box = made.objective.hyperparameters
    of_numbers = training.penalty.hyperparameters(tuple(name for name in box.names if name.startswith("penalty")))
    for now, wanted in zip((box.initial, box.lower, box.upper), (0, 1, 2), strict=True):
        expected = np.log(np.full(len(of_numbers.names), training.penalty.defaults[wanted]))
        assert_array_equal(now[: len(expected)], expected)


def test_given_numbers_are_natural_and_what_is_omitted_gives_way() -> None:
    units = np.array([1e-8, 1.0, 1e8])

    def numbers(box: Box) -> np.ndarray:
        found = box.in_units(box.hyperparameters(("a", "b", "c")), units)
        return np.array([found.natural(found.initial), *found.box])

    assert_allclose(numbers(Box()), np.outer([1.0, 1e-6, 1e6], units), rtol=1e-12)
    assert_allclose(numbers(Box(3.0, 2.0, 5.0)), np.outer([3.0, 2.0, 5.0], np.ones(3)), rtol=1e-12)
    # A given initial value widens the box, and is begun at.
    assert_allclose(numbers(Box(initial=10.0)), [[10.0] * 3, [1e-14, 1e-6, 10.0], [10.0, 1e6, 1e14]], rtol=1e-12)
    # A given bound moves the other one where it would be beyond, and an omitted initial value is in the box.
    assert_allclose(numbers(Box(lower=1.0)), [[1.0, 1.0, 1e8], [1.0] * 3, [1e12, 1e6, 1e14]], rtol=1e-12)
    assert_allclose(numbers(Box(upper=1.0)), [[1e-8, 1.0, 1.0], [1e-14, 1e-6, 1e-12], [1.0] * 3], rtol=1e-12)
    for bad in ({"lower": 2.0, "upper": 1.0}, {"initial": 1.0, "lower": 2.0}, {"initial": 3.0, "upper": 2.0}):
        with pytest.raises(ValueError, match="must"):
            Box(**bad)


def test_columns_without_variance_have_no_say_in_a_unit() -> None:
    problem = table()
    X = np.column_stack([np.full(36, 1e9), 1e-3 * problem.X[:, 1], problem.X[:, 2] * 0.0])

    def units(training: Any) -> np.ndarray:
        made = prepared(replace(training, standardize=False), replace(problem, X=X))
        return np.exp(made.objective.hyperparameters.initial)

    variance = float(np.var(prepared(Ridge(), replace(problem, X=X)).problem.X[:, 1]))
    assert_allclose(units(Ridge(penalty=PerFeature())), [1.0, variance, 1.0])
    assert_allclose(units(Ridge(penalty=Shared())), [variance])
    assert_allclose(units(Ridge(penalty=PerGroup(groups={"a": ("x0", "x1"), "b": ("x2",)}))), [variance, 1.0])


def test_the_unit_of_a_matrix_follows_its_entries() -> None:
    """A form of rescaled columns is the same form if its matrix is rescaled as well: its penalty does not change."""
    scale = np.array([1e-3, 1.0, 1e4])
    S = np.array([[2.0, -1.0, 0.0], [-1.0, 2.0, -1.0], [0.0, -1.0, 2.0]])

    def box(X: np.ndarray, S: np.ndarray) -> np.ndarray:
        forms = QuadraticForms(forms=(Matrix(name="S", matrix=tuple(map(tuple, S.tolist()))),))
        made = prepared(Ridge(standardize=False, penalty=forms), replace(table(), X=X))
        return np.array([made.objective.hyperparameters.initial, made.objective.hyperparameters.upper])

    X = table().X
    assert_allclose(box(X * scale, S * np.outer(scale, scale)), box(X, S), rtol=1e-9)
    assert_allclose(box(X, 100.0 * S), box(X, S) - np.log(100.0), rtol=1e-9)
