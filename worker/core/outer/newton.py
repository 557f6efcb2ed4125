"""Trust-region Newton with the exact Hessian of J, in a box (after Conn, Gould and Toint 1988; More and Sorensen 1983).

Variables at a bound whose gradient pushes outward are fixed. On the free ones a quadratic model is minimized exactly
inside a ball, through the eigendecomposition of the Hessian. Negative curvature is thus used, and flat directions cost
nothing. The step is then cut to the box.

The model is not quadratic in `rho = log(lam)`, but in `lam` if lam decreases and in `1/lam` if it increases: along its
descent J is nearly polynomial in these. Far from its optimum a penalty changes J like `exp(-|rho|)`, and Newton's
method in rho would move by one unit an iteration. With `x_j` the relative decrease of `lam_j` or `1/lam_j`, `rho_j`
moves downhill by `-log(1 - x_j)`. Its second derivative adds `-|g_j|` to the diagonal of the Hessian; at a stationary
point both coordinates agree. A step is cut at `LONGEST_STEP`, so that it does not jump over a minimum into the flat
region behind it.

With one hyperparameter, once the minimum is between two evaluations, the model is a quartic through both
(`quartic.py`).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float
from scipy.linalg import eigh

from worker.core.linalg import cholesky
from worker.core.objective.objective import Objective
from worker.core.outer.descend import Optimizer, evaluation_of
from worker.core.outer.quartic import Quartic
from worker.core.records import ROUND_OFF, Array, Evaluation, Outcome, Trial

FIRST_TRUST_RADIUS = 0.8  # in x, times the square root of the number of hyperparameters
LARGEST_TRUST_RADIUS = 4.0  # the same
LONGEST_STEP = 1.5  # of one hyperparameter on the scale of rho: a factor of about 4.5
# of actual to predicted decrease: a step is accepted above, the radius is reduced below, and may grow above
ACCEPT_RATIO, SHRINK_RATIO, GROW_RATIO = 1e-4, 0.25, 0.75


@dataclass(frozen=True, slots=True)
class Newton(Optimizer):
    """Newton's method with the exact hyper-Hessian and a trust region: few iterations, quadratic convergence."""

    kind: Literal["newton"] = "newton"

    typical_evaluations: ClassVar[int] = 15
    needs_hessian: ClassVar[bool] = True

    def begin(self, objective: Objective, rho: Float[Array, " k"]) -> Generator[Trial, None, Trial]:
        """The start."""
        yield from ()  # no evaluation comes before
        radius = FIRST_TRUST_RADIUS * float(np.sqrt(len(rho)))
        return self.trial(objective, objective.evaluate(rho), 0, {"radius": np.array(radius)})

    def step(self, objective: Objective, state: dict[str, Array]) -> Generator[Trial, None, Trial | None]:
        """The minimizer of the model in the largest ball where the model is good; None if rounding hides J's change."""
        at, before = evaluation_of(state), _before(state)
        radius, iteration = float(state["radius"]), int(state["iteration"])
        model = TrustRegionModel.build(objective, at)
        if model is None:
            return None
        while True:
            model = model.after(before)
            x, radius = model.minimizer(radius)
            predicted, rounding = -model.change(x), ROUND_OFF * objective.unit(at.value)
            new = objective.evaluate(model.point(x))
            if not predicted > rounding:  # rounding hides the change of J: the gradient decides
                if self._halves_gradient(objective, at, new):
                    break
                yield self.trial(objective, new, iteration)
                return None
            ratio = (at.value - new.value) / predicted
            radius = _next_radius(radius, ratio, float(np.linalg.norm(x)), len(at.rho))
            if ratio >= ACCEPT_RATIO:
                break
            yield self.trial(objective, new, iteration)
            before = new
        return self.trial(objective, new, iteration + 1, {"radius": np.array(radius), **_as_before(at)})

    def ended(self, objective: Objective, state: Mapping[str, Array]) -> Outcome | None:
        """By the gradient."""
        return self.stationary_or_spent(objective, state)

    def _halves_gradient(self, objective: Objective, at: Evaluation, new: Evaluation) -> bool:
        """Whether the gradient at the new point is at most half the old one."""
        halved = self.relative_gradient(objective, new) <= 0.5 * self.relative_gradient(objective, at)
        return new.failure is None and halved


def _as_before(at: Evaluation) -> dict[str, Array]:
    """The part of a state that holds the point before, with one hyperparameter."""
    return {"before": np.array([at.rho[0], at.value, at.gradient[0]])} if len(at.rho) == 1 else {}


def _before(state: Mapping[str, Array]) -> Evaluation | None:
    """Its inverse; None at the start, with several hyperparameters, and in states of earlier versions."""
    if "before" not in state:
        return None
    point, value, slope = state["before"]
    return Evaluation(np.array([point]), float(value), np.array([slope]), np.empty(0))


def _next_radius(radius: float, ratio: float, length: float, k: int) -> float:
    if not ratio >= SHRINK_RATIO:  # also if the trial point is singular and its value infinite
        return 0.25 * min(radius, length)
    if ratio > GROW_RATIO and length > 0.9 * radius:
        return float(min(2.0 * radius, LARGEST_TRUST_RADIUS * np.sqrt(k)))
    return radius


