"""Held rows against the arrays that they stand for."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.sparse import csr_array

from worker.core.rows import held as module
from worker.core.rows.held import DenseHeld, HeldRows, SparseHeld
from worker.core.rows.tables import take, transposed, view

ROWS = {"scattered": np.array([0, 3, 4, 8, 11]), "consecutive": np.arange(4, 9), "all": np.arange(12)}


def table() -> csr_array:
    random = np.random.default_rng(0)
    X = random.normal(size=(12, 6)) * (random.random((12, 6)) < 0.4)
    X[4] = 0.0
    return csr_array(X)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("chosen", ROWS)
@pytest.mark.parametrize("how", ["dense", "copied", "shared"])
def test_products_are_those_of_the_array(how, chosen, intercept, monkeypatch):
    monkeypatch.setattr(module, "MAX_COPIED_BYTES", 0 if how == "shared" else 10**9)
    monkeypatch.setattr(module, "SPARSE_CHUNK_VALUES", 9)  # squares in several pieces
    X, rows = table(), ROWS[chosen]
    Z = np.hstack([np.ones((len(rows), int(intercept))), X.toarray()[rows]])
    held: HeldRows = DenseHeld(Z) if how == "dense" else SparseHeld.of_table(X, rows, intercept=intercept)
    if how == "shared":
        assert np.shares_memory(held.S.data, X.data)
        assert np.shares_memory(held.ST.data, X.data)
    random = np.random.default_rng(1)
    V, G = random.normal(size=(Z.shape[1], 3)), random.normal(size=(len(rows), 3))
    assert len(held) == len(rows)
    assert_allclose(held.times(V), Z @ V, rtol=1e-13, atol=1e-15)
    assert_allclose(held.times(V[:, :1]), Z @ V[:, :1], rtol=1e-13, atol=1e-15)
    assert_allclose(held.back(G), Z.T @ G, rtol=1e-13, atol=1e-15)
    assert_allclose(held.back(G[:, :1]), Z.T @ G[:, :1], rtol=1e-13, atol=1e-15)
    for w in (G[:, 0] ** 2, G[:, 0]):
        assert_allclose(held.cross(w), (Z.T * w) @ Z, rtol=1e-13, atol=1e-14)
    assert_allclose(held.squares_back(G), (Z**2).T @ G, rtol=1e-13, atol=1e-14)
    assert_allclose(held.squares_times(V), Z**2 @ V, rtol=1e-13, atol=1e-14)
    assert_allclose(held.dense(), Z)
    part = held.some(slice(1, 4))
    assert_allclose(part.dense(), Z[1:4])
    assert_allclose(part.back(G[1:4]), Z[1:4].T @ G[1:4], rtol=1e-13, atol=1e-15)


def test_consecutive_sparse_rows_are_not_copied():
    X = table()
    for part in (view(X, slice(3, 9)), take(X, np.arange(3, 9))):
        assert_allclose(part.toarray(), X.toarray()[3:9])
        assert np.shares_memory(part.data, X.data)
        assert np.shares_memory(part.indices, X.indices)
        assert np.shares_memory(transposed(part).data, X.data)
        assert_allclose(transposed(part).toarray(), X.toarray()[3:9].T)
    assert take(X, np.array([], int)).shape == (0, 6)
    assert_allclose(take(X, np.array([1, 2, 5])).toarray(), X.toarray()[[1, 2, 5]])


def test_few_rows_of_a_large_table_are_copied(monkeypatch):
    monkeypatch.setattr(module, "MAX_COPIED_BYTES", 0)
    X = table()
    for rows, shared in ((np.array([0, 5]), False), (np.array([0, 5, 7]), True)):
        held = SparseHeld.of_table(X, rows, intercept=True)
        assert np.shares_memory(held.S.data, X.data) == shared
        assert held.passed == (12 if shared else len(rows))
