"""Relative norms."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from worker.core.records import Array


def relative(residual: Float[Array, " p"], scale: Float[Array, " p"]) -> float:
    """The norm of the residual relative to the norm of the scale."""
    return float(np.linalg.norm(residual) / (np.linalg.norm(scale) or 1.0))
