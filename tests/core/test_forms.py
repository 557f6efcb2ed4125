from __future__ import annotations

from dataclasses import replace

import mpmath as mp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from tests.core.conftest import regression
from tests.oracles import differences
from worker.core.hypergradient import Implicit
from worker.core.outer import Newton
from worker.core.penalties import Banded, Difference, Identity, QuadraticForms
from worker.core.penalties.forms import Block, PenaltyForms
from worker.core.penalties.splines import Spline
from worker.core.search.plan import Plan, prepare
from worker.core.selection import Evidence, Reml
from worker.core.training import Ridge


def test_pairs_are_traces_of_products_also_where_blocks_and_diagonals_overlap_and_share_a_hyperparameter():
    rng = np.random.default_rng(0)
    p, k = 12, 4

    def semidefinite(m):
        A = rng.normal(size=(m, m))
        return A @ A.T

    places = [(0, [0, 1, 2, 3]), (1, [2, 3, 4]), (3, [9, 7]), (0, [8, 5])]
    blocks = [Block.of_matrix(j, np.array(columns), semidefinite(len(columns))) for j, columns in places]
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


@pytest.mark.parametrize("cyclic", [False, True])
@pytest.mark.parametrize(("order", "basis"), [(1, 30), (3, 60), (3, 250), (2, 1000)])
def test_the_rank_of_differences_of_many_coefficients(order, basis, cyclic):
    spline = Spline(feature="x", basis=basis, order=order, cyclic=cyclic)
    forms = PenaltyForms.build(0, 0, (np.empty(0, int), np.empty(0, int))).extended_by([spline.root()])
    rank = basis - (1 if cyclic else order)
    found = forms.at(np.array([2.0])).log_determinant
    assert found.rank == rank
    assert_allclose(found.gradient, [rank], rtol=1e-12)
    if basis < 100:
        eigenvalues = np.linalg.eigvalsh(forms.blocks[0].S)[-rank:]
        assert_allclose(found.value, np.log(2.0 * eigenvalues).sum(), rtol=1e-7)


def test_the_rank_does_not_depend_on_scales_or_hyperparameters():
    first = Difference(name="d", order=2, features=("a", "b", "c", "d"))
    second = Identity(name="i", features=("d", "e"))
    third = Banded(name="b", bands=((2.0,) * 3, (-1.0,) * 2), features=("e", "f", "g"))
    _, forms = QuadraticForms(forms=(first, second, third)).matrices(tuple("abcdefg"))
    dense = np.zeros((3, 7, 7))
    for b in forms.blocks:
        dense[b.j][np.ix_(b.columns, b.columns)] += b.S
    dense[1, [3, 4], [3, 4]] = 1.0
    lam = np.array([0.3, 2.0, 5.0])
    exact = np.linalg.eigvalsh(np.einsum("j,jab->ab", lam, dense))
    found = forms.at(lam).log_determinant
    assert found.rank == np.count_nonzero(exact > 1e-10) == 6
    assert_allclose(found.value, np.log(exact[-6:]).sum(), rtol=1e-12)
    assert_allclose(found.gradient, differences(lambda r: forms.at(np.exp(r)).log_determinant.value, np.log(lam)))
    scale = np.array([1e8, 1.0, 1e-7, 1e5, 1.0, 1e-6, 1e7])
    for factor in (1e-9, 1.0, 1e9):
        scaled = forms.scaled(scale).at(lam * [1.0, factor, 1.0])
        assert scaled.log_determinant.rank == 6


@pytest.mark.parametrize("noise", [0.0, 1e-17])
def test_a_column_that_a_form_leaves_free_may_belong_to_another(noise):
    rng = np.random.default_rng(0)
    A, B = rng.normal(size=(4, 7)), rng.normal(size=(2, 7))
    A[:, 2], B[:, 2] = noise * rng.normal(size=4), noise
    columns = np.arange(7)
    blocks = [Block.of_matrix(0, columns, A.T @ A), Block.of_matrix(1, columns, B.T @ B)]
    forms = PenaltyForms.build(2, 7, (np.empty(0, int), np.empty(0, int)), blocks)
    for lam in (np.array([0.5, 3.0]), np.array([1e-9, 1e9])):
        found = forms.at(lam).log_determinant
        assert found.rank == 6
        with mp.workdps(60):  # rows that differ by 1e9 in length cost a decomposition in doubles nine digits
            weighted = [mp.sqrt(factor) * mp.mpf(a) for factor, M in zip(lam, (A, B), strict=True) for a in M.ravel()]
            rows = mp.matrix(np.array(weighted, object).reshape(6, 7).tolist())
            exact = float(mp.log(mp.det(rows * rows.T)))
        # the forms are given as A^T A, so that roots are known up to eps times the square of their condition number
        assert_allclose(found.value, exact, rtol=1e-12)
        assert_allclose(found.gradient.sum(), 6.0, rtol=1e-12)


def test_evidence_does_not_depend_on_the_units_of_columns():
    problem = regression(48, 4)
    form = Banded(name="b", bands=((2.0,) * 4, (-1.0,) * 3))
    training = Ridge(penalty=QuadraticForms(forms=(form,)))
    for selection in (Evidence(), Reml()):
        at = [
            prepare(replace(problem, X=problem.X * [1.0, s, 1.0, 1.0]), Plan(training, selection, Implicit(), Newton()))
            .objective.evaluate(np.array([-2.0]))
            for s in (1.0, 1e5, 1e-9)
        ]  # fmt: skip
        assert_allclose([point.value for point in at], at[0].value, rtol=1e-9)
        assert_allclose([point.gradient[0] for point in at], at[0].gradient[0], rtol=1e-7)


def test_forms_of_no_features_are_refused() -> None:
    """As where all features have splines."""
    for form in (Identity(name="all"), Difference(name="all"), Identity(name="all", features=())):
        with pytest.raises(ValueError, match="form 'all' has no features"):
            QuadraticForms(forms=(form,)).matrices(())
