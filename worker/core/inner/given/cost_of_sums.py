"""What criteria of the caller's own cost: how H is factored, and its entries."""

from __future__ import annotations

from worker.core.costs import Sizes, TrainingCost, Work
from worker.core.linalg.assembled import Assembly
from worker.core.rows.matrices import Criteria

FILL = 10.0  # entries of a sparse factor for one of the matrix, typical of grids and networks
ENTRY_OF_FACTOR = 40.0  # passes that an entry of a sparse or banded factor takes as much time as
CALLS = 25.0  # of NumPy and SciPy


def cost_of_sums(criteria: Criteria, sizes: Sizes) -> TrainingCost:
    """The cost with the factorization that is used; the reverse sweep needs a dense one."""
    assembly = Assembly.build(criteria.matrices, "dense" if sizes.needs_primal_factor else None)
    p, k, w = float(criteria.p), sizes.k, assembly.width
    entries = {"dense": p * p, "banded": p * (w + 1), "sparse": FILL * len(assembly.rows)}[assembly.shape]
    factor = {
        "dense": Work(p**3 / 3),
        "banded": Work(p * (w + 1) ** 2, ENTRY_OF_FACTOR * p),
        "sparse": Work(FILL * entries, ENTRY_OF_FACTOR * entries),
    }[assembly.shape]
    given = float(sum(A.nnz for A in criteria.matrices))
    one = factor * (3 if sizes.needs_primal_factor else 1) + Work(passes=4 * entries + 4 * given, calls=CALLS)
    return TrainingCost(
        assembly.shape, Work(passes=20 * given, calls=CALLS), one,
        Work(passes=(4 * entries + 4 * given) * k, flops=4 * p * k * k, calls=CALLS), refit=one,
        held=3 * entries + 4 * given + 2 * p * (k + 1),
    )  # fmt: skip
