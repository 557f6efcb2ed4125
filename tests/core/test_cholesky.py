from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from tests.oracles import unblocked_cholesky
from worker.core.linalg import cholesky


def spd(p: int, seed: int = 0) -> np.ndarray:
    A = np.random.default_rng(seed).normal(size=(p, p + 3))
    return np.asfortranarray(A @ A.T / p + 0.1 * np.eye(p))


@pytest.mark.parametrize("p", [1, 2, 5, 60])
def test_factor_and_solve(p):
    H = spd(p)
    L = cholesky.factor_in_place(H.copy(order="F"))
    assert_allclose(np.tril(L) @ np.tril(L).T, H, rtol=1e-12, atol=1e-13)
    B = np.asfortranarray(np.random.default_rng(1).normal(size=(p, 3)))
    assert_allclose(H @ cholesky.solve(L, B), B, rtol=1e-9, atol=1e-10)
    assert_allclose(H @ cholesky.solve(L, B[:, 0]), B[:, 0], rtol=1e-9, atol=1e-10)
    assert_allclose(cholesky.inverse(L) @ H, np.eye(p), atol=1e-9)


@pytest.mark.parametrize("matrix", [np.diag([1.0, -1.0]), np.zeros((2, 2)), np.ones((3, 3)) - 2 * np.eye(3)])
def test_indefinite_or_singular_is_reported_without_jitter(matrix):
    assert cholesky.factor_in_place(np.asfortranarray(matrix)) is None


def test_only_the_lower_triangle_is_read():
    H = spd(6)
    spoiled = np.asfortranarray(np.tril(H) + np.triu(np.full((6, 6), np.nan), 1))
    L = cholesky.factor_in_place(spoiled)
    assert_allclose(np.tril(L), np.linalg.cholesky(H), rtol=1e-12)
    L_bar = np.random.default_rng(2).normal(size=(6, 6))
    assert np.isfinite(cholesky.pullback(L, L_bar)).all()


@pytest.mark.parametrize("p", [1, 2, 4, 9])
def test_pullback_against_complex_step(p):
    rng = np.random.default_rng(p)
    H, L_bar = spd(p), np.tril(rng.normal(size=(p, p)))
    H_bar = cholesky.pullback(np.asfortranarray(np.linalg.cholesky(H)), L_bar)
    for i in range(p):
        for j in range(i + 1):
            step = np.zeros((p, p), complex)
            step[i, j] = step[j, i] = 1e-30j
            derivative = np.sum(L_bar * unblocked_cholesky(H + step).imag / 1e-30)
            expected = H_bar[i, j] if i == j else H_bar[i, j] + H_bar[j, i]
            assert_allclose(derivative, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("p", [127, 128, 129, 256, 300])
def test_blocked_pullback_is_the_adjoint_of_the_differential(p):
    # dL = L Phi(L^-1 dH L^-T), Phi = lower triangle with half the diagonal (Murray 2016, eq. 8)
    rng = np.random.default_rng(p)
    H, L_bar = spd(p), np.tril(rng.normal(size=(p, p)))
    L = np.linalg.cholesky(H)
    H_dot = rng.normal(size=(p, p))
    H_dot += H_dot.T
    middle = np.linalg.solve(L, np.linalg.solve(L, H_dot).T)
    phi = np.tril(middle)
    phi[np.diag_indices(p)] /= 2
    H_bar = cholesky.pullback(np.asfortranarray(L), L_bar)
    assert_allclose(np.sum(L_bar * (L @ phi)), np.sum(H_bar * H_dot), rtol=1e-9)
    assert_allclose(H_bar, H_bar.T)
