"""The row tangents of linear models: `eta` is linear in theta, so that `d eta / d rho = z^T dtheta/drho`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from worker.core.inner.protocols import LeastSquaresFit, LeastSquaresSystem, SmoothFit
from worker.core.inner.smooth.fit import GeneralizedLinear, GeneralizedLinearFit
from worker.core.losses import ResidualLoss
from worker.core.objective.fits import AnchoredFits, DirectFits
from worker.core.objective.mean_of_splits import factors_of
from worker.core.objective.row_tangents import RowTangents, rows_of_chunk
from worker.core.records import Array
from worker.core.rows.filled import split_problems
from worker.core.rows.problem import Partition, Problem
from worker.core.rows.tables import CHUNK_VALUES, centred, rows_at_a_time


@dataclass(frozen=True, slots=True)
class ReadTangents:
    """Of models that are fitted by least squares. Validation rows are read from the table, as for `ReadRows`."""

    fits: DirectFits[LeastSquaresFit]
    systems: Sequence[LeastSquaresSystem]
    loss: ResidualLoss
    split_weights: Float[Array, " splits"] | None = None

    def __call__(
        self, problem: Problem, partition: Partition, rho: Float[Array, " k"], chosen: Int[Array, " f"]
    ) -> Iterator[RowTangents] | None:
        """The rows of each split; None if training is singular."""
        fits = self.fits.at(rho)
        return None if fits is None else self._rows(problem, partition, fits, chosen)

    def _rows(
        self, problem: Problem, partition: Partition, fits: Sequence[LeastSquaresFit], chosen: Int[Array, " f"]
    ) -> Iterator[RowTangents]:
        factors, problems = factors_of(self.fits, self.split_weights), split_problems(problem, partition)
        of_splits = zip(factors, self.systems, fits, problems, partition.splits, strict=True)
        for factor, system, fit, split, (_, validation) in of_splits:
            rows, centre, of_target = partition.rows(validation), system.centre.of(slice(-1)), system.centre.of([-1])
            levels, slopes = system.about_centre(np.column_stack([fit.theta, sensitivity_of(fit, chosen)]))
            size = min(rows_at_a_time(split.X, CHUNK_VALUES), rows_of_chunk(1, len(chosen)))
            for begin in range(0, len(rows), size):
                chunk = rows[begin : begin + size]
                moved = centred(split.X, chunk, centre) @ slopes + levels
                eta = of_target.high + (of_target.low + moved[:, :1])
                weights = factor * problem.score_weights(chunk)
                yield RowTangents(chunk, problem.y[chunk], eta, weights, moved[:, None, 1:], self.loss)


@dataclass(frozen=True, slots=True)
class PredictedTangents:
    """Of generalized linear models, whose losses hold the rows."""

    fits: AnchoredFits
    split_weights: Float[Array, " splits"] | None = None

    def __call__(
        self, problem: Problem, partition: Partition, rho: Float[Array, " k"], chosen: Int[Array, " f"]
    ) -> Iterator[RowTangents] | None:
        """The rows of each split; None if training has no minimizer."""
        fits = self.fits.at(rho)
        return None if fits is None else self._rows(fits, chosen)

    def _rows(self, fits: Sequence[GeneralizedLinearFit], chosen: Int[Array, " f"]) -> Iterator[RowTangents]:
        factors = factors_of(self.fits, self.split_weights)
        for factor, system, fit in zip(factors, self.fits.systems, fits, strict=True):
            yield from _rows_of(system, factor, fit.theta, sensitivity_of(fit, chosen))


def _rows_of(
    system: GeneralizedLinear, factor: float, theta: Float[Array, " mq"], D: Float[Array, "mq f"]
) -> Iterator[RowTangents]:
    """The scored rows of one split."""
    loss, (_, f) = system.loss, D.shape
    eta = loss.predictor(theta)
    for part, moved in loss.design.pieces(D, rows_of_chunk(eta.shape[1], f)):
        yield RowTangents(loss.design.rows[part], loss.y[part], eta[part], factor * loss.w[part], moved, loss.score)


def sensitivity_of(fit: SmoothFit, chosen: Int[Array, " f"]) -> Float[Array, "p f"]:
    """`dtheta/drho_j` of the chosen hyperparameters, which may be none."""
    return fit.sensitivity(chosen) if len(chosen) else np.empty((len(fit.theta), 0))
