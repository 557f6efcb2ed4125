"""Validation rows with their predictors, and how these move with the hyperparameters that were tuned on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from worker.core.losses.derivatives import ScoreDerivatives
from worker.core.losses.score import PredictorScore
from worker.core.records import Array
from worker.core.rows.problem import Partition, Problem

MOST_VALUES = 2_000_000  # numbers in the tangents of one chunk of rows: 16 MB


@dataclass(frozen=True, slots=True)
class RowTangents:
    """Some validation rows of one split at rho: their predictors, and the derivatives of these in rho.

    Over all chunks the weights in J sum to one, and `sum_i w_i l'_i . D_i` is `dJ/drho`. A row of weight zero is there
    too.
    """

    rows: Int[Array, " v"]  # numbers in the problem
    y: Float[Array, " v"]
    eta: Float[Array, "v m"]
    weights: Float[Array, " v"]
    D: Float[Array, "v m f"]  # d eta / d rho of the chosen hyperparameters
    score: PredictorScore

    def losses(self, eta: Float[Array, "v m"]) -> Float[Array, " v"]:
        """The losses of these rows at other predictors."""
        losses = self._at(eta).losses
        assert losses is not None, "a score of all rows together has no losses of rows"
        return losses

    def slopes(self, eta: Float[Array, "v m"]) -> Float[Array, "v m"]:
        """The first derivatives of the losses in the predictors."""
        return self._at(eta).slope

    def curvatures(self, eta: Float[Array, "v m"]) -> Float[Array, "v m m"]:
        """The second derivatives of the losses in the predictors."""
        directions = np.broadcast_to(np.eye(eta.shape[1]), (*eta.shape, eta.shape[1]))
        return self._at(eta).bend(directions)

    def _at(self, eta: Float[Array, "v m"]) -> ScoreDerivatives:
        return self.score.at(self.y, eta, np.ones(len(self.y)))


# for the problem, its splits, rho and the chosen hyperparameters (ascending); None if training is singular at rho
TangentsOfRows = Callable[
    [Problem, Partition, Float[Array, " k"], Int[Array, " f"]], Iterator[RowTangents] | None
]  # split by split, the rows of each ascending, as in `Scores`


def in_chunks(whole: RowTangents) -> Iterator[RowTangents]:
    """The rows in chunks, for criteria that have the tangents of all rows at once."""
    _, m, f = whole.D.shape
    size = rows_of_chunk(m, f)
    for begin in range(0, len(whole.rows), size):
        part = slice(begin, begin + size)
        arrays = (whole.rows[part], whole.y[part], whole.eta[part], whole.weights[part], whole.D[part])
        yield RowTangents(*arrays, whole.score)


def rows_of_chunk(m: int, f: int) -> int:
    """How many rows with m predictors and f hyperparameters make a chunk."""
    return max(1, MOST_VALUES // max(m * f, 1))
