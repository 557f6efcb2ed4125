"""The row tangents of linear models: `eta` is linear in theta, so that `d eta / d rho = z^T dtheta/drho`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from worker.core.inner.protocols import LeastSquaresFit, LeastSquaresSystem, SmoothFit
from worker.core.inner.smooth.fit import GeneralizedLinear
from worker.core.losses import ResidualLoss
from worker.core.objective.fits import AnchoredFits, DirectFits, HeldFits
from worker.core.objective.mean_of_splits import factors_of
from worker.core.objective.row_tangents import RowTangents, rows_of_chunk
from worker.core.records import Array
from worker.core.rows.centre import Centre
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
        if fits is None:
            return None
        return self._rows(problem, partition, *thetas_and_tangents(self.fits, rho, chosen))

    def _rows(
        self,
        problem: Problem,
        partition: Partition,
        thetas: list[Float[Array, " p"]],
        tangents: list[Float[Array, "p f"]],
    ) -> Iterator[RowTangents]:
        factors, problems = factors_of(self.fits, self.split_weights), split_problems(problem, partition)
        of_splits = zip(factors, self.systems, thetas, tangents, problems, partition.splits, strict=True)
        for factor, system, theta, D, split, (_, validation) in of_splits:
            rows = partition.rows(validation)
            size = min(rows_at_a_time(split.X, CHUNK_VALUES), rows_of_chunk(1, D.shape[1]))
            moving = _MovingModel.of(system, theta, D, factor, self.loss)
            for begin in range(0, len(rows), size):
                yield moving.rows(split, rows[begin : begin + size])


@dataclass(frozen=True, slots=True)
class RefittedTangents:
    """Of a fit by least squares without each row, in the order of the rows that count."""

    fits: DirectFits[LeastSquaresFit]
    systems: Sequence[LeastSquaresSystem]
    loss: ResidualLoss

    def __call__(
        self, problem: Problem, partition: Partition, rho: Float[Array, " k"], chosen: Int[Array, " f"]
    ) -> Iterator[RowTangents] | None:
        """Each row; None if training is singular."""
        fits = self.fits.at(rho)
        if fits is None:
            return None
        rows, (split,) = partition.rows((0,)), split_problems(problem, partition)
        (factor, *_) = factors_of(self.fits, None)
        return (
            _MovingModel.of(system, fit.theta, sensitivity_of(fit, chosen), factor, self.loss).rows(
                split, rows[i : i + 1]
            )
            for i, (system, fit) in enumerate(zip(self.systems, fits, strict=True))
            if system.loss.weight > 0
        )


@dataclass(frozen=True, slots=True)
class _MovingModel:
    """The model of one fit of least squares in the first column, and its derivatives in the others."""

    centre: Centre
    levels: Float[Array, " f1"]
    slopes: Float[Array, "p f1"]
    factor: float
    loss: ResidualLoss

    @classmethod
    def of(
        cls,
        system: LeastSquaresSystem,
        theta: Float[Array, " p"],
        D: Float[Array, "p f"],
        factor: float,
        loss: ResidualLoss,
    ) -> _MovingModel:
        """From its theta and `dtheta/drho`."""
        moved = system.about_centre(np.column_stack([theta, D]))
        return cls(system.centre, *moved, factor, loss)

    def rows(self, problem: Problem, chunk: Int[Array, " v"]) -> RowTangents:
        """Of some rows of the problem, whose missing values are filled."""
        of_target = self.centre.of([-1])
        moved = centred(problem.X, chunk, self.centre.of(slice(-1))) @ self.slopes + self.levels
        eta, weights = of_target.high + (of_target.low + moved[:, :1]), self.factor * problem.score_weights(chunk)
        return RowTangents(chunk, problem.y[chunk], eta, weights, moved[:, None, 1:], self.loss)


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
        return None if fits is None else self._rows(*thetas_and_tangents(self.fits, rho, chosen))

    def _rows(self, thetas: list[Float[Array, " mq"]], tangents: list[Float[Array, "mq f"]]) -> Iterator[RowTangents]:
        factors = factors_of(self.fits, self.split_weights)
        for factor, system, theta, D in zip(factors, self.fits.systems, thetas, tangents, strict=True):
            yield from _rows_of(system, factor, theta, D)


def _rows_of(
    system: GeneralizedLinear, factor: float, theta: Float[Array, " mq"], D: Float[Array, "mq f"]
) -> Iterator[RowTangents]:
    """The scored rows of one split."""
    loss, (_, f) = system.loss, D.shape
    eta = loss.predictor(theta)
    for part, moved in loss.design.pieces(D, rows_of_chunk(eta.shape[1], f)):
        yield RowTangents(loss.design.rows[part], loss.y[part], eta[part], factor * loss.w[part], moved, loss.score)


def thetas_and_tangents(
    fits: HeldFits, rho: Float[Array, " k"], chosen: Int[Array, " f"]
) -> tuple[list[Float[Array, " p"]], list[Float[Array, "p f"]]]:
    """The minimizers of all splits, and `dtheta/drho` of the chosen hyperparameters, which may be none."""
    thetas = [fit.theta for fit in fits.at(rho) or ()]
    return thetas, fits.tangents(rho, chosen) if len(chosen) else [np.empty((len(theta), 0)) for theta in thetas]


def sensitivity_of(fit: SmoothFit, chosen: Int[Array, " f"]) -> Float[Array, "p f"]:
    """`dtheta/drho_j` of the chosen hyperparameters, which may be none."""
    return fit.sensitivity(chosen) if len(chosen) else np.empty((len(fit.theta), 0))
