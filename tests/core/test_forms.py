from __future__ import annotations

import numpy as np
from numpy.testing import assert_allclose

from worker.core.forms import Block, PenaltyForms


def test_pairs_are_traces_of_products_also_where_blocks_and_diagonals_overlap_and_share_a_hyperparameter():
    rng = np.random.default_rng(0)
    p, k = 12, 4

    def semidefinite(m):
        A = rng.normal(size=(m, m))
        return A @ A.T

    places = [(0, [0, 1, 2, 3]), (1, [2, 3, 4]), (3, [9, 7]), (0, [8, 5])]
    blocks = [Block(j, np.array(columns), semidefinite(len(columns))) for j, columns in places]
    rows, columns = np.array([0, 1, 2, 2, 2]), np.array([3, 6, 1, 2, 11])
    lam = np.exp(rng.normal(size=k))
    matrices = np.zeros((k, p, p))
    matrices[rows, columns, columns] = 1.0
    for b in blocks:
        matrices[b.j][np.ix_(b.columns, b.columns)] += b.S
    matrices *= lam[:, None, None]
    P, S = semidefinite(p), semidefinite(p)
    expected = np.einsum("jab,bc,lcd,da->jl", matrices, P, matrices, S, optimize=True)
    assert_allclose(PenaltyForms.build(k, p, (rows, columns), blocks).at(lam).pairs(P, S), expected, rtol=1e-12)
