"""The certificate of the arithmetic: J of ridge against the same J with about 32 digits, from some of the rows."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

from worker.core.records import Array, Evaluation
from worker.core.rows.problem import Partition
from worker.core.search.plan import Prepared
from worker.core.training import TrainingCriterion

MOST_ROWS = 1000  # that are used for the comparison
MOST_PRODUCTS = 4e6  # of entries of rows, over all splits: about a second
FEWEST_ROWS = 20  # wider tables are not compared
SMALLEST_KEPT = 1e-3  # nothing is compared if subtractions leave more of every number: they cost three digits at most
ARITHMETIC_LIMIT = 1e-9  # relative to |J|; above, a remark says that digits were lost


def arithmetic_error(prepared: Prepared, at: Evaluation) -> float:
    """`|J - accurate J|` relative to |J| at a point, of at most `MOST_ROWS` random rows; NaN where it is not known.

    Where there are more rows, both are of the same random rows. Where no subtraction can have cost more than three
    digits, it is machine epsilon over the smallest fraction that one has left.
    """
    plan, objective = prepared.plan, prepared.objective
    least_squares = plan.training.parts.least_squares
    if least_squares is None or objective.arithmetic is None:
        return np.nan
    if objective.solver != "orthogonal" and (kept := objective.arithmetic.kept(at.rho)) > SMALLEST_KEPT:
        return float(np.finfo(float).eps) / kept
    columns, splits = least_squares.columns(prepared.problem), len(prepared.partition.splits)
    affordable = int(MOST_PRODUCTS / (columns**2 * splits))
    if affordable < min(FEWEST_ROWS, len(prepared.rows)):
        return np.nan
    partition, value = prepared.partition, at.selection
    training: TrainingCriterion = plan.training
    if len(prepared.rows) > min(affordable, MOST_ROWS):
        part = _some_rows(partition, min(affordable, MOST_ROWS), prepared.plan.seed)
        if part is None:
            return np.nan
        partition = part
        if objective.solver != "orthogonal":
            training = least_squares.of_moments()
        objective = plan.selection.objective(prepared.problem, partition, training, prepared.hypergradient)
        value = objective.value(at.rho)
    digits = objective.arithmetic
    assert digits is not None
    fits = least_squares.accurate_fits(prepared.problem, partition, objective.natural(at.rho), digits.recomputed_from)
    if fits is None:
        return np.nan
    accurate = digits.recomputed(at.rho, fits)
    return abs(value - accurate) / max(objective.unit(accurate), abs(accurate))


def _some_rows(partition: Partition, count: int, seed: int) -> Partition | None:
    """The partition of about so many random rows, at least one of each block; None with more blocks than that."""
    blocks = partition.block_of_row
    rows: Int[Array, " m"] = np.flatnonzero(blocks >= 0)
    chosen = np.random.default_rng([seed, 4]).permutation(rows)[:count]
    _, first = np.unique(blocks[rows], return_index=True)
    if len(first) > count:
        return None
    chosen = np.union1d(chosen, rows[first])
    kept = np.full(len(blocks), -1, blocks.dtype)
    kept[chosen] = blocks[chosen]
    return Partition(kept, partition.splits)
