"""The minimizers at one point, from which the minimizers at the next point are predicted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from worker.core.records import Array

STRAIGHT = 0.7  # cosine between two steps of rho that are taken for one line
FURTHEST = 1.5


@dataclass(frozen=True, slots=True)
class Anchor:
    """The minimizers at one rho, and `D = dtheta/drho` of the `chosen` hyperparameters where it is known.

    `adjoints` are those of inexact evaluations, which the next ones begin at. `before` is the anchor at another rho
    before this one: where D is not known, both together foretell minimizers along the line through them.
    """

    rho: Float[Array, " k"]
    thetas: tuple[Float[Array, " mq"], ...]
    D: tuple[Float[Array, "mq f"], ...] | None = None
    chosen: Int[Array, " f"] | None = None
    adjoints: tuple[Float[Array, " mq"], ...] | None = None
    before: Anchor | None = None

    def arrays(self) -> dict[str, Array]:
        """All but D, which can be had again from it, and the anchor before."""
        return (
            {"rho": self.rho}
            | {f"theta{i}": theta for i, theta in enumerate(self.thetas)}
            | {f"adjoint{i}": u for i, u in enumerate(self.adjoints or ())}
        )

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, Array], splits: int) -> Anchor:
        """What `arrays` gave."""
        adjoints = tuple(arrays[f"adjoint{i}"] for i in range(splits)) if "adjoint0" in arrays else None
        return cls(arrays["rho"], tuple(arrays[f"theta{i}"] for i in range(splits)), adjoints=adjoints)

    def after(self, before: Anchor | None) -> Anchor:
        """With the last anchor at another rho, which is `before` or the one before that."""
        if before is not None and before.rho.tobytes() == self.rho.tobytes():
            before = before.before
        return self if before is None else replace(self, before=replace(before, before=None, D=None, chosen=None))

    def predicted(self, split: int, rho: Float[Array, " k"]) -> Float[Array, " mq"]:
        """Theta at another rho, to the first order where D is known, or along the line through the anchor before."""
        theta = self.thetas[split]
        if self.D is not None:
            return theta + self.D[split] @ (rho - self.rho)[self.chosen]
        share = self._extrapolation(rho)
        return theta if not share or self.before is None else theta + share * (theta - self.before.thetas[split])

    def predicted_adjoint(self, split: int, rho: Float[Array, " k"]) -> Float[Array, " mq"] | None:
        """The adjoint at another rho, if one is known here."""
        if self.adjoints is None:
            return None
        u, share = self.adjoints[split], self._extrapolation(rho)
        if not share or self.before is None or self.before.adjoints is None:
            return u
        return u + share * (u - self.before.adjoints[split])

    def _extrapolation(self, rho: Float[Array, " k"]) -> float:
        """How much further than from the anchor before to this one it is to rho; zero unless it is much the same way.

        No further than that step again, beyond which a line foretells little.
        """
        if self.before is None:
            return 0.0
        step, further = self.rho - self.before.rho, rho - self.rho
        along = float(step @ further)
        if abs(along) < STRAIGHT * float(np.linalg.norm(step) * np.linalg.norm(further)):
            return 0.0
        return float(np.clip(along / float(step @ step), -1.0, FURTHEST))
