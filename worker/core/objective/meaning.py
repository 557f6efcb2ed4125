"""What a value of J means: a mean loss, one value of the sample, or nats."""

from __future__ import annotations

from dataclasses import dataclass

HALF_A_NAT = 0.5  # the rise of minus a log-likelihood within one standard deviation of a Gaussian


@dataclass(frozen=True, slots=True)
class Meaning:
    """`is_mean_loss`: J is a mean of the loss over rows, comparable with a score on other rows.

    `nats`: the rows (or the sum of their weights) whose log-likelihood minus J is; None if J is none. `smallest_unit`:
    smaller values of J count as zero.
    """

    is_mean_loss: bool = True
    nats: float | None = None
    smallest_unit: float = 0.0

    def unit(self, value: float) -> float:
        """The unit for changes of J near `value`: J itself, or one nat for each row, as then J has no natural zero."""
        return self.nats if self.nats is not None else max(abs(value), self.smallest_unit) or 1.0


MEAN_LOSS = Meaning()
ONE_VALUE = Meaning(is_mean_loss=False)  # of the whole sample
