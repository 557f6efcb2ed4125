"""A fitted generalized linear model and its derivatives in the hyperparameters, by the implicit function theorem."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import block_diag

from worker.core.inner.protocols import Coefficients
from worker.core.inner.smooth.criterion import Point, Regularized
from worker.core.inner.smooth.minimize import MOST_CG_STEPS, IterativeSolver, Minimum, minimize
from worker.core.inner.smooth.straight import ties
from worker.core.linalg import cholesky
from worker.core.linalg.conjugate_gradients import conjugate_gradients
from worker.core.linalg.norms import relative
from worker.core.losses.over_rows import LossOfPredictors
from worker.core.losses.training_loss import TrainingLoss
from worker.core.penalties.forms import Penalized, PenaltyForms
from worker.core.records import Array
from worker.core.rows.design import Design
from worker.core.weights import Weighting

EXACT_TOLERANCE = 1e-12  # relative gradient norm at which a fit counts as exact: the rest has no visible effect
EXACT_SOLVE_TOLERANCE = 1e-13  # relative residual at which a conjugate gradient solve counts as exact


@dataclass(frozen=True, slots=True)
class GeneralizedLinear:
    """`C = sum_i s_i(rho) loss(y_i, eta_i) + penalty / 2` with the shares `s = w / sum w` of one split's training rows.

    theta has the entries of each output, the intercept first, one output after the other. Hyperparameters are those of
    the penalty, then those of the weights, if any are tuned.
    """

    loss: LossOfPredictors
    penalty: PenaltyForms
    row_loss: TrainingLoss
    design: Design
    y: Float[Array, " n"]
    offset: Float[Array, " n"] | None
    base: Float[Array, " n"]
    weighting: Callable[[Float[Array, " h"]], Weighting] | None
    solver: IterativeSolver
    offset_level: float = 0.0  # subtracted from all offsets; the intercept of theta contains it

    def fit(
        self, lam: Float[Array, " k"], start: Float[Array, " mq"] | None = None, tolerance: float = EXACT_TOLERANCE
    ) -> GeneralizedLinearFit | None:
        """The minimizer, searched from `start`.

        None if C is not finite or the search does not converge.
        """
        k = self.penalty.k
        if self.weighting is None:
            shares = Weighting(self.base / self.base.sum(), np.zeros((len(self.base), 0)), lambda _: np.zeros((0, 0)))
        else:
            shares = self.weighting(lam[k:]).normalized(self.base)
        if not np.isfinite(shares.w).all():  # all weights underflow to zero
            return None
        criterion = Regularized(
            self.row_loss, self.design, self.y, self.offset, shares.w, self.penalty.at(lam[:k]), self.tied
        )
        found = minimize(criterion, self.start(shares.w) if start is None else start, self.solver, tolerance)
        if found is None or not found.gradient_norm <= max(1e3 * found.tolerance, 1e-6):
            return None
        return GeneralizedLinearFit(found, shares, self.solver)

    @property
    def tied(self) -> slice | None:
        """The intercepts of several outputs: a common shift of them changes no loss."""
        several = self.design.intercept and self.row_loss.outputs > 1
        return slice(0, None, self.design.q) if several else None

    def start(self, shares: Float[Array, " n"]) -> Float[Array, " mq"]:
        """The best constant model, ignoring offsets."""
        theta = np.zeros(self.row_loss.outputs * self.design.q)
        if self.design.intercept:
            constant = self.row_loss.constant(self.y, shares)
            theta[:: self.design.q] = constant - (constant.mean() if len(constant) > 1 else 0.0)
        return theta

    def coefficients(self, theta: Float[Array, " mq"]) -> Coefficients:
        """Intercept and slopes in original units; one of each per output if there are several."""
        m, i = self.row_loss.outputs, int(self.design.intercept)
        table = theta.reshape(m, self.design.q)
        slopes = table[:, i:]
        intercepts = table[:, 0] - slopes @ self.design.origin - self.offset_level if i else np.zeros(m)
        if m == 1:
            return float(intercepts[0]), slopes[0]
        return intercepts - intercepts.mean(), slopes  # a common shift changes no loss


@dataclass(slots=True)
class GeneralizedLinearFit:
    """A minimizer theta. `H_j` is the derivative of H in rho at fixed theta; H itself depends on theta too."""

    sweep: ClassVar[None] = None  # theta is found by iterations
    found: Minimum
    shares: Weighting
    solver: IterativeSolver
    _L: Float[Array, "mq mq"] | None = field(default=None, init=False)
    _ties: tuple[Float[Array, "mq m"] | None] | None = field(default=None, init=False)

    @property
    def at(self) -> Point:
        """The training criterion at theta."""
        return self.found.at

    @property
    def theta(self) -> Float[Array, " mq"]:
        """The minimizer."""
        return self.at.theta

    @property
    def scored(self) -> Float[Array, " mq"]:
        """Theta."""
        return self.at.theta

    @property
    def penalty(self) -> Penalized:
        """The total penalty at this rho."""
        return self.at.of.penalty

    def factor(self) -> Float[Array, "mq mq"] | None:
        """The Cholesky factor of H at theta; None if H is singular to working precision.

        With intercepts that no row gives curvature, of `H + E E^T` with their ties E.
        """
        if self._L is None:
            H = self.at.hessian()
            if self.ties is not None:
                H += self.ties @ self.ties.T
            self._L = cholesky.factor_in_place(H)
        return self._L

    @property
    def ties(self) -> Float[Array, "mq m"] | None:
        """The directions that hold the intercepts if no row gives them curvature: see `straight.py`; else None."""
        if self._ties is None:
            self._ties = (ties(self.at),)
        return self._ties[0]

    @property
    def intercepts(self) -> slice:
        """The place of the intercepts in theta."""
        return slice(0, None, self.at.of.design.q)

    def solve(
        self,
        b: Float[Array, " mq *f"],
        tolerance: float = EXACT_SOLVE_TOLERANCE,
        start: Float[Array, " mq *f"] | None = None,
    ) -> Float[Array, " mq *f"]:
        """`H^-1 b`; NaN if H is singular to working precision.

        Tied intercepts have no equation of their own: with `theta = T v` it is `T (T^T H T)^-1 T^T b`.
        """
        B, E = b.reshape(len(b), -1), self.ties
        if self.solver == "newton_cholesky":
            L = self.factor()
            if L is None:
                return np.full_like(b, np.nan)
            X = cholesky.solve(L, np.asfortranarray(B))
        else:
            X0 = None if start is None or E is not None else start.reshape(B.shape)
            X = conjugate_gradients(self._tied_apply, self.found.preconditioner(), B, tolerance, MOST_CG_STEPS, X0)
        if E is not None:
            X[self.intercepts] -= B[self.intercepts]
        return X.reshape(b.shape)

    def _tied_apply(self, D: Float[Array, "mq f"]) -> Float[Array, "mq f"]:
        """`(H + E E^T) D`."""
        return self.at.apply(D) if self.ties is None else self.at.apply(D) + self.ties @ (self.ties.T @ D)

    def residual(self, u: Float[Array, " mq"], b: Float[Array, " mq"]) -> Float[Array, " mq"]:
        """`H u - b` of `u = solve(b)`: `T^T (H u - b)` with tied intercepts."""
        r = self.apply(u) - b
        return r if self.ties is None else r - self.ties @ r[self.intercepts]

    def apply(self, v: Float[Array, " mq *f"]) -> Float[Array, " mq *f"]:
        """`H v`."""
        return self.at.apply(v.reshape(len(v), -1)).reshape(v.shape)

    def gradient(self) -> Float[Array, " mq"]:
        """`dC/dtheta` at theta."""
        return self.at.gradient

    def inner_gradient_norm(self) -> float:
        """The gradient norm at theta relative to `Point.unit`."""
        return self.found.gradient_norm

    def pullback(self, bar: Float[Array, " mq"]) -> Float[Array, " k"]:
        """`-(d2C/dtheta drho)^T H^-1 bar`."""
        return -self.contract(self.solve(bar))

    def adjoint_residual(self, bar: Float[Array, " mq"]) -> float:
        """`|H u - bar| / |bar|`, both scaled by the diagonal of H."""
        units = np.sqrt(self.found.diagonal)
        return relative(self.residual(self.solve(bar), bar) / units, bar / units)

    def contract(self, u: Float[Array, " mq"]) -> Float[Array, " k"]:
        """`(d2C/dtheta drho)^T u`."""
        penalties = self.penalty.contract(u, self.theta)
        if not self.shares.w_dot.shape[1]:
            return penalties
        return np.append(penalties, self._slopes_along(u) @ self.shares.w_dot)

    def curvature(self, u: Float[Array, " mq"]) -> Float[Array, "k k"]:
        """`(d3C/dtheta drho_j drho_l)^T u`."""
        penalties = np.diag(self.penalty.contract(u, self.theta))
        if not self.shares.w_dot.shape[1]:
            return penalties
        return block_diag(penalties, self.shares.second(self._slopes_along(u)))

    def sensitivity(self, chosen: Int[Array, " f"]) -> Float[Array, "mq f"]:
        """`dtheta/drho_j = -H^-1 d2C/dtheta drho_j` for the chosen hyperparameters, ascending indices."""
        k = self.penalty.of.k
        penalties, weights = chosen[chosen < k], chosen[chosen >= k] - k
        columns = self.penalty.products(self.theta, penalties)
        if len(weights):
            by_row = self.at.rows.slope[:, :, None] * self.shares.w_dot[:, None, weights]
            columns = np.hstack([columns, self.at.of.design.back(by_row)])
        return -self.solve(columns)

    def contract_columns(self, u: Float[Array, " mq"], D: Float[Array, "mq f"]) -> Float[Array, "k f"]:
        """`u^T H_j D_l` for each hyperparameter j and each column of D, theta fixed in H."""
        penalties = self.penalty.contract_columns(u, D)
        if not self.shares.w_dot.shape[1]:
            return penalties
        curved = self.at.rows.bend(self.at.of.design.along(D))
        by_row = np.einsum("na,naf->nf", self.at.of.design.predictor(u), curved)
        return np.vstack([penalties, self.shares.w_dot.T @ by_row])

    def third(self, u: Float[Array, " mq"], D: Float[Array, "mq f"]) -> Float[Array, "f f"]:
        """`C'''[u, D_j, D_l]`: the change of H with theta along D."""
        design = self.at.of.design
        U, total = self.shares.w[:, None] * design.predictor(u), np.zeros((D.shape[1], D.shape[1]))
        for chunk, V in design.pieces(D):
            total += self.at.rows.part(chunk).twist(U[chunk], V)
        return total

    def _slopes_along(self, u: Float[Array, " mq"]) -> Float[Array, " n"]:
        return np.sum(self.at.rows.slope * self.at.of.design.predictor(u), axis=1)