@dataclass(frozen=True, slots=True)
class TrustRegionModel:
    """Quadratic model of J in x around `at`, on the variables that are free to move; see the head of this module.

    `downhill` is +1 if J decreases with rho, -1 if it increases. In x the gradient is `-|g|`. `slope` and `H` are in
    units of J.
    """

    at: Evaluation
    bounds: tuple[Float[Array, " k"], Float[Array, " k"]]
    unit: float
    free: Array
    downhill: Float[Array, " f"]
    slope: Float[Array, " f"]
    H: Float[Array, "f f"]
    eigenvalues: Float[Array, " f"]
    vectors: Float[Array, "f f"]
    line: Quartic | None = None

    @classmethod
    def build(cls, objective: Objective, at: Evaluation) -> TrustRegionModel | None:
        """None if the Hessian is not finite, for example if products of columns overflow or vanish."""
        box, unit = objective.hyperparameters, objective.unit(at.value)
        free = np.flatnonzero(box.projected(at.rho, at.gradient))
        downhill = -np.sign(at.gradient[free])
        slope = -np.abs(at.gradient[free]) / unit
        with np.errstate(over="ignore", invalid="ignore"):
            H = downhill[:, None] * (objective.hessian(at.rho, free) / unit) * downhill
        cholesky.diagonal_of(H)[...] += slope
        if not np.isfinite(H).all():
            return None
        return cls(at, (box.lower, box.upper), unit, free, downhill, slope, H, *eigh(H, driver="evd"))

    def after(self, before: Evaluation | None) -> TrustRegionModel:
        """The model; a quartic for one hyperparameter whose minimum is between here and an earlier evaluation.

        On the way to a minimum further off the quadratic in x is better.
        """
        if before is None or len(self.at.rho) > 1 or np.signbit(before.gradient[0]) == np.signbit(self.at.gradient[0]):
            return replace(self, line=None)
        curvature = self.unit * float(self.H[0, 0] - self.slope[0])  # on the scale of rho
        return replace(self, line=Quartic.through(self.at, curvature, before, self.unit))

    def minimizer(self, radius: float) -> tuple[Float[Array, " f"], float]:
        """The minimizer of the model in a ball, cut to the box and the longest step, and the radius of the ball.

        The radius is the given one, or a smaller one if the cut step would lose its decrease.
        """
        rho, (lower, upper) = self.at.rho[self.free], (bound[self.free] for bound in self.bounds)
        room_downhill = np.where(self.downhill > 0, upper - rho, rho - lower)
        room_uphill = np.where(self.downhill > 0, rho - lower, upper - rho)
        x_upper = -np.expm1(-np.minimum(room_downhill, LONGEST_STEP))
        x_lower = -np.expm1(np.minimum(room_uphill, LONGEST_STEP))
        if self.line is not None:
            step_ends = self._rho_step(np.clip([-radius, radius], x_lower, x_upper))
            return self._x_step(self.line.minimizer(*np.sort(step_ends))), radius
        g = self.vectors.T @ self.slope
        while True:
            x = np.clip(self.vectors @ ball_minimizer(self.eigenvalues, g, radius), x_lower, x_upper)
            if self.change(x) < min(0.25 * self.unit * (self.slope @ x), 0.0) or radius < 1e-12:
                return x, radius
            radius /= 2

    def change(self, x: Float[Array, " f"]) -> float:
        """The change of J that the model predicts."""
        if self.line is not None:
            return self.line.change(float(self._rho_step(x)[0]))
        return self.unit * float(self.slope @ x + x @ self.H @ x / 2)

    def point(self, x: Float[Array, " f"]) -> Float[Array, " k"]:
        """The point on the scale of rho; exactly on a bound if x reaches it."""
        rho = self.at.rho.copy()
        rho[self.free] += self._rho_step(x)
        tolerance = 1e-12
        rho = np.where(rho >= self.bounds[1] - tolerance, self.bounds[1], rho)
        return np.where(rho <= self.bounds[0] + tolerance, self.bounds[0], rho)

    def _rho_step(self, x: Float[Array, " *f"]) -> Float[Array, " *f"]:
        """The step on the scale of rho."""
        return -self.downhill * np.log1p(-x)

    def _x_step(self, step: float) -> Float[Array, " f"]:
        """The step in x."""
        return -np.expm1(-self.downhill * step)


def ball_minimizer(eigenvalues: Float[Array, " f"], g: Float[Array, " f"], radius: float) -> Float[Array, " f"]:
    """Minimizer of `g^T s + s^T diag(eigenvalues) s / 2` over `|s| <= radius` (More and Sorensen 1983, section 3).

    `s = -g / (eigenvalues + mu)` with the smallest `mu >= 0` that makes the model convex and the step fit. In the
    hard case g has no component along the most negative curvature; the step is then lengthened in that direction.
    """
    smallest = eigenvalues[0]
    reach = float(np.linalg.norm(g)) / radius  # the curvature that makes a steepest-descent step fit
    scale = max(abs(smallest), abs(eigenvalues[-1]), reach, np.finfo(float).tiny)
    smallest_mu = max(0.0, -smallest) + 1e-14 * scale
    s = -g / (eigenvalues + smallest_mu)
    length = float(np.linalg.norm(s))
    if length <= radius:
        if smallest < -1e-10 * scale:
            s[0] += np.copysign(np.sqrt(radius**2 - length**2), s[0])
        return s
    low, high = smallest_mu, smallest_mu + reach
    while high - low > 1e-3 * high:  # the length decreases monotonically in mu
        middle = (low + high) / 2
        if np.linalg.norm(g / (eigenvalues + middle)) > radius:
            low = middle
        else:
            high = middle
    return -g / (eigenvalues + high)
