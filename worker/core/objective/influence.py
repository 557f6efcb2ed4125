"""How the gradient of J and losses of rows move with the weight of a row: the infinitesimal jackknife (Jaeckel 1972).

A row trains in some splits and is scored in others. `(1 + e)` times its weight in both moves `dJ/drho_j` at the rate

`f w_r (g_rj - dJ/drho_j)` of each split that scores r, g_r the hypergradient of its loss, and
`-s_r l'_r (z_r . N_j) - s_r l''_r (z_r . u)(z_r . D_j)` of each split that it trains in, with its share `s_r` in C, the
adjoint u, `D = dtheta/drho`, and `N_j = H^-1 (E'' D_j - H_j u - sum_t s_t l'''_t (z_t . u)(z_t . D_j) z_t)`.

More weight of one row means a smaller share of all others: from the second rate its mean over all training rows is
subtracted, which is known, as the gradient of C is zero. What is computed from rows before training is held: standard
deviations, values for missing ones, lengths relative to the target, balanced weights of classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from worker.core.penalties.forms import Penalized
from worker.core.records import Array
from worker.core.rows.problem import Partition, Problem

MOST_GROUPS = 64  # of rows, whose effects on each other are computed
MOST_ROWS_PER_COLUMN = 100  # beyond, effects of rows on each other add less than 1 % to a standard error
MOST_TERMS_OF_PAIRS = 2_000_000_000  # values of rows over all splits, for the effects on each other
MOST_COEFFICIENTS_OF_PAIRS = 300_000  # of a model; more would take much memory for each group
LARGEST_LEVERAGE = 0.8  # on average: beyond, the linear model is too coarse


@dataclass(frozen=True, slots=True)
class Chosen:
    """Linear combinations of hyperparameters: `numbers` are ascending, `together` has a column for each combination."""

    numbers: Int[Array, " c"]
    together: Float[Array, "c f"]

    def penalties(self, k: int) -> tuple[Int[Array, " a"], Float[Array, "a f"]]:
        """Those of the k penalties."""
        first = self.numbers < k
        return self.numbers[first], self.together[first]

    def others(self, k: int) -> tuple[Int[Array, " b"], Float[Array, "b f"]]:
        """The others, numbered from 0."""
        rest = self.numbers >= k
        return self.numbers[rest] - k, self.together[rest]


@dataclass(frozen=True, slots=True)
class PenaltyPart:
    """What the penalty adds along the adjoint u: `H_j u`, and the parts of the mean that is subtracted.

    Over all training rows the sum of `s l' (z . N)` and `s l'' (z . u)(z . D)`, for penalties, is
    `-N . P theta - explicit`; that of `s l' (z . u)` is `along`. For weights that are tuned more cancels.
    """

    H_j_u: Float[Array, "p f"]
    P_theta: Float[Array, " p"]
    explicit: Float[Array, " f"]
    along: float

    @classmethod
    def of(
        cls,
        penalty: Penalized,
        theta: Float[Array, " p"],
        u: Float[Array, " p"],
        D: Float[Array, "p f"],
        chosen: Chosen,
    ) -> PenaltyPart:
        """At a minimizer; D is already of the combinations."""
        numbers, together = chosen.penalties(penalty.of.k)
        P_theta = penalty.apply(theta)
        explicit = penalty.apply(u) @ D + penalty.contract(u, theta)[numbers] @ together
        return cls(penalty.products(u, numbers) @ together, P_theta, explicit, -float(P_theta @ u))


def overlap(problem: Problem, partition: Partition, factors: Float[Array, " splits"]) -> float:
    """The share of J's weight on rows that also train, in a split that counts: 1 of K folds, 0 of a hold-out part."""
    used, blocks = partition.used, partition.blocks
    block, weights = partition.block_of_row[used], problem.score_weights(used)
    scored = np.bincount(block, weights, blocks)
    both = scored if problem.weights is None else np.bincount(block, weights * (problem.weights[used] > 0), blocks)
    parts = [
        (factor, list(train), list(scores)) for factor, (train, scores) in zip(factors, partition.splits, strict=True)
    ]
    trains = np.zeros(blocks, bool)
    for factor, train, scores in parts:
        if factor > 0 and scored[scores].any():
            trains[train] = True
    return float(sum(factor * (both * trains)[scores].sum() for factor, _, scores in parts))


def has_pairs(problem: Problem, partition: Partition, factors: Float[Array, " splits"]) -> bool:
    """Whether rows train models that score each other, which matters, and is cheap enough to compute."""
    n, p = problem.X.shape
    few = len(partition.used) <= MOST_ROWS_PER_COLUMN * p and p <= MOST_COEFFICIENTS_OF_PAIRS
    cheap = n * p * len(partition.splits) <= MOST_TERMS_OF_PAIRS
    return few and cheap and overlap(problem, partition, factors) > 0


def groups_of(clusters: Int[Array, " n"]) -> tuple[Int[Array, " n"], int]:
    """The group of each row, sets of clusters, and how many there are."""
    count = min(int(clusters.max()) + 1, MOST_GROUPS)
    return clusters % count, count


def of_removal(degrees_of_freedom: float, rows: float) -> float:
    """How many times as large the effect of the removal of a training row is as that of its weight, on average.

    It is `1 / (1 - h)` with the leverage h (Cook 1977). With independent errors and n rows for p columns it makes the
    variance of pairs right for any p / n.
    """
    return 1.0 / (1.0 - min(degrees_of_freedom / rows, LARGEST_LEVERAGE))


def variance_of_pairs(effects: Float[Array, "g g"], weights: Float[Array, " g"]) -> float:
    """What the variance of J less the loss of its model has besides that of the losses of fixed models.

    Group A trains the models that score B, and B those that score A. With the effects C and the weights W of the groups
    in J, `sum_{A != B} C_AB C_BA`, C centred over `B != A`: what A does to the loss of all other rows alike, it does to
    new rows, too. Zero if it is negative.
    """
    C = effects.copy()
    np.fill_diagonal(C, 0.0)
    others = weights.sum() - weights
    C -= np.outer(np.divide(C.sum(axis=1), others, out=np.zeros(len(C)), where=others > 0), weights)
    np.fill_diagonal(C, 0.0)
    return max(0.0, float((C * C.T).sum()))
