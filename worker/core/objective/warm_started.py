"""The outer objective of iterative training: each fit starts at a prediction from earlier fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float, Int

from worker.core.inner.protocols import Fit
from worker.core.inner.smooth.error_bound import Adjoint, bounds
from worker.core.inner.smooth.fit import EXACT_SOLVE_TOLERANCE, EXACT_TOLERANCE, GeneralizedLinear, GeneralizedLinearFit
from worker.core.losses.measures import Pooled
from worker.core.losses.training import HuberLoss
from worker.core.objective.anchor import Anchor
from worker.core.objective.fitted import FittedObjective
from worker.core.objective.objective import Scores, means
from worker.core.records import Array, Evaluation, Outcome
from worker.core.rows.problem import Partition, Problem

MOST_KEPT_TANGENTS = 30_000_000  # numbers in all dtheta/drho up to which they are kept (240 MB)
MOST_TANGENTS = 100_000_000  # numbers in all dtheta/drho up to which there is a Hessian (800 MB)
SMALLEST_WEIGHT_WITHIN_DELTA = 0.05  # of training rows with residuals within delta (total 1); below it a remark warns
FEW_WITHIN_DELTA = (
    "Hardly a residual is within delta = {:g} of the Huber loss, which then is an absolute error with corners: the "
    "search is rough and may end early. Choose a larger training.delta, near the size of the noise."
)
BEFORE_PREFIX = "before."  # prefix in `memory` of the arrays of the previous anchor


@dataclass(frozen=True, slots=True)
class _Approximation:
    """The sum of scores of one split, its hypergradient, and bounds of their errors."""

    value: float
    gradient: Float[Array, " k"]
    errors: tuple[float, float]
    theta: Float[Array, " mq"]
    u: Float[Array, " mq"]


@dataclass(slots=True)
class WarmObjective(FittedObjective):
    """Mean loss over validation rows of models whose fits are warm started from an anchor.

    The anchor is the last point at which a Hessian was computed: Newton's method does so at each point it accepts.
    Without any, it is the last point evaluated. `memory` is all the state that later evaluations depend on.
    """

    _anchor: Anchor | None = field(default=None, init=False)

    @property
    def has_hessian(self) -> bool:
        """Whether the dense `dtheta/drho` of all splits, which the Hessian needs, fit into memory."""
        columns = 0
        for system in self.systems:
            assert isinstance(system, GeneralizedLinear)
            columns += system.penalty.p
        return columns * len(self.hyperparameters.names) <= MOST_TANGENTS

    def forget(self) -> None:
        """Drop all warm starts, so that the next fits start from scratch."""
        self._anchor = self._fitted = None

    def memory(self) -> Mapping[str, Array]:
        """The anchor and the one before it, without D, which can be recomputed."""
        anchor = self._anchor
        if anchor is None:
            return {}
        if (
            anchor.D is not None and self._fitted is not None
        ):  # the search moved to the last fits and will ask for D there
            anchor = Anchor(np.frombuffer(self._fitted[0]), tuple(fit.theta for fit in self._fitted[1]))
        before = anchor.before
        earlier = {} if before is None else {BEFORE_PREFIX + name: array for name, array in before.arrays().items()}
        return anchor.arrays() | earlier

    def recall(self, memory: Mapping[str, Array]) -> None:
        """Restore the anchors that `memory` saved."""
        self.forget()
        if memory:
            earlier = {
                name.removeprefix(BEFORE_PREFIX): array
                for name, array in memory.items()
                if name.startswith(BEFORE_PREFIX)
            }
            before = Anchor.of_arrays(earlier, len(self.systems)) if earlier else None
            self._anchor = replace(Anchor.of_arrays(memory, len(self.systems)), before=before)

    def fits(self, rho: Float[Array, " k"]) -> list[Fit] | None:
        """A fit for each split, or None if the minimizer of one is not found."""
        known = self._fitted is not None and self._fitted[0] == rho.tobytes()
        fits = super(WarmObjective, self).fits(rho)
        if fits is not None and not known and (self._anchor is None or self._anchor.D is None):
            self._anchor = Anchor(rho.copy(), tuple(fit.theta for fit in fits)).after(self._anchor)
        return fits

    def approximate(self, rho: Float[Array, " k"], accuracy: float) -> Evaluation:
        """J and `dJ/drho` from fits and adjoints of this accuracy, with rigorous bounds of their errors."""
        self._fitted = None
        parts: list[_Approximation] = []
        lam, factors = self.natural(rho), self.factors
        for split in range(len(self.systems)):
            part = self._approximate_split(split, rho, lam, accuracy)
            if part is None:
                return self._failed(rho, Outcome.SINGULAR)
            parts.append(part)
        sums, gradients = np.array([part.value for part in parts]), np.array([part.gradient for part in parts])
        errors = factors @ np.array([part.errors for part in parts])
        value, gradient = float(factors @ sums), factors @ gradients
        if not (np.isfinite(value) and np.isfinite(gradient).all()):  # an adjoint is NaN if H is singular
            return self._failed(rho, self.singular if np.isfinite(value) else Outcome.NON_FINITE)
        here = Anchor(rho.copy(), tuple(part.theta for part in parts), adjoints=tuple(part.u for part in parts))
        self._anchor = here.after(self._anchor)
        per_split = means(sums, np.array([system.loss.weight for system in self.systems]))
        return Evaluation(rho.copy(), value, gradient, per_split, None, *errors.tolist())

    def _approximate_split(
        self, split: int, rho: Float[Array, " k"], lam: Float[Array, " h"], accuracy: float
    ) -> _Approximation | None:
        system = self.systems[split]
        assert isinstance(system, GeneralizedLinear)
        fit = self._fit(split, rho, lam, accuracy)
        if fit is None:
            return None
        eta = system.loss.predictor(fit.theta)
        scored = system.loss.score.at(system.loss.y, eta, system.loss.w)
        theta_bar = system.loss.design.back(scored.slope[:, :, None])[:, 0]
        start = None if self._anchor is None else self._anchor.predicted_adjoint(split, rho)
        u = fit.solve(theta_bar, max(accuracy, EXACT_SOLVE_TOLERANCE), start)
        adjoint = Adjoint(u, theta_bar, -fit.residual(u, theta_bar))
        errors = bounds(system, fit, adjoint, eta)
        if errors is None:  # unknown: zero only at the best accuracy there is
            errors = (0.0, 0.0) if accuracy <= EXACT_TOLERANCE else (np.inf, np.inf)
        return _Approximation(scored.value, -fit.contract(u), errors, fit.theta, u)

    def _fit(
        self, split: int, rho: Float[Array, " k"], lam: Float[Array, " h"], accuracy: float = EXACT_TOLERANCE
    ) -> GeneralizedLinearFit | None:
        system = self.systems[split]
        assert isinstance(system, GeneralizedLinear)
        fit = None if self._anchor is None else system.fit(lam, self._anchor.predicted(split, rho), accuracy)
        return system.fit(lam, None, accuracy) if fit is None else fit

    def _tangents(self, chosen: Int[Array, " f"], fits: list[Fit]) -> list[Float[Array, "mq f"]]:
        D = super(WarmObjective, self)._tangents(chosen, fits)
        if sum(part.size for part in D) <= MOST_KEPT_TANGENTS and all(np.isfinite(part).all() for part in D):
            assert self._fitted is not None
            rho = np.frombuffer(self._fitted[0])
            self._anchor = Anchor(rho, tuple(fit.theta for fit in fits), tuple(D), chosen)
        return D

    def remarks(self, rho: Float[Array, " k"]) -> tuple[str, ...]:
        """A warning if few residuals are within delta of the Huber loss."""
        remarks: set[str] = set()
        for fit in self.fits(rho) or ():
            assert isinstance(fit, GeneralizedLinearFit)
            loss, at = fit.at.of.loss, fit.at.rows
            if isinstance(loss, HuberLoss) and fit.shares.w @ at.curvatures()[:, 0, 0] < SMALLEST_WEIGHT_WITHIN_DELTA:
                remarks.add(FEW_WITHIN_DELTA.format(loss.delta))
        return tuple(remarks)

    def row_scores(self, problem: Problem, partition: Partition, rho: Float[Array, " k"]) -> Scores | None:
        """The losses of the validation rows of all splits; None if the score is not a mean over rows."""
        fits = self.fits(rho)
        if fits is None:
            return None
        losses, weights = [], []
        for factor, system, fit in zip(self.factors, self.systems, fits, strict=True):
            assert isinstance(system, GeneralizedLinear)
            row_losses = system.loss.at(fit.theta).losses
            if row_losses is None:
                return None
            losses.append(row_losses)
            weights.append(factor * system.loss.w)
        return Scores(np.concatenate(losses), np.concatenate(weights))

    def pooled(self, rho: Float[Array, " k"]) -> Pooled | None:
        """The validation rows of all splits with their predictors; None if training has no minimizer."""
        fits = self.fits(rho)
        if fits is None:
            return None
        losses = [system.loss for system in self.systems if isinstance(system, GeneralizedLinear)]
        each = zip(self.factors, losses, fits, strict=True)
        return Pooled.of_parts([(loss.y, loss.predictor(fit.theta), factor * loss.w) for factor, loss, fit in each])

    def units_of(self, fit: Fit) -> Float[Array, " mq"]:
        """The square roots of the diagonal of H."""
        assert isinstance(fit, GeneralizedLinearFit)
        return np.sqrt(fit.found.diagonal)

    def adjoint_residual(self, fit: Fit, u: Float[Array, " mq"], theta_bar: Float[Array, " mq"]) -> Float[Array, " mq"]:
        """What the adjoint u leaves of its equation."""
        assert isinstance(fit, GeneralizedLinearFit)
        return fit.residual(u, theta_bar)

    def inner_gradient_norm(self, fit: Fit) -> float:
        """The norm of `dC/dtheta` relative to the norm of theta, both scaled by the diagonal of H."""
        assert isinstance(fit, GeneralizedLinearFit)
        return fit.inner_gradient_norm()
