"""How the gradient of J and the losses of rows move with the weight of a row: the infinitesimal jackknife (Jaeckel 1972).

A row trains in some splits and is scored in others. `(1 + e)` times its weight in both moves `dJ/drho_j` at the rate

`f w_r (g_rj - dJ/drho_j)` of each split that scores r, g_r the hypergradient of its loss, and
`N_j . c_r - s_r l''_r (z_r . u)(z_r . D_j)` of each split that it trains in, with its share `s_r` in C,
`c_r = -s_r l'_r z_r`, the adjoint u, `D = dtheta/drho`, and
`N_j = H^-1 (E'' D_j - H_j u - sum_t s_t l'''_t (z_t . u)(z_t . D_j) z_t)`.

More weight of one row means a smaller share of all others; the sums over all training rows that this takes are known
from the gradient of C, which is zero. What is computed from rows before training is held: standard deviations, values
for missing ones, lengths relative to the target, balanced weights of classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from worker.core.losses.derivatives import RowDerivatives, ScoreDerivatives
from worker.core.penalties.forms import Penalized
from worker.core.records import Array
from worker.core.rows.design import Design


@runtime_checkable
class FitOfRows(Protocol):
    """A fit with its parameters in two forms: theta, and the coefficients of the columns of designs."""

    @property
    def theta(self) -> Float[Array, " p"]:
        """The minimizer."""

    @property
    def penalty(self) -> Penalized:
        """The total penalty of theta."""

    def lift(self, t: Float[Array, "p f"]) -> Float[Array, "mq f"]:
        """The coefficients of the columns of designs, for each column of t."""

    def solve(
        self, of_rows: Float[Array, "mq f"], of_theta: Float[Array, "p f"] | None = None
    ) -> tuple[Float[Array, "p f"], Float[Array, "mq f"]]:
        """`H^-1` times the sum of cotangents of coefficients and of theta, in both forms."""


@dataclass(frozen=True, slots=True)
class SplitRows:
    """The rows of one split at its minimizer."""

    fit: FitOfRows
    train: Design  # all training rows, or some of them
    training: RowDerivatives  # of their losses in C, each with weight one
    shares: Float[Array, " n"]  # in C; those of all training rows sum to one
    shares_dot: Float[Array, "n h"]  # derivatives of the shares in the hyperparameters after those of the penalty
    scored: Design
    score: ScoreDerivatives  # of their losses, with their weights in J
    weights: Float[Array, " v"]  # in J; those of all splits sum to one


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


def gradients_of_scored(split: SplitRows, D: Float[Array, "mq f"]) -> Float[Array, "v f"]:
    """The hypergradients of the losses of scored rows, times their weights in J. `D` are coefficients."""
    return np.einsum("vm,vmf->vf", split.score.slope, split.scored.along(D))


def gradients_of_trained(
    split: SplitRows, D: Float[Array, "mq f"], D_theta: Float[Array, "p f"], chosen: Chosen
) -> Iterator[tuple[slice, Float[Array, "n f"]]]:
    """How `dJ/drho` moves with the weight of each training row in this split, for some columns of D at a time."""
    fit, design, training, shares = split.fit, split.train, split.training, split.shares
    penalty, k = fit.penalty, fit.penalty.of.k
    u_theta, u = fit.solve(split.scored.back(split.score.slope[:, :, None]))
    U = design.predictor(u[:, 0])
    bent, along = training.bend(U[:, :, None])[:, :, 0], np.einsum("nm,nm->n", training.slope, U)
    penalties, of_penalties = chosen.penalties(k)
    P_u, P_theta = penalty.apply(u_theta[:, 0]), penalty.apply(fit.theta)
    H_j_u = penalty.products(u_theta[:, 0], penalties) @ of_penalties
    explicit = P_u @ D_theta + penalty.contract(u_theta[:, 0], fit.theta)[penalties] @ of_penalties
    others, of_others = chosen.others(k)
    shares_dot = split.shares_dot[:, others] @ of_others if len(others) else None
    along_mean = -float(P_theta @ u_theta[:, 0])  # the sum of `shares * along` over all training rows
    width = min(design.columns_at_once(D), split.scored.columns_at_once(D))
    for begin in range(0, D.shape[1], width):
        part = slice(begin, begin + width)
        V = design.along(D[:, part])
        of_rows = split.scored.back(split.score.bend(split.scored.along(D[:, part])))
        moved = shares[:, None, None] * _third(training, U, V)
        if shares_dot is not None:
            moved += shares_dot[:, None, part] * bent[:, :, None]
        if moved.any():
            of_rows = of_rows - design.back(moved)
        N_theta, N = fit.solve(of_rows, -H_j_u[:, part])
        first = np.einsum("nm,nmf->nf", training.slope, design.along(N)) + np.einsum("nm,nmf->nf", bent, V)
        first += P_theta @ N_theta + explicit[part]  # minus its mean over all training rows
        out = -shares[:, None] * first
        if shares_dot is not None:
            out -= shares_dot[:, part] * (along - along_mean)[:, None]
        yield part, out


def _third(training: RowDerivatives, U: Float[Array, "n m"], V: Float[Array, "n m f"]) -> Float[Array, "n m f"]:
    """The third derivative of each row's loss along U and each direction in V."""
    out = np.empty_like(V)
    for j in range(V.shape[2]):
        pairs = U[:, :, None] * V[:, None, :, j]
        out[:, :, j] = training.third_contract((pairs + pairs.transpose(0, 2, 1)) / 2)
    return out


def effects_on_losses(split: SplitRows, groups: Int[Array, " r"], count: int) -> Float[Array, "g g"]:
    """How the weight of group A in training moves the losses of the scored rows of group B, times their weights in J.

    `groups` has the group of each row of the problem. All rows must train that can.
    """
    of_trained, of_scored = groups[split.train.rows], groups[split.scored.rows]
    pulls = split.train.back_by_group(split.shares[:, None] * split.training.slope, of_trained, count)
    pulls -= np.outer(pulls.sum(axis=1), np.bincount(of_trained, split.shares, count))
    _, moves = split.fit.solve(pulls)
    return -moves.T @ split.scored.back_by_group(split.score.slope, of_scored, count)


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
