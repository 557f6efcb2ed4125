"""Kernels beside mpmath, their contractions beside the complex step, and what kernels refuse."""

from __future__ import annotations

from typing import get_args

import mpmath
import numpy as np
import pytest
from numpy.testing import assert_allclose

from tests.oracles import differences
from worker.core.kernels import (
    Kernel,
    Linear,
    Matern,
    Periodic,
    Points,
    Polynomial,
    Product,
    RationalQuadratic,
    Rbf,
    Sum,
    WidthPerFeature,
    WidthPerGroup,
)
from worker.core.kernels.points import squared_distances
from worker.core.kernels.stationary import Period

FEATURES = ("a", "b", "c")
ARD = WidthPerFeature()
GROUPS = WidthPerGroup(groups={"first": ("a", "c"), "second": ("b",)})
SLOW = Period(initial=3.0)
KERNELS = {
    "rbf": Rbf(),
    "rbf of each": Rbf(widths=ARD),
    "matern 1/2": Matern(nu="1/2", widths=ARD),
    "matern 3/2": Matern(nu="3/2", widths=GROUPS),
    "matern 5/2": Matern(widths=ARD),
    "rational quadratic": RationalQuadratic(widths=ARD),
    "periodic": Periodic(widths=ARD, features=("a", "b"), period=SLOW),
    "polynomial": Polynomial(degree=3, widths=ARD),
    "linear": Linear(),
    "linear of each": Linear(widths=ARD),
    "product": Product(factors=(Periodic(features=("a",), period=SLOW), Matern(nu="3/2", widths=ARD))),
    "sum": Sum(
        terms=(
            Rbf(widths=GROUPS),
            Linear(name="line"),
            Product(factors=(Periodic(features=("b",), period=SLOW), Rbf(features=("c",))), name="seasons"),
        )
    ),
}


def points(n, seed=0):
    X = np.random.default_rng(seed).normal(size=(n, 3))
    return Points(X, 2.0 * X + 1.0)


def natural(function, seed=3):
    box = function.box
    return np.exp(box.initial + 0.2 * np.random.default_rng(seed).normal(size=len(box.names)))


def of_pair(kernel, x, z, lam):
    """The textbook formula in mpmath, for one pair of rows `(scaled, original)`; `lam` by name."""
    if isinstance(kernel, Sum):
        total = mpmath.mpf(0)
        for i, term in enumerate(kernel.terms):
            name = term.name or term.kind
            weight = lam[f"{name}.weight"] if i else 1
            total += weight * of_pair(term, x, z, under(name, lam))
        return total
    if isinstance(kernel, Product):
        return mpmath.fprod(of_pair(f, x, z, under(f.name or f.kind, lam)) for f in kernel.factors)
    return of_simple(kernel, x, z, lam)


def of_simple(kernel, x, z, lam):
    """The same of a kernel that has no terms or factors."""
    chosen = [FEATURES.index(name) for name in kernel.features or FEATURES]
    widths = [mpmath.mpf(width_of(kernel.widths, FEATURES[j], lam)) for j in chosen]
    if isinstance(kernel, Periodic):
        turns = [mpmath.sin(mpmath.pi * (x[1][j] - z[1][j]) / lam["period"]) for j in chosen]
        return mpmath.exp(-2 * mpmath.fsum((t / w) ** 2 for t, w in zip(turns, widths, strict=True)))
    a, b = [mpmath.mpf(x[0][j]) for j in chosen], [mpmath.mpf(z[0][j]) for j in chosen]
    if isinstance(kernel, Linear | Polynomial):
        g = mpmath.fsum(u * v / w**2 for u, v, w in zip(a, b, widths, strict=True))
        return g if isinstance(kernel, Linear) else (lam["constant"] + g) ** kernel.degree
    s = mpmath.fsum(((u - v) / w) ** 2 for u, v, w in zip(a, b, widths, strict=True))
    if isinstance(kernel, Rbf):
        return mpmath.exp(-s / 2)
    if isinstance(kernel, RationalQuadratic):
        return (1 + s / (2 * mpmath.mpf(lam["alpha"]))) ** -mpmath.mpf(lam["alpha"])
    nu = mpmath.mpf(kernel.nu[0]) / 2  # the definition by Bessel functions (Rasmussen and Williams 2006, eq. 4.14)
    t = mpmath.sqrt(2 * nu * s)
    return mpmath.mpf(1) if t == 0 else 2 ** (1 - nu) / mpmath.gamma(nu) * t**nu * mpmath.besselk(nu, t)


