"""What training that iterates costs: by factors, or by products with the values that are stored."""

from __future__ import annotations

from worker.core.costs import EXPONENTIAL, Sizes, TrainingCost, Work
from worker.core.inner.smooth.minimize import IterativeSolver
from worker.core.rows.held import MAX_COPIED_BYTES, MIN_SHARED_FRACTION

STEPS, STEPS_OF_REFIT = 4, 8  # of a fit that begins near its minimum, and of one that begins at a constant
FACTORS = 2  # of such a fit: a factor is used for several steps
CG_PRODUCTS = 50  # with H, of a fit that begins near its minimum and its adjoint
CALLS_OF_STEP, CALLS_OF_PRODUCT = 16.0, 2.0  # of NumPy


def cost_of_iterations(
    solver: IterativeSolver, columns: int, outputs: int, sizes: Sizes, *, intercept: bool
) -> TrainingCost:
    """The cost with so many `columns`, the intercept among them, for each of the `outputs`."""
    n, k, m, q, filled, splits = sizes.rows, sizes.k, outputs, columns, sizes.filled, float(sizes.splits)
    size, entries = float(m * q), filled * (q - intercept) + intercept  # of a row
    # as in `worker/core/rows/held.py`
    shared = filled < 1.0 and 12 * n * entries > MAX_COPIED_BYTES and sizes.train >= MIN_SHARED_FRACTION * n
    rows = float(n if shared else sizes.train)
    product = Work(passes=2.0 * rows * m * entries)  # of the rows and of their transpose
    point = product + Work(passes=EXPONENTIAL * rows * m, calls=CALLS_OF_STEP)
    factor = Work(m * (m + 1) * rows * entries * (q if filled == 1.0 else entries) + size**3 / 3, calls=CALLS_OF_STEP)
    factored = solver == "newton_cholesky"
    cg = (product + Work(calls=CALLS_OF_PRODUCT)) * CG_PRODUCTS
    one = point * STEPS + (factor * FACTORS + Work(passes=2.0 * size**2) if factored else cg)
    if sizes.closed_form:  # leverages of rows, or the trace and the determinant
        one += Work(2.0 * size**3 + m * (m + 1) * n * q * q, 4.0 * n * m * q)
    solve = Work(2.0 * size**2) if factored else cg * 0.5
    tangents = (solve + Work(4.0 * rows * m * entries)) * k + Work(2.0 * rows * m * k * k, calls=CALLS_OF_STEP)
    stored = n * entries * (1.0 if filled == 1.0 else 1.5)  # beside a sparse value, its place
    held = splits * ((2 * size**2 if factored else 10 * size) + 4.0 * m * n) + (1 if shared else splits) * stored
    return TrainingCost(
        solver, Work(passes=splits * 3.0 * n * entries, calls=splits * CALLS_OF_STEP), one * splits, tangents * splits,
        refit=point * STEPS_OF_REFIT + (factor * STEPS if factored else cg), held=held, tangents=splits * size * k,
    )  # fmt: skip
