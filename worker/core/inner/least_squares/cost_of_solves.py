"""What penalized least squares costs with each solver. Those of `training/ridge.py` choose among them."""

from __future__ import annotations

from worker.core.costs import Sizes, TrainingCost, Work
from worker.core.inner.protocols import Solver

DECOMPOSITION = 9.0  # flops of an eigendecomposition over the cube of its size
CALLS, CALLS_OF_HESSIAN = 5.0, 3.0  # of NumPy for each split


def cost_of_solves(solver: Solver, p: int, sizes: Sizes, *, reweighted: bool) -> TrainingCost:
    """The cost with `p` coefficients; `reweighted`: example weights change the matrix at each evaluation."""
    n, k, splits = sizes.rows, sizes.k, float(sizes.splits)
    dual = solver == "dual"
    side = float(sizes.train if dual else p)
    table = n * p * sizes.filled
    preparation = Work(passes=splits * table) if dual or reweighted else Work(table * p, table + splits * p**2)
    if solver == "spectral":
        preparation += Work(splits * DECOMPOSITION * p**3)
        one = Work(passes=8 * p**2)
    else:
        one = Work(side**3 / 3, 4 * side**2 + 6 * side * p)
        one += Work(side**2 * p * sizes.filled) if dual else Work()
        one += Work(sizes.train * p**2) if reweighted else Work()
    if sizes.needs_primal_factor:
        one += Work(2 * side**3 / 3)
    one += Work(calls=CALLS)
    return TrainingCost(
        solver, preparation, (one + _of_all_rows(side, p, sizes)) * splits,
        Work(4 * side * p * k + 2 * side * k * k, calls=CALLS_OF_HESSIAN) * splits,
        refit=Work(n * p * min(n, p) * sizes.filled + min(n, p) ** 3 / 3, table, CALLS),
        held=splits * (3 * side**2 + (2 * table if dual else 0.0)) + 2 * table,
    )  # fmt: skip


def _of_all_rows(side: float, p: int, sizes: Sizes) -> Work:
    """What a selection criterion of one fit adds: the leverages of rows, or the inverse and its traces."""
    if sizes.leaves_rows_out:
        return Work(2.0 * sizes.rows * p * side * sizes.filled, 4.0 * sizes.rows * side)
    return Work(2.0 * side**3 / 3, 8.0 * side**2) if sizes.closed_form else Work()
