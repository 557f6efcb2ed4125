"""The row tangents of kernel machines, whose predictors move with the coefficients and with the kernel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from jaxtyping import Float, Int

from worker.core.inner.kernel.kernel_fit import KernelSystem
from worker.core.inner.kernel.kernel_model import MOST_KERNEL_VALUES
from worker.core.kernels import Points
from worker.core.objective.fits import SuccessiveFits
from worker.core.objective.mean_of_splits import factors_of
from worker.core.objective.row_tangents import RowTangents, rows_of_chunk
from worker.core.records import Array
from worker.core.rows.problem import Partition, Problem


@dataclass(frozen=True, slots=True)
class TangentsOfMachines:
    """Of kernel machines that are fitted one at a time; what is kept of a fit is no matrix of its rows."""

    fits: SuccessiveFits
    split_weights: Float[Array, " splits"] | None = None

    def __call__(
        self, problem: Problem, partition: Partition, rho: Float[Array, " k"], chosen: Int[Array, " f"]
    ) -> Iterator[RowTangents] | None:
        """The rows of each split; None if training has no minimizer."""
        machines, factors = list[_MovingMachine](), factors_of(self.fits, self.split_weights)
        for factor, system, fit in zip(factors, self.fits.systems, self.fits.each(rho), strict=True):
            if fit is None:
                return None
            moved, model = fit.tangents(), (fit.coefficients, fit.minimum.b)
            of_rho = moved.coefficients[:, chosen], moved.b[chosen]
            machines.append(_MovingMachine(system, fit.lam, factor, fit.support, *model, *of_rho))
        of_kernel = chosen[chosen > 0] - 1
        validation = [partition.rows(blocks) for _, blocks in partition.splits]
        pairs = zip(machines, validation, strict=True)
        return (chunk for machine, rows in pairs for chunk in machine.chunks(rows, of_kernel))


@dataclass(frozen=True, slots=True)
class _MovingMachine:
    """The machine of one split, and its derivatives in the chosen hyperparameters."""

    system: KernelSystem
    lam: Float[Array, " k"]
    factor: float
    support: Points
    coefficients: Float[Array, " s"]
    b: float
    coefficients_dot: Float[Array, "s f"]
    b_dot: Float[Array, " f"]

    def chunks(self, rows: Int[Array, " v"], of_kernel: Int[Array, " q"]) -> Iterator[RowTangents]:
        """The scored rows, with these numbers; `of_kernel` are the chosen hyperparameters of the kernel."""
        split, loss, f = self.system.split, self.system.loss, len(self.b_dot)
        size = min(rows_of_chunk(1, f), max(1, MOST_KERNEL_VALUES // len(self.support)))
        for begin in range(0, len(rows), size):
            part = slice(begin, begin + size)
            kernel = self.system.kernel.at(split.scored.rows(part), self.support, self.lam[1:])
            eta = kernel.K @ self.coefficients + self.b
            D = kernel.K @ self.coefficients_dot + self.b_dot
            D[:, f - len(of_kernel) :] += kernel.along(self.coefficients)[:, of_kernel]
            weights = self.factor * loss.w[part]
            yield RowTangents(rows[part], loss.y[part], eta[:, None], weights, D[:, None], loss.score)
