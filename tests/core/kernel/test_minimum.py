"""Training of kernel machines reaches the minimum of C for any data. The oracle is a slow search by other means."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import brentq, minimize
from scipy.spatial.distance import cdist

from worker.core.inner.kernel.kernel_fit import Split
from worker.core.inner.kernel.newton_model import ModelOfRows
from worker.core.kernels import Linear, Matern, Points, Polynomial, Rbf
from worker.core.losses.training import HuberizedHingeLoss, LogisticLoss, SquaredHingeLoss

NUGGET = 1e-8
CASES = [seed if seed < 30 else pytest.param(seed, marks=pytest.mark.slow) for seed in range(200)]


def losses(loss, s, f):
    """Loss, slope and curvature of each row."""
    z = s * f
    if isinstance(loss, LogisticLoss):
        return np.logaddexp(0.0, -z), -s * np.exp(-np.logaddexp(0.0, z)), np.exp(-np.logaddexp(0.0, z) * 2 + z)
    if isinstance(loss, SquaredHingeLoss):
        return np.where(z < 1, (1 - z) ** 2 / 2, 0.0), np.where(z < 1, -s * (1 - z), 0.0), np.where(z < 1, 1.0, 0.0)
    h = loss.h
    cases = [z >= 1 + h, z <= 1 - h]
    return (
        np.select(cases, [0.0, 1 - z], (1 + h - z) ** 2 / (4 * h)),
        np.select(cases, [0.0, -s], -s * (1 + h - z) / (2 * h)),
        np.select(cases, [0.0, 0.0], 1 / (2 * h)),
    )


class Naive:
    """C as a function of the coefficients of explicit features and of an unpenalized constant feature."""

    def __init__(self, split, width, lam):
        X, L = split.X.scaled, split.landmarks
        among = self.kernel(X, X, width) if L is None else self.kernel(L.scaled, L.scaled, width)
        if L is not None:
            among = among + NUGGET * np.trace(among) / len(among) * np.eye(len(among))
        e, V = np.linalg.eigh(among)
        V, e = V[:, e > 0], e[e > 0]
        features = V * np.sqrt(e) if L is None else self.kernel(X, L.scaled, width) @ V / np.sqrt(e)
        self.Z = np.column_stack([features, np.ones(len(X))]) if split.intercept else features
        self.penalties = np.full(self.Z.shape[1], lam)
        self.penalties[features.shape[1] :] = 0.0
        self.loss, self.s, self.shares, self.features = split.loss, 2 * split.y - 1, split.shares, features

    @staticmethod
    def kernel(A, B, width):
        return A @ B.T if width is None else np.exp(-cdist(A, B, "sqeuclidean") / (2 * width**2))

    def value(self, x):
        return self.shares @ losses(self.loss, self.s, self.Z @ x)[0] + (self.penalties * x) @ x / 2

    def gradient(self, x):
        return self.Z.T @ (self.shares * losses(self.loss, self.s, self.Z @ x)[1]) + self.penalties * x

    def step(self, x):
        D = self.shares * losses(self.loss, self.s, self.Z @ x)[2]
        H = (self.Z.T * D) @ self.Z + np.diag(self.penalties)
        if H[-1, -1] == 0.0:
            H[-1, -1] = 1e-3  # no row is curved, and the constant feature has no penalty
        return np.linalg.solve(H, -self.gradient(x))

    def minimum(self):
        """By L-BFGS-B and then Newton's method; a convex function is lowest at a zero of its gradient."""
        x = minimize(self.value, np.zeros(self.Z.shape[1]), jac=self.gradient, method="L-BFGS-B").x
        best, least, polishing = x, np.linalg.norm(self.gradient(x)), 0
        for _ in range(1000):
            if polishing == 20 or least <= 1e-16:
                break
            step, t = self.step(x), 1.0
            while t > 1e-12 and self.value(x + t * step) > self.value(x) + 1e-4 * t * (step @ self.gradient(x)) + 1e-16:
                t /= 2
            x = x + t * step
            if np.linalg.norm(self.gradient(x)) < least:
                best, least, polishing = x, np.linalg.norm(self.gradient(x)), 0
            elif least < 1e-13:
                polishing += 1  # as low as rounding lets it be
        assert least < 1e-13
        return best

    def best_intercepts(self, smooth):
        """The ends of the interval on which C is constant in the intercept; None if the best one is unique."""
        if isinstance(self.loss, LogisticLoss):
            return None
        widths = [-self.loss.h, self.loss.h] if isinstance(self.loss, HuberizedHingeLoss) else [0.0]
        kinks = np.concatenate([self.s * (1 + width) - smooth for width in widths])
        slopes = np.array([self.shares @ losses(self.loss, self.s, smooth + b)[1] for b in kinks])
        flat = kinks[np.abs(slopes) < 1e-13]
        return (flat.min(), flat.max()) if len(flat) else None


