"""The automatic choice of the hypergradient method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from worker.core.capabilities import Need
from worker.core.hypergradient.implicit import Implicit


@dataclass(frozen=True, slots=True)
class HypergradientAuto:
    """The cheapest exact method for the job: `implicit`."""

    kind: Literal["auto"] = "auto"

    needs: ClassVar[tuple[Need, ...]] = ()

    def resolve(self) -> Implicit:
        """The method that is used."""
        return Implicit()
