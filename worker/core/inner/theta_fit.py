"""What fits of quadratic criteria share: theta is scored, and one solve with H gives the adjoint."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from jaxtyping import Float

from worker.core.linalg.norms import relative
from worker.core.records import Array


class FitOfQuadratic(ABC):
    """A minimizer of `theta^T H theta / 2 - b^T theta`."""

    __slots__ = ()

    theta: Float[Array, " p"]

    @abstractmethod
    def solve(self, b: Float[Array, " p *m"]) -> Float[Array, " p *m"]:
        """`H^-1 b`."""

    @abstractmethod
    def apply(self, v: Float[Array, " p *m"]) -> Float[Array, " p *m"]:
        """`H v`."""

    @abstractmethod
    def gradient(self) -> Float[Array, " p"]:
        """`dC/dtheta`, zero up to round-off."""

    @abstractmethod
    def contract(self, u: Float[Array, " p"]) -> Float[Array, " k"]:
        """`u^T g_j` for each hyperparameter."""

    @property
    def scored(self) -> Float[Array, " p"]:
        """Theta."""
        return self.theta

    def pullback(self, bar: Float[Array, " p"]) -> Float[Array, " k"]:
        """`-g_j^T H^-1 bar`."""
        return -self.contract(self.solve(bar))

    def adjoint_residual(self, bar: Float[Array, " p"]) -> float:
        """`|H u - bar| / |bar|`."""
        return relative(self.apply(self.solve(bar)) - bar, bar)

    def inner_gradient_norm(self) -> float:
        """The norm of `dC/dtheta` at theta, relative to its norm at theta = 0."""
        gradient = self.gradient()
        return relative(gradient, gradient - self.apply(self.theta))

    def third(self, u: Float[Array, " p"], D: Float[Array, "p f"]) -> Float[Array, "f f"]:
        """The third derivative of a quadratic criterion: zero."""
        return np.zeros((D.shape[1], D.shape[1]))
