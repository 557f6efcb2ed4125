"""One hyperparameter in place of each family: the shared optimum, with which all others are compared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from worker.core.hyperparameters import Hyperparameters
from worker.core.objective.objective import (
    Approximation,
    Formula,
    Found,
    Hessian,
    Objective,
    Residuals,
)
from worker.core.objective.row_tangents import RowTangents, TangentsOfRows
from worker.core.records import Array, Evaluation
from worker.core.rows.problem import Partition, Problem


@dataclass(frozen=True, slots=True)
class Tie:
    """`rho_j = t_i + offset_j` with `i = to[j]`: members of a family differ by constants, those of their starts."""

    full: Hyperparameters
    to: Int[Array, " k"]
    offset: Float[Array, " k"]
    hyperparameters: Hyperparameters

    @classmethod
    def of(cls, full: Hyperparameters) -> Tie:
        """All families tied; the others remain as they are, in their order."""
        first = np.arange(len(full.names))
        names = list(full.names)
        for family in full.families:
            first[family.members] = family.members[0]
            names[family.members[0]] = family.name
        kept, to = np.unique(first, return_inverse=True)
        offset = full.initial - full.initial[kept][to]
        lower, upper = np.full(len(kept), -np.inf), np.full(len(kept), np.inf)
        np.maximum.at(lower, to, full.lower - offset)
        np.minimum.at(upper, to, full.upper - offset)
        initial, log = full.initial[kept], full.log[kept]
        box = tuple(
            np.where(end == own[kept], natural[kept], np.where(log, np.exp(end), end))
            for end, own, natural in zip((lower, upper), (full.lower, full.upper), full.box, strict=True)
        )
        tied = Hyperparameters(tuple(names[j] for j in kept), initial, lower, upper, (box[0], box[1]), log)
        return cls(full, to, offset, tied)

    def expand(self, t: Float[Array, " f"]) -> Float[Array, " k"]:
        """All hyperparameters."""
        return np.clip(t[self.to] + self.offset, self.full.lower, self.full.upper)

    def reduce(self, rho: Float[Array, " k"]) -> Float[Array, " f"]:
        """The inverse of `expand`."""
        t = np.empty(len(self.hyperparameters.names))
        t[self.to] = rho - self.offset
        return np.clip(t, self.hyperparameters.lower, self.hyperparameters.upper)

    def sums(self, gradient: Float[Array, " k"]) -> Float[Array, " f"]:
        """The gradient in t."""
        return np.bincount(self.to, gradient, minlength=len(self.hyperparameters.names))

    def tangents(self, chosen: Int[Array, " c"]) -> tuple[Int[Array, " m"], Float[Array, "m c"]]:
        """`T = drho/dt` of the chosen ones: its rows that are not zero, and these."""
        members = np.flatnonzero(np.isin(self.to, chosen))
        return members, (self.to[members][:, None] == chosen).astype(float)

    def expanded(self, at: Evaluation) -> Evaluation:
        """The evaluation at all hyperparameters; each derivative is that of moving its family together."""
        return replace(at, rho=self.expand(at.rho), gradient=at.gradient[self.to])


def tied(objective: Objective, tie: Tie) -> Objective:
    """The objective as a function of t, without what tells of rows and of the model: that is asked of all of rho."""
    second, approximation = objective.second, objective.approximation
    return Objective(
        _TiedFormula(objective.formula, tie),
        tie.hyperparameters,
        objective.loss,
        objective.solver,
        objective.splits,
        objective.meaning,
        objective.singular,
        second=None if second is None else _TiedHessian(second, tie),
        approximation=None if approximation is None else _TiedApproximation(approximation, tie),
        warm=objective.warm,
        tangents=None if objective.tangents is None else _TiedTangents(objective.tangents, tie),
    )


def _in_t(found: Found | None, tie: Tie) -> Found | None:
    """The bound of the gradient's error holds for sums of it times the root of the largest family."""
    if found is None:
        return None
    value_error, gradient_error = found.errors
    largest = float(np.sqrt(np.bincount(tie.to).max()))
    return replace(found, gradient=tie.sums(found.gradient), errors=(value_error, gradient_error * largest))


@dataclass(frozen=True, slots=True)
class _TiedFormula:
    of: Formula
    tie: Tie

    def value(self, rho: Float[Array, " f"]) -> float:
        """J alone."""
        return self.of.value(self.tie.expand(rho))

    def found(self, rho: Float[Array, " f"]) -> Found | None:
        """J with its gradient in t."""
        return _in_t(self.of.found(self.tie.expand(rho)), self.tie)

    def residuals(self, rho: Float[Array, " f"]) -> Residuals | None:
        """The same."""
        return self.of.residuals(self.tie.expand(rho))


@dataclass(frozen=True, slots=True)
class _TiedHessian:
    of: Hessian
    tie: Tie

    def __call__(self, rho: Float[Array, " f"], chosen: Int[Array, " c"]) -> Float[Array, "c c"] | None:
        """`T^T H T`."""
        members, T = self.tie.tangents(chosen)
        H = self.of(self.tie.expand(rho), members)
        return None if H is None else T.T @ H @ T


@dataclass(frozen=True, slots=True)
class _TiedTangents:
    of: TangentsOfRows
    tie: Tie

    def __call__(
        self, problem: Problem, partition: Partition, rho: Float[Array, " f"], chosen: Int[Array, " c"]
    ) -> Iterator[RowTangents] | None:
        """The rows, `D T`."""
        members, T = self.tie.tangents(chosen)
        chunks = self.of(problem, partition, self.tie.expand(rho), members)
        return None if chunks is None else (replace(chunk, D=chunk.D @ T) for chunk in chunks)


@dataclass(frozen=True, slots=True)
class _TiedApproximation:
    of: Approximation
    tie: Tie

    def __call__(self, rho: Float[Array, " f"], accuracy: float) -> Found | None:
        """J with its gradient in t, and the bounds of the errors."""
        return _in_t(self.of(self.tie.expand(rho), accuracy), self.tie)
