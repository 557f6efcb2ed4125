"""The hypergradient by the implicit function theorem."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxtyping import Float

from worker.core.capabilities import Need
from worker.core.hypergradient.hessian_dependence import HessianDependence
from worker.core.inner.protocols import Fit
from worker.core.records import Array


@dataclass(frozen=True, slots=True)
class Implicit:
    """Implicit function theorem: one adjoint solve with the factor that training computed.

    `H u = dE/dtheta`, `dJ/drho = -(d2C/dtheta drho)^T u` (Bengio 2000, section 4; Foo, Do and Ng 2007; Pedregosa 2016).
    The cost does not depend on the number of hyperparameters.
    """

    kind: Literal["implicit"] = "implicit"

    needs: ClassVar[tuple[Need, ...]] = ()
    needs_primal_factor: ClassVar[bool] = False  # whether it takes the factor of H itself, p x p

    def resolve(self) -> Implicit:
        """Itself."""
        return self

    def __call__(
        self, fit: Fit, bar: Float[Array, " q"], matrix: HessianDependence | None = None
    ) -> Float[Array, " k"]:
        """`dJ/drho` of one split from the cotangent of what is scored, and the dependence of E on H, if any."""
        gradient = fit.pullback(bar)
        return gradient if matrix is None else gradient + matrix.to_rho()
