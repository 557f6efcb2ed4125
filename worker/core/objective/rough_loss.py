"""A warning if a training loss is hardly curved anywhere: J then has corners everywhere."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float

from worker.core.objective.fits import AnchoredFits
from worker.core.records import Array

SMALLEST_WEIGHT_WITHIN_DELTA = 0.05  # of training rows with residuals within delta (total 1); below it a remark warns
FEW_WITHIN_DELTA = (
    "Hardly a residual is within delta = {:g} of the Huber loss, which then is an absolute error with corners: the "
    "search is rough and may end early. Choose a larger training.delta, near the size of the noise."
)


@dataclass(frozen=True, slots=True)
class RoughLossRemark:
    """A sentence if few residuals are within the delta of a training loss that is straight beyond it."""

    fits: AnchoredFits

    def __call__(self, rho: Float[Array, " k"]) -> tuple[str, ...]:
        """The remark at a point, if any."""
        remarks: set[str] = set()
        for fit in self.fits.at(rho) or ():
            delta, curvatures = fit.at.of.loss.straight_beyond, fit.at.rows.curvatures
            if delta is not None and fit.shares.w @ curvatures()[:, 0, 0] < SMALLEST_WEIGHT_WITHIN_DELTA:
                remarks.add(FEW_WITHIN_DELTA.format(delta))
        return tuple(remarks)
