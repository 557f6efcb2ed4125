"""The automatic choice of the hypergradient method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from worker.core.hypergradient.implicit import Implicit


@dataclass(frozen=True, slots=True)
class HypergradientAuto:
    """The cheapest exact method for the job: `implicit`."""

    kind: Literal["auto"] = "auto"

    def resolve(self) -> Implicit:
        """The method that is used."""
        return Implicit()
