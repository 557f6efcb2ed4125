"""What many hyperparameters are worth where a score is of all rows together: each split judged as if left out.

Cross-fitting, linearised: without split s, of weight W_s in J, the minimum is at `rho + delta_s`, where
`delta_s = (H - W_s H_s)^-1 W_s g_s` with the gradient g_s and the Hessian H_s of the score of split s, and H the
Hessian of what was descended. The score of split s there is what the split says of itself as new rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from worker.core.objective.objective import Objective
from worker.core.objective.tied import Tie, tied
from worker.core.records import Array
from worker.core.search.left_out import LONGEST_STEP, LeftOut, root_of_inverse
from worker.core.search.plan import Prepared

MOST_OF_SPLITS = 100  # hyperparameters: the Hessian of each split is kept


@dataclass(frozen=True, slots=True)
class SplitObjectives:
    """The score of each split that counts as an objective of its own, and its weight in J."""

    objectives: tuple[Objective, ...]
    weights: Float[Array, " s"]

    @classmethod
    def of(cls, prepared: Prepared) -> SplitObjectives | None:
        """None if J is no mean over several splits, or if it has no exact Hessian."""
        plan, problem, partition = prepared.plan, prepared.problem, prepared.partition
        given = plan.selection.split_weights or (1.0,) * len(partition.splits)
        weighted = [
            (split, weight * float(problem.score_weights(partition.rows(split[1])).sum()))
            for split, weight in zip(partition.splits, given, strict=True)
        ]
        weighted = [(split, weight) for split, weight in weighted if weight > 0]
        objective, on_rows = prepared.objective, plan.training.parts.rows
        small = objective.has_hessian and len(objective.hyperparameters.names) <= MOST_OF_SPLITS
        if len(weighted) < 2 or on_rows is None or not small:
            return None
        loss, gradients = plan.selection.given_loss, prepared.hypergradient
        objectives = tuple(
            on_rows.mean_of_splits(problem, partition.only(split), loss, None, gradients, 1) for split, _ in weighted
        )
        weights = np.array([weight for _, weight in weighted])
        return cls(objectives, weights / weights.sum())

    def tied(self, tie: Tie) -> SplitObjectives:
        """As functions of the hyperparameters that a tie leaves."""
        return SplitObjectives(tuple(tied(one, tie) for one in self.objectives), self.weights)


def left_out_splits(
    splits: SplitObjectives,
    rho: Float[Array, " k"],
    prior: Float[Array, "k k"] | None,
    unit: float,
    sizes: Int[Array, " k"],
) -> LeftOut | None:
    """The scores of the splits at a minimum of J plus a hyper-prior with this Hessian; see `left_out`.

    None if training is singular near it.
    """
    box = splits.objectives[0].hyperparameters
    free = np.flatnonzero([bound is None for bound in box.at_bound(rho)])
    for one in splits.objectives:
        one.forget()  # an interrupted search then finds the same
    found = [one.evaluate(rho) for one in splits.objectives]
    if any(one.failure is not None for one in found):
        return None
    hessians = np.array([one.hessian(rho, free) for one in splits.objectives]) * splits.weights[:, None, None]
    H = hessians.sum(axis=0)
    if prior is not None:
        H = H + prior[np.ix_(free, free)]
    if not np.isfinite(hessians).all():
        return None
    scores = np.empty(len(found))
    for s, (weight, at) in enumerate(zip(splits.weights, found, strict=True)):
        B = root_of_inverse(H - hessians[s], unit, sizes[free])
        moved = rho.copy()
        moved[free] += np.clip(B @ (B.T @ (weight * at.gradient[free])), -LONGEST_STEP, LONGEST_STEP)
        scores[s] = splits.objectives[s].value(np.clip(moved, box.lower, box.upper))
    return LeftOut(scores, splits.weights, np.arange(len(scores))) if np.isfinite(scores).all() else None