def case(seed):
    """A random split (rows with ties, classes of any size, weights, loss, landmarks), a kernel width and a penalty."""
    random = np.random.default_rng([seed, 3])
    n, p = int(random.integers(4, 60)), int(random.integers(1, 4))
    X = random.normal(size=(n, p))
    if random.random() < 0.25:
        X = np.round(X)
    t = X[:, 0] + random.choice([0.1, 0.5, 2.0]) * random.normal(size=n)
    y = (t > np.quantile(t, 1 - random.choice([0.5, 0.3, 0.1]))).astype(float)
    y[0] = 1.0 - y[1:].max() if y.min() == y.max() else y[0]
    weights = [np.ones(n), random.uniform(0.5, 2.0, n), np.exp(3 * random.normal(size=n))][
        random.choice(3, p=[0.5, 0.3, 0.2])
    ]
    half_width = random.choice([0.01, 0.1, 0.5, 0.9])
    loss = random.choice([HuberizedHingeLoss(half_width)] * 3 + [SquaredHingeLoss(), LogisticLoss()])
    landmarks = np.sort(random.permutation(n)[: random.integers(2, max(3, n // 2))]) if random.random() < 0.4 else None
    width = None if random.random() < 0.4 else np.exp(random.normal())
    rows = Points(X, X)
    split = Split(
        rows, y, weights / weights.sum(), rows, y, np.ones(n), loss, bool(random.random() < 0.7),
        None if landmarks is None else rows.rows(landmarks), NUGGET,
    )  # fmt: skip
    return split, width, np.exp(random.uniform(np.log(1e-6), np.log(1e2))), random


@pytest.mark.unchecked
@pytest.mark.parametrize("seed", CASES)
def test_the_minimum_is_that_of_a_slow_search(seed):
    split, width, lam, random = case(seed)
    kernel = (Linear() if width is None else Rbf()).over(tuple("abc"[: split.X.scaled.shape[1]]))
    rest = np.empty(0) if width is None else np.array([width])
    naive = Naive(split, width, lam)
    x = naive.minimum()
    smooth = naive.features @ x[: naive.features.shape[1]]
    far = split.fit(kernel, np.append(lam * np.exp(random.normal(scale=3)), rest), None)
    assert far is not None
    for start in (None, (far.minimum.theta, far.minimum.b)):
        fit = split.fit(kernel, np.append(lam, rest), start)
        assert fit is not None
        f, b, theta = fit.minimum.f, fit.minimum.b, fit.minimum.theta
        value = split.shares @ losses(naive.loss, naive.s, f)[0] + lam / 2 * fit.model.norm(theta, f - b, theta)
        assert value <= naive.value(x) * (1 + 1e-9)
        # the curvature of C is at least lam: a gradient of 1e-13 leaves an error of 1e-7 in the smooth part
        assert_allclose(f - b, smooth, rtol=0, atol=1e-7 * (1 + np.abs(smooth).max()))
        assert_allclose(fit.scored, f, rtol=0, atol=1e-7 * (1 + np.abs(f).max()))
        if split.intercept:
            ends = naive.best_intercepts(smooth)
            assert_allclose(b, x[-1] if ends is None else np.mean(ends), rtol=1e-6, atol=1e-6)


def split_of(X, y, loss, *, intercept=True, weights=None, landmarks=None):
    rows, weights = Points(X, X), np.ones(len(y)) if weights is None else weights
    landmarks = None if landmarks is None else rows.rows(landmarks)
    return Split(rows, y, weights / weights.sum(), rows, y, np.ones(len(y)), loss, intercept, landmarks, NUGGET)


@pytest.mark.parametrize("loss", [HuberizedHingeLoss(0.3), SquaredHingeLoss()], ids=["huberized", "squared"])
@pytest.mark.parametrize("landmarks", [None, slice(4)], ids=["exact", "landmarks"])
@pytest.mark.parametrize("y", [0.0, 1.0])
def test_rows_of_one_class_are_all_at_the_end_of_their_hinge(loss, landmarks, y):
    """Any intercept further from zero gives the same C, which is zero up to squared rounding."""
    X, ones = np.random.default_rng(0).normal(size=(9, 2)), np.ones(9)
    fit = split_of(X, y * ones, loss, landmarks=landmarks).fit(Rbf().over(("a", "b")), np.array([0.1, 1.0]), None)
    assert_allclose(fit.scored, (2 * y - 1) * (1 + getattr(loss, "h", 0.0)) * ones, rtol=1e-14)
    # the kernel of the landmarks has a condition number of about 1e2, and lam is 0.1
    assert_allclose(fit.coefficients, 0.0, atol=1e-12)
    assert_allclose(fit.pullback(ones), 0.0, atol=1e-12)


@pytest.mark.parametrize("loss", [HuberizedHingeLoss(0.01), SquaredHingeLoss()], ids=["huberized", "squared"])
def test_rows_of_one_class_have_a_minimum_though_rounding_decides_which_are_curved(loss):
    """Their kinks differ by rounding alone, and C, its falls and its decrements are of the size of squared rounding."""
    for seed in range(40):
        random = np.random.default_rng(seed)
        n = int(random.integers(3, 30))
        X, y = random.normal(size=(n, 2)) * 10 ** random.uniform(-2, 2), np.full(n, float(random.integers(2)))
        landmarks = [None, slice(int(random.integers(2, n)))][random.integers(2)]
        lam = np.array([10 ** random.uniform(-6, 2), 1.0])
        fit = split_of(X, y, loss, landmarks=landmarks).fit(Rbf().over(("a", "b")), lam, None)
        assert fit is not None
        assert_allclose(fit.scored, (2 * y - 1) * (1 + getattr(loss, "h", 0.0)), rtol=1e-11)


def test_an_intercept_that_may_be_anywhere_in_an_interval_is_in_its_middle():
    """Also if the search arrives at an end of the interval, with a row at its kink: most of the large seeds do."""
    found = 0
    for seed in (*range(20), 80, 92, 173, 188, 196, 238, 316, 323, 342):
        random = np.random.default_rng(seed)
        n = 2 * int(random.integers(2, 8))
        X = random.normal(size=(n, 2))
        y = (np.argsort(np.argsort(X[:, 0] + random.normal(size=n))) >= n // 2).astype(float)
        split, lam = split_of(X, y, HuberizedHingeLoss(0.05)), np.exp(random.uniform(-4, 1))
        minimum = split.fit(Linear().over(("a", "b")), np.array([lam]), None).minimum
        ends = Naive(split, None, lam).best_intercepts(minimum.f - minimum.b)
        if ends is not None and ends[1] > ends[0] + 1e-9:
            assert_allclose(minimum.b, np.mean(ends), atol=1e-9)
            found += 1
    assert found > 8


KERNELS = {"linear": (Linear(), []), "rbf": (Rbf(), [1.0]), "polynomial": (Polynomial(degree=3), [1.0, 1.0])}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kernel", KERNELS)
def test_rows_at_their_kinks_do_not_matter(kernel, seed):
    """Rows whose loss just reaches zero at the minimum change nothing, but rounding moves them across the kink."""
    random = np.random.default_rng(seed)
    x, (kernel, rest) = random.normal(size=40), KERNELS[kernel]
    y = (x + 0.7 * random.normal(size=40) > 0).astype(float)
    function = kernel.over(("x",))
    lam = np.array([1e-6, *rest])
    few = split_of(x[:, None], y, HuberizedHingeLoss(0.01)).fit(function, lam, None)

    def beyond(t):
        at = Points(np.array([[t]]), np.array([[t]]))
        return float((function.at(at, few.support, lam[1:]).K @ few.coefficients)[0]) + few.minimum.b - 1.01

    grid = np.linspace(-4.0, 4.0, 200)
    signs = np.sign([beyond(t) for t in grid])
    kinks = [brentq(beyond, grid[i], grid[i + 1], xtol=1e-15) for i in np.flatnonzero(signs[1:] * signs[:-1] < 0)]
    assert kinks, "another seed is needed here"
    more = np.append(x, np.repeat(kinks, 30))
    scaled = lam * np.append(40 / len(more), np.ones(len(rest)))
    split = split_of(more[:, None], np.append(y, np.ones(len(more) - 40)), HuberizedHingeLoss(0.01))
    fit = split.fit(function, scaled, None)
    assert fit is not None
    assert_allclose(
        fit.minimum.f[:40], few.minimum.f, atol=1e-6
    )  # lam is 1e-6 relative to the kernel, kinks are exact to 1e-15


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("nu", ["1/2", "5/2"])
def test_narrow_bends_and_hardly_a_penalty_are_no_obstacle(nu, seed):
    """Rows cross their kinks many times during the search."""
    random = np.random.default_rng(seed)
    X = random.normal(size=(120, 4))
    y = (X[:, 0] + 0.5 * random.normal(size=120) > 0).astype(float)
    split = split_of(X, y, HuberizedHingeLoss(0.01), intercept=False, weights=np.exp(random.normal(size=120)))
    fit = split.fit(Matern(nu=nu).over(tuple("abcd")), np.array([5e-7, 0.75]), None)
    assert fit.inner_gradient_norm() < 1e-10


def test_a_kernel_may_be_of_any_size():
    """No row is curved at the start: the first step is 1e13 times too long."""
    X = 3.0 * np.random.default_rng(0).normal(size=(30, 2))
    y = (X[:, 0] + X[:, 1] ** 2 > 5.0).astype(float)
    split = split_of(X, y, HuberizedHingeLoss(0.5), intercept=False, landmarks=slice(2))
    fit = split.fit(Linear().over(("a", "b")), np.array([1e-14]), None)
    naive = Naive(split, None, 1e-14)
    assert_allclose(fit.minimum.f, naive.Z @ naive.minimum(), atol=1e-6)


def test_a_start_that_says_nothing_about_the_intercept_is_no_minimum():
    """With a large penalty and one row of a class, a large intercept gives a lower C than zero, on a flat part of C."""
    X = np.random.default_rng(0).normal(size=(200, 2))
    y = np.ones(200)
    y[7] = 0.0
    split, lam, kernel = split_of(X, y, LogisticLoss()), np.array([100.0, 1.0]), Rbf().over(("a", "b"))
    cold = split.fit(kernel, lam, None)
    warm = split.fit(kernel, lam, (1e-9 * np.ones(200), 100.0))
    assert warm is None or abs(warm.minimum.b - cold.minimum.b) < 1e-6
    assert_allclose(cold.minimum.b, np.log(199), rtol=1e-2)


@pytest.mark.parametrize("seed", range(4))
def test_a_search_that_leads_nowhere_has_no_result(seed):
    """If the kernel is 1e9 times the penalty or more, rounding leaves almost no correct digit of the minimum."""
    random = np.random.default_rng(seed)
    X, y = 10.0 * random.normal(size=(80, 4)), (random.normal(size=80) > 0).astype(float)
    kernel = Polynomial(degree=3).over(tuple("abcd"))
    assert split_of(X, y, HuberizedHingeLoss(0.5)).fit(kernel, np.array([1e-9, 1.0, 1.0]), None) is None


def test_rounding_is_not_worth_many_factorizations(monkeypatch):
    """The predictors of a large kernel have rounding errors in the sixth digit; no further step can reduce them."""
    random = np.random.default_rng(1)
    X = random.normal(size=(150, 4))
    y = (X[:, 0] + 0.5 * random.normal(size=150) > 0).astype(float)
    factored, factor = [], ModelOfRows.factor
    monkeypatch.setattr(ModelOfRows, "factor", lambda self, D: factored.append(0) or factor(self, D))
    fit = split_of(X, y, LogisticLoss()).fit(Polynomial(degree=3).over(tuple("abcd")), np.array([1e-7, 1.0, 1.0]), None)
    assert fit.inner_gradient_norm() < 1e-7
    assert len(factored) < 25


@pytest.mark.parametrize("width", [0.1, 10.0])
def test_a_start_of_another_kernel_is_no_obstacle(width):
    """Theta of a tiny penalty and another width, as a start, gives predictors far from the minimum."""
    random = np.random.default_rng(0)
    kernel = Rbf().over(("a", "b"))
    for _ in range(8):
        X = random.normal(size=(25, 2))
        y = (X[:, 0] + 0.5 * random.normal(size=25) > 0).astype(float)
        split, lam = split_of(X, y, LogisticLoss()), np.array([0.1, width])
        other = split.fit(kernel, np.array([1e-7, 1.0]), None).minimum
        fits = [split.fit(kernel, lam, start) for start in (None, (other.theta, other.b))]
        assert_allclose(fits[1].minimum.f, fits[0].minimum.f, rtol=0, atol=1e-10)


def test_coefficients_are_slopes_even_if_they_cancel():
    """Rows that are all alike: zero has the same predictors, but no support."""
    X, y = np.ones((6, 2)), np.array([0.0, 1.0, 0.0, 1.0, 0.0, 1.0])
    fit = split_of(X, y, HuberizedHingeLoss(0.3)).fit(Rbf().over(("a", "b")), np.array([0.1, 1.0]), None)
    assert_allclose(fit.coefficients, (2 * y - 1) / 0.6, rtol=1e-14)
    assert_allclose(fit.scored, 0.0, atol=1e-14)
    assert fit.inner_gradient_norm() < 1e-14
