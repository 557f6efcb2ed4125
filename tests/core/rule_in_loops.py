"""The choice on the path of hyper-priors as METHODS section 7 writes it, one row at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from worker.core.records import Start
from worker.core.search.descents import Descents
from worker.core.search.plan import Prepared

CAUTION, CAUTION_WITHOUT_HESSIAN = 0.5, 3.0
LARGEST_LEVERAGE, LONGEST_STEP, LEAST_CURVATURE = 0.8, 3.0, 0.1


@dataclass(frozen=True)
class Rows:
    """The left-out losses of the scored rows, their weights, and their clusters."""

    losses: np.ndarray
    weights: np.ndarray
    labels: list[int]

    @property
    def corrected(self) -> float:
        return float(self.weights @ self.losses)


def unit_in_loops(job: Prepared, shared: Start) -> float:
    """What a row's loss varies by, over the number of rows: one nat, or the squared slopes over the bend of losses."""
    scored = np.concatenate([job.partition.rows(rows) for _, rows in job.partition.splits])
    w = job.problem.score_weights(np.unique(scored))
    n = w.sum() ** 2 / (w @ w)
    if job.objective.loss.in_nats:
        return 1.0 / n
    twice = 2.0 * shared.best.value
    squares = bend = 0.0
    for part in job.objective.row_tangents(job.problem, job.partition, shared.best.rho):
        for i in range(len(part.y)):
            squares += part.weights[i] * np.sum(part.slopes(part.eta)[i] ** 2)
            bend += part.weights[i] * np.trace(part.curvatures(part.eta)[i])
    return min(max(twice, squares / bend), 10.0 * twice) / n if bend > 0 else twice / n


def left_out_in_loops(job: Prepared, shared: Start, start: Start, longest: float = LONGEST_STEP) -> Rows:
    """Each row at the hyperparameters that its cluster would leave behind."""
    box, rho = job.objective.hyperparameters, start.best.rho
    least = LEAST_CURVATURE * unit_in_loops(job, shared)
    T = _directions(box, rho, tied=start.spread == 0)
    H = _second_derivatives(job, rho)
    if start.spread:
        H = H + _bend_of_prior(job, shared, start)
    lengths = np.sqrt(T.sum(axis=0))
    values, vectors = np.linalg.eigh((T / lengths).T @ H @ (T / lengths))
    M = vectors @ np.diag([1.0 / max(value, least) for value in values]) @ vectors.T / np.outer(lengths, lengths)
    clusters = job.plan.selection.clusters(job.problem, job.partition)
    chunks = list(job.objective.row_tangents(job.problem, job.partition, rho))
    rows = [(part, i, int(clusters[part.rows[i]])) for part in chunks for i in range(len(part.y))]
    pulls: dict[int, np.ndarray] = {}
    leverage: dict[int, float] = {}
    for part, i, label in rows:
        D = part.D[i] @ T
        g, bend = part.slopes(part.eta)[i] @ D, D.T @ part.curvatures(part.eta)[i] @ D
        pulls[label] = pulls.get(label, 0.0) + part.weights[i] * g
        leverage[label] = leverage.get(label, 0.0) + part.weights[i] * np.trace(M @ bend)
    losses = []
    for part, i, label in rows:
        delta = M @ pulls[label] / (1.0 - min(leverage[label], LARGEST_LEVERAGE))
        moved = part.eta.copy()
        moved[i] += part.D[i] @ T @ np.clip(delta, -longest, longest)
        losses.append(part.losses(moved)[i])
    return Rows(np.array(losses), np.array([part.weights[i] for part, i, _ in rows]), [label for *_, label in rows])


def error_in_loops(differences: np.ndarray, weights: np.ndarray, labels: list[int]) -> float:
    """The standard error of the weighted mean: what each cluster adds to it is independent of the others."""
    mean, parts = weights @ differences, {}
    for w, d, label in zip(weights, differences, labels, strict=True):
        parts[label] = parts.get(label, 0.0) + w * (d - mean)
    m = len({label for w, label in zip(weights, labels, strict=True) if w})
    return float(np.sqrt(sum(part**2 for part in parts.values()) * m / (m - 1)))


def rule_in_loops(job: Prepared, starts: tuple[Start, ...]) -> tuple[dict[float, float], dict[float, float]]:
    """The corrected value of each spread, and what the choice minimizes."""
    best = {
        spread: min((one for one in starts if one.spread == spread), key=lambda one: one.best.value)
        for spread in sorted({one.spread for one in starts})
    }
    rows = {spread: left_out_in_loops(job, best[0.0], one) for spread, one in best.items()}
    caution = CAUTION if job.objective.has_hessian else CAUTION_WITHOUT_HESSIAN
    scores = {
        spread: own.corrected + caution * error_in_loops(own.losses - rows[0.0].losses, own.weights, own.labels)
        for spread, own in rows.items()
    }
    return {spread: own.corrected for spread, own in rows.items()}, scores


def chosen_in_loops(job: Prepared, scores: dict[float, float], *, shared: bool) -> float:
    """The lowest score; without an exact Hessian the first one on the path that is below that of a shared value."""
    if not job.objective.has_hessian:
        counted = [spread for spread in sorted(scores) if scores[spread] < scores[0.0]]
        return counted[0] if counted else sorted(scores)[0 if shared else 1]
    return min((spread for spread in scores if spread or shared), key=lambda spread: scores[spread])


def _directions(box, rho, *, tied: bool) -> np.ndarray:
    """How the hyperparameters may move: each that no bound holds, or each family together."""
    owner = list(range(len(rho)))
    for family in box.families if tied else ():
        for j in family.members:
            owner[j] = int(family.members[0])
    columns = [np.array([float(one == first) for one in owner]) for first in sorted(set(owner))]
    held = box.at_bound(rho)
    free = [column for column in columns if any(held[j] is None for j in np.flatnonzero(column))]
    return np.array(free).reshape(len(free), len(rho)).T


def _bend_of_prior(job: Prepared, shared: Start, start: Start) -> np.ndarray:
    """The Hessian of the hyper-prior whose centre follows: with other rows its floor is elsewhere, too."""
    rho, prior, unit = start.best.rho, Descents(job).prior(shared, start.spread), unit_in_loops(job, shared)
    H = np.zeros((len(rho), len(rho)))
    for family in prior.families:
        d, _ = family.deviations(rho)
        width = 0.5 * family.spread**2
        h = [1.5 * (width - one**2) / (width + one**2) ** 2 + 1.0 / 9.0 for one in d]
        for i, a in enumerate(family.members):
            for j, b in enumerate(family.members):
                H[a, b] += unit * ((i == j) * h[i] - h[i] * h[j] / sum(h))
    return H


def _second_derivatives(job: Prepared, rho: np.ndarray) -> np.ndarray:
    if job.objective.has_hessian:
        return job.objective.hessian(rho)
    H = np.zeros((len(rho), len(rho)))  # without the curvature of the predictors
    for part in job.objective.row_tangents(job.problem, job.partition, rho):
        for i in range(len(part.y)):
            H += part.weights[i] * part.D[i].T @ part.curvatures(part.eta)[i] @ part.D[i]
    return H
