"""Independent ways to the numbers of the core: slow, plain, and sharing no code with it."""

from __future__ import annotations

from collections.abc import Callable

import jaxtyping
import numpy as np

Array = np.ndarray


def differences(f: Callable[[Array], Array | float], x: Array, h: float = 1e-2) -> Array:
    """Derivatives of f along each coordinate by sixth-order central differences, first axis = coordinate.

    Array shapes are checked, where they are, in one call of f and not in the many others.
    """
    f(x)
    checked = not jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        return _differences(f, x, h)
    finally:
        jaxtyping.config.update("jaxtyping_disable", not checked)


def _differences(f: Callable[[Array], Array | float], x: Array, h: float) -> Array:
    weights = ((1, 45.0), (2, -9.0), (3, 1.0))
    rows = []
    for j in range(len(x)):
        e = np.zeros(len(x))
        e[j] = h
        rows.append(sum(w * (np.asarray(f(x + s * e)) - np.asarray(f(x - s * e))) for s, w in weights) / (60 * h))
    return np.array(rows)


def unblocked_cholesky(H: Array) -> Array:
    """Lower factor without conjugation, so that complex steps pass through it (LAPACK's would conjugate)."""
    n = len(H)
    L = np.zeros_like(H)
    for j in range(n):
        L[j, j] = np.sqrt(H[j, j] - L[j, :j] @ L[j, :j])
        for i in range(j + 1, n):
            L[i, j] = (H[i, j] - L[i, :j] @ L[j, :j]) / L[j, j]
    return L


def ridge(X: Array, y: Array, decay: Array, *, intercept: bool, standardize: bool) -> tuple[float, Array]:
    """Intercept and coefficients that minimize `mean (y - eta)^2 / 2 + sum decay theta^2 / 2`, by augmented QR.

    With `standardize` the penalty applies to columns divided by their standard deviation on these rows.
    """
    n, p = X.shape
    mean_x, mean_y = (X.mean(axis=0), y.mean()) if intercept else (np.zeros(p), 0.0)
    deviation = X.std(axis=0)
    scale = np.where(standardize & (deviation > 0), deviation, 1.0)
    A = np.vstack([(X - mean_x) / scale / np.sqrt(n), np.diag(np.sqrt(decay))])
    b = np.append((y - mean_y) / np.sqrt(n), np.zeros(p))
    theta = np.linalg.lstsq(A, b, rcond=None)[0] / scale
    return float(mean_y - mean_x @ theta), theta


def pooled_error(
    X: Array, y: Array, decay: Array, splits: list[tuple[Array, Array]], *, intercept: bool, standardize: bool
) -> float:
    """Mean squared error over all validation rows of all splits, each scored by its own refit."""
    errors = []
    for train, validation in splits:
        constant, theta = ridge(X[train], y[train], decay, intercept=intercept, standardize=standardize)
        errors.append((y[validation] - constant - X[validation] @ theta) ** 2)
    return float(np.concatenate(errors).mean())