def under(name, lam):
    return {key.removeprefix(f"{name}."): value for key, value in lam.items() if key.startswith(f"{name}.")}


def width_of(widths, feature, lam):
    if widths is None:
        return 1.0
    if isinstance(widths, WidthPerGroup):
        return next(lam[f"width[{group}]"] for group, members in widths.groups.items() if feature in members)
    return lam.get("width", lam.get(f"width[{feature}]"))


def test_every_kernel_is_here():
    assert {type(kernel) for kernel in KERNELS.values()} == set(get_args(Kernel))


@pytest.mark.parametrize("name", KERNELS)
def test_values_are_those_of_the_formula(name):
    kernel = KERNELS[name]
    function, X, Z = kernel.over(FEATURES), points(5), points(4, seed=1)
    Z.scaled[2], Z.original[2] = X.scaled[1], X.original[1]
    lam = natural(function)
    by_name = dict(zip(function.box.names, lam, strict=True))
    K = function.at(X, Z, lam).K
    with mpmath.workdps(30):
        for i in range(5):
            for k in range(4):
                pair = (X.scaled[i], X.original[i]), (Z.scaled[k], Z.original[k])
                assert_allclose(K[i, k], float(of_pair(kernel, *pair, by_name)), rtol=1e-13, atol=1e-15)
    assert_allclose(np.diag(function.at(X, X, lam).K), function.diagonal(X, lam), rtol=1e-14)


@pytest.mark.parametrize("name", KERNELS)
def test_contraction_is_the_derivative(name):
    function, X, Z = KERNELS[name].over(FEATURES), points(12), points(9, seed=1)
    Z.scaled[2], Z.original[2] = X.scaled[1], X.original[1]
    rho, K_bar = np.log(natural(function)), np.random.default_rng(2).normal(size=(12, 9))
    found = function.at(X, Z, np.exp(rho)).contract(K_bar)
    if len(rho) == 0:
        assert found.shape == (0,)
        return
    wanted = differences(lambda at: float(np.vdot(K_bar, function.at(X, Z, np.exp(at)).K)), rho, 2e-3)
    assert_allclose(found, wanted, rtol=1e-9, atol=1e-9)
    a, c = K_bar[:, 0], K_bar[0]
    at = function.at(X, Z, np.exp(rho))
    assert_allclose(at.contract_outer(a, c), at.contract(np.outer(a, c)), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", KERNELS)
def test_products_with_a_vector_are_the_derivative(name):
    function, X, Z = KERNELS[name].over(FEATURES), points(12), points(9, seed=1)
    Z.scaled[2], Z.original[2] = X.scaled[1], X.original[1]
    lam, random = natural(function), np.random.default_rng(2)
    c, F, at = random.normal(size=9), random.normal(size=(12, 9)), function.at(X, Z, lam)
    for found, factors in ((at.along(c), np.ones((12, 9))), (at.products(c, F), F)):
        rows = [at.contract(np.outer(e, c) * factors) for e in np.eye(12)]
        assert found.shape == (12, len(lam))
        assert_allclose(found, rows, rtol=1e-10, atol=1e-12)


def test_close_rows_keep_their_distance():
    """Far from the origin the product of matrices alone would lose every digit of it."""
    X = np.array([[1e3, 1.0], [1e3 + 1e-6, 1.0], [-1e3, 2.0]])
    S = squared_distances(X, X)
    assert_allclose(S[0, 1], (X[0, 0] - X[1, 0]) ** 2, rtol=1e-14)
    assert (np.diag(S) == 0).all()
    assert_allclose(S, S.T, rtol=0)


@pytest.mark.parametrize(
    ("kernel", "told"),
    [
        (Rbf(features=("zz",)), "names the feature 'zz'"),
        (Rbf(features=()), "names no features"),
        (Rbf(features=("a", "a")), "a feature twice"),
        (Rbf(widths=WidthPerGroup(groups={"g": ("a", "b")})), "in no group: 'c'"),
        (Rbf(widths=WidthPerGroup(groups={"g": ("a", "b", "c"), "h": ("a",)})), "in two groups"),
        (Rbf(widths=WidthPerGroup(groups={"g": ("a", "b", "q")})), "'q'"),
        (Sum(terms=(Rbf(), Rbf())), "two kernels are called 'rbf'"),
        (Product(factors=(Rbf(name="one"), Linear(name="one"))), "two kernels are called 'one'"),
    ],
)
def test_a_kernel_that_does_not_fit_is_refused(kernel, told):
    with pytest.raises(ValueError, match=told):
        kernel.over(FEATURES)
