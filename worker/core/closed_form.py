"""The outer objective of a selection criterion that is a function of the residuals and leverages of one fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from worker.core import cholesky
from worker.core.hypergradient import Leverage
from worker.core.losses import SquaredErrorOfRows
from worker.core.objective import Objective
from worker.core.records import Array, Evaluation, Outcome, Partition, Problem
from worker.core.systems import Fit
from worker.core.tables import SparseRows


@dataclass(frozen=True, slots=True)
class Derivatives:
    """A criterion at residuals r and leverages h: value, first derivatives, and the second one as a form.

    `second(r_dot, h_dot)` is the k x k matrix of the second derivative along pairs of tangents. `row_losses` are the
    scores of single rows whose mean the value is, None where it is no mean.
    """

    value: float
    r_bar: Float[Array, " n"]
    h_bar: Float[Array, " n"]
    second: Callable[[Float[Array, "n f"], Float[Array, "n f"]], Float[Array, "f f"]]
    row_losses: Float[Array, " n"] | None


@dataclass(slots=True)
class ClosedFormObjective(Objective):
    """`J(rho) = E(r, h)` with `r = y - X theta` and `h_i = x_i^T P x_i / n` (+ 1/n), `P = H^-1`, all rows."""

    derivatives: Callable[[Float[Array, " n"], Float[Array, " n"]], Derivatives]
    intercept: bool

    def value(self, rho: Float[Array, " k"]) -> float:
        """J alone; infinite where training is singular."""
        fits = self.fits(rho)
        return np.inf if fits is None else self._at(fits[0])[0].value

    def evaluate(self, rho: Float[Array, " k"]) -> Evaluation:
        """J and `dJ/drho`."""
        fits = self.fits(rho)
        if fits is None:
            return self._failed(rho, Outcome.SINGULAR)
        at, leverage = self._at(fits[0])
        gradient = self.hypergradient(fits[0], -at.r_bar @ leverage.X, leverage)
        if not (np.isfinite(at.value) and np.isfinite(gradient).all()):
            return self._failed(rho, Outcome.NON_FINITE)
        return Evaluation(rho.copy(), at.value, gradient, np.array([at.value]))

    def hessian(self, rho: Float[Array, " k"], chosen: Int[Array, " f"] | None = None) -> Float[Array, "f f"]:
        """`d2J/drho2` in the chosen hyperparameters.

        With tangents `r_dot = -X D` and `h_dot_ij = -w_i^T H_j w_i / n`, `W = X P`, `H_j = dH/drho_j`: the second
        derivative of E along them, plus `r_bar . r_jl` by the adjoint, plus `h_bar . h_jl` with
        `n h_i,jl = 2 w_i^T H_j P H_l w_i - [j = l] w_i^T H_j w_i`.
        """
        fits = self.fits(rho)
        if fits is None:
            raise ValueError("the Hessian is not defined where training is singular")
        fit = fits[0]
        chosen = np.arange(len(rho)) if chosen is None else chosen
        at, leverage = self._at(fit)
        X, W = leverage.X, leverage.XP
        D = fit.sensitivity(chosen)
        forms = fit.forms(W)
        total = at.second(-X @ D, -forms[:, chosen] / len(X))
        u = fit.solve(-at.r_bar @ X)
        cross = fit.contract_columns(u, D)[chosen]
        pairs = fit.contract_pairs(fit.inverse(), (W.T * leverage.bar) @ W)
        total += 2.0 * pairs[np.ix_(chosen, chosen)] - cross - cross.T
        cholesky.diagonal_of(total)[...] -= (fit.contract(u) + leverage.bar @ forms)[chosen]
        return (total + total.T) / 2

    def row_losses(self, problem: Problem, partition: Partition, rho: Float[Array, " k"]) -> Float[Array, " n"] | None:
        """The scores of single rows, None where the criterion is not their mean."""
        del problem, partition
        fits = self.fits(rho)
        return None if fits is None else self._at(fits[0])[0].row_losses

    def _at(self, fit: Fit) -> tuple[Derivatives, Leverage]:
        loss = self.systems[0].loss
        assert isinstance(loss, SquaredErrorOfRows)
        assert not isinstance(loss.X, SparseRows)  # the leverages need dense rows in any case
        X, n = loss.X, loss.n
        W = X @ fit.inverse()
        h = (np.einsum("ij,ij->i", W, X) + self.intercept) / n
        at = self.derivatives(loss.y - X @ fit.theta, h)
        return at, Leverage(X, W, at.h_bar / n)
