"""The minimizers at one point, used to predict warm starts at the next point."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from worker.core.records import Array

SMALLEST_COSINE = 0.7  # |cosine| of two steps of rho that count as one line
LONGEST_EXTRAPOLATION = 1.5  # relative to the last step of rho


@dataclass(frozen=True, slots=True)
class Anchor:
    """The minimizers at one rho and, if known, `D = dtheta/drho` of the `chosen` hyperparameters.

    `adjoints` come from inexact evaluations and warm start the next ones. `before` is the previous anchor, at another
    rho: without D, minimizers are extrapolated along the line through both.
    """

    rho: Float[Array, " k"]
    thetas: tuple[Float[Array, " mq"], ...]
    D: tuple[Float[Array, "mq f"], ...] | None = None
    chosen: Int[Array, " f"] | None = None
    adjoints: tuple[Float[Array, " mq"], ...] | None = None
    before: Anchor | None = None

    def arrays(self) -> dict[str, Array]:
        """The arrays to save: all but `before`, and D, which can be recomputed."""
        return (
            {"rho": self.rho}
            | {f"theta{i}": theta for i, theta in enumerate(self.thetas)}
            | {f"adjoint{i}": u for i, u in enumerate(self.adjoints or ())}
        )

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, Array], splits: int) -> Anchor:
        """The anchor that `arrays` saved."""
        adjoints = tuple(arrays[f"adjoint{i}"] for i in range(splits)) if "adjoint0" in arrays else None
        return cls(arrays["rho"], tuple(arrays[f"theta{i}"] for i in range(splits)), adjoints=adjoints)

    def holds_tangents(self, rho: Float[Array, " k"], chosen: Int[Array, " f"]) -> bool:
        """Whether D is known here, of these hyperparameters."""
        known = self.D is not None and self.chosen is not None and (self.rho == rho).all()
        return bool(known) and np.array_equal(self.chosen, chosen)  # type: ignore[arg-type]

    def after(self, before: Anchor | None) -> Anchor:
        """The anchor with a previous one at another rho: `before`, or the one before it."""
        if before is not None and before.rho.tobytes() == self.rho.tobytes():
            before = before.before
        return self if before is None else replace(self, before=replace(before, before=None, D=None, chosen=None))

    def predicted(self, split: int, rho: Float[Array, " k"]) -> Float[Array, " mq"]:
        """Theta at another rho: to first order if D is known, else extrapolated from the previous anchor."""
        theta = self.thetas[split]
        if self.D is not None:
            return theta + self.D[split] @ (rho - self.rho)[self.chosen]
        fraction = self._extrapolation(rho)
        return theta if not fraction or self.before is None else theta + fraction * (theta - self.before.thetas[split])

    def predicted_adjoint(self, split: int, rho: Float[Array, " k"]) -> Float[Array, " mq"] | None:
        """The adjoint at another rho; None if this anchor has none."""
        if self.adjoints is None:
            return None
        u, fraction = self.adjoints[split], self._extrapolation(rho)
        if not fraction or self.before is None or self.before.adjoints is None:
            return u
        return u + fraction * (u - self.before.adjoints[split])

    def _extrapolation(self, rho: Float[Array, " k"]) -> float:
        """The step to rho relative to the step from `before` to this anchor; zero unless both are nearly parallel.

        Clipped to [-1, `LONGEST_EXTRAPOLATION`], as a line predicts little beyond; -1 is `before` itself.
        """
        if self.before is None:
            return 0.0
        last_step, next_step = self.rho - self.before.rho, rho - self.rho
        inner_product = float(last_step @ next_step)
        if abs(inner_product) < SMALLEST_COSINE * float(np.linalg.norm(last_step) * np.linalg.norm(next_step)):
            return 0.0
        return float(np.clip(inner_product / float(last_step @ last_step), -1.0, LONGEST_EXTRAPOLATION))
