"""The interface of training to the rest of the core: one system for each split, and its fits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar, runtime_checkable

from jaxtyping import Float, Int

from worker.core.losses.over_rows import ScoredLoss, SumOfResiduals, ValidationLoss
from worker.core.penalties.forms import Penalized
from worker.core.records import Array
from worker.core.rows.centre import Centre
from worker.core.weights import Weighting

# the cotangent of a lower Cholesky factor, as a function of the factor
OfFactor = Callable[[Float[Array, "p p"]], Float[Array, "p p"]]
# primal, dual: one factorization, with a row for each feature or each training row; orthogonal: one of the rows
# themselves, for small tables whose moments lose digits; spectral: one decomposition for all rho; newton_*: iterations
# with factors or products of the Hessian; dense, banded, sparse: one factorization of the caller's matrix;
# kernel_matrix, landmarks: factorizations of a kernel matrix of all rows or of landmarks
Solver = Literal[
    "primal",
    "dual",
    "orthogonal",
    "spectral",
    "newton_cholesky",
    "newton_cg",
    "dense",
    "banded",
    "sparse",
    "kernel_matrix",
    "landmarks",
]
# with several outputs, an intercept and a row of slopes for each
Coefficients = tuple[float, Float[Array, " p"]] | tuple[Float[Array, " m"], Float[Array, "m p"]]


@dataclass(frozen=True, slots=True)
class Criterion:
    """The training criterion C at its minimum, and its first and second derivatives in rho at fixed theta."""

    value: float
    rho_bar: Float[Array, " k"]
    second: Callable[[], Float[Array, "k k"]]


@dataclass(frozen=True, slots=True)
class Leverages:
    """The training rows under the fit without each of them.

    The leverage of row i is `h_i = s_i q_i`, with its share `s_i` in C and `q_i = x_i^T H^-1 x_i`, plus 1 if an
    intercept was eliminated. `XP = X H^-1`. If `s_i` is zero, `q_i` and the row of XP do not matter and may be zero.
    """

    XP: Float[Array, "n p"]
    r: Float[Array, " n"]  # residuals, in units of the target
    q: Float[Array, " n"]
    remainders: Float[Array, " n"]  # `1 - h_i`


@runtime_checkable
class Sweep(Protocol):
    """Reverse-mode differentiation of a fit through its Cholesky factorization (Bengio 2000, section 3)."""

    def __call__(self, bar: Float[Array, " p"], of_factor: OfFactor | None = None) -> Float[Array, " k"]:
        """`d(bar . scored)/drho`, plus the part of a criterion that depends on the factor L of H directly.

        `of_factor` gives the cotangent of L. Raises ValueError with it if another matrix than H is factored.
        """


@runtime_checkable
class Fit(Protocol):
    """A minimizer of the training criterion C at one rho, and how what is scored moves with rho.

    What the selection loss takes is theta, or the predictors of the scored rows where these depend on rho directly.
    """

    @property
    def scored(self) -> Float[Array, " q"]:
        """What the selection loss takes."""

    def pullback(self, bar: Float[Array, " q"]) -> Float[Array, " k"]:
        """`d(bar . scored)/drho`, by the implicit function theorem: one adjoint solve."""

    def adjoint_residual(self, bar: Float[Array, " q"]) -> float:
        """The relative residual of the adjoint system that `pullback` solves."""

    def inner_gradient_norm(self) -> float:
        """The relative norm of `dC/dtheta`."""

    @property
    def sweep(self) -> Sweep | None:
        """`pullback` by reverse-mode differentiation; None without a Cholesky factor of the system of theta."""


@runtime_checkable
class SmoothFit(Fit, Protocol):
    """A fit whose theta is scored, with the derivatives that a Hessian of J takes.

    `H = d2C/dtheta2` and `g = dC/dtheta`; `H_j`, `g_j`, `g_jl` are their derivatives in rho at fixed theta.
    """

    @property
    def theta(self) -> Float[Array, " p"]:
        """The minimizer."""

    def solve(self, b: Float[Array, " p *m"]) -> Float[Array, " p *m"]:
        """`H^-1 b`."""

    def apply(self, v: Float[Array, " p *m"]) -> Float[Array, " p *m"]:
        """`H v`."""

    def gradient(self) -> Float[Array, " p"]:
        """`g` at theta."""

    def contract(self, u: Float[Array, " p"]) -> Float[Array, " k"]:
        """`u^T g_j`."""

    def curvature(self, u: Float[Array, " p"]) -> Float[Array, "k k"]:
        """`u^T g_jl`."""

    def sensitivity(self, chosen: Int[Array, " f"]) -> Float[Array, "p f"]:
        """`dtheta/drho_j` for the chosen hyperparameters, ascending indices."""

    def contract_columns(self, u: Float[Array, " p"], D: Float[Array, "p f"]) -> Float[Array, "k f"]:
        """`u^T H_j D_l` for each hyperparameter j and each column of D."""

    def third(self, u: Float[Array, " p"], D: Float[Array, "p f"]) -> Float[Array, "f f"]:
        """The third derivative of C in theta along u and each pair of columns of D."""


@runtime_checkable
class InRho(Protocol):
    """The derivatives of a criterion of least squares in rho at fixed theta, at the minimizer theta.

    The criterion is `theta^T H theta / 2 - b^T theta + ...` with H and b independent of theta. `H_j`, `b_j`, `H_jl`,
    `b_jl` are their derivatives, so that `g_j = H_j theta - b_j`. The first hyperparameters are those of the penalty.
    """

    @property
    def penalty(self) -> Penalized:
        """The total penalty at this rho."""

    @property
    def one_entry_each(self) -> bool:
        """Whether `H_j` has a single entry, on the diagonal in column j, and `b_j` is zero."""

    def contract(self, u: Float[Array, " p"]) -> Float[Array, " k"]:
        """`u^T g_j`."""

    def curvature(self, u: Float[Array, " p"]) -> Float[Array, "k k"]:
        """`u^T g_jl`."""

    def columns(self, chosen: Int[Array, " f"]) -> Float[Array, "p f"]:
        """`g_j` for the chosen hyperparameters, ascending indices; Fortran-ordered."""

    def contract_columns(self, u: Float[Array, " p"], D: Float[Array, "p f"]) -> Float[Array, "k f"]:
        """`u^T H_j D_l` for each hyperparameter j and each column of D."""

    def contract_matrix(self, H_bar: Float[Array, "p p"]) -> Float[Array, " k"]:
        """`<H_bar, H_j>` for each hyperparameter; H_bar symmetric."""

    def contract_system(self, H_bar: Float[Array, "p p"], b_bar: Float[Array, " p"]) -> Float[Array, " k"]:
        """`<H_bar, H_j> + b_bar . b_j` for each hyperparameter; H_bar symmetric."""

    def curvature_matrix(self, H_bar: Float[Array, "p p"]) -> Float[Array, "k k"]:
        """`<H_bar, H_jl>` for each pair; H_bar symmetric."""

    def forms(self, W: Float[Array, "n p"]) -> Float[Array, "n k"]:
        """`w_i^T H_j w_i` for each row of W and each hyperparameter."""

    def pairs(self, P: Float[Array, "p p"], S: Float[Array, "p p"]) -> Float[Array, "k k"]:
        """The symmetric part of `tr(H_j P H_l S)`; P and S symmetric."""

    def shares_of(self, base: Float[Array, " n"]) -> Weighting:
        """The share of each training row in C, with its derivatives; `base` are the fixed weights."""

    def criterion(self, value: float) -> Criterion:
        """C, whose minimum is `value`, with its derivatives."""


@runtime_checkable
class OfInverse(Protocol):
    """Functions of the inverse of H, the Hessian of a criterion of least squares, with their derivatives in rho."""

    def log_determinant_gradient(self) -> Float[Array, " k"]:
        """The derivatives of `log |H|`, `<H^-1, H_j>`."""

    def log_determinant_hessian(self) -> Float[Array, "k k"]:
        """The second derivatives of `log |H|`, `<H^-1, H_jl> - tr(H_j H^-1 H_l H^-1)`."""

    def hat_trace(self) -> tuple[float, Float[Array, " k"]]:
        """The trace of the hat matrix, `tr(H^-1 (H - P))`, and its derivatives."""

    def hat_trace_hessian(self) -> Float[Array, "k k"]:
        """The second derivatives of the trace of the hat matrix."""

    def leverages(
        self, X: Float[Array, "n p"], r: Float[Array, " n"], shares: Float[Array, " n"], level: float
    ) -> Leverages:
        """Of the training rows X with the residuals r and the `shares`; `level` is 1 if an intercept was eliminated.

        Residuals come back as they are, or with more digits.
        """

    def contract_rows(self, W: Float[Array, "n p"], bar: Float[Array, " n"]) -> Float[Array, " k"]:
        """`sum_i bar_i w_i^T H_j w_i`: minus the derivatives of `sum_i bar_i q_i`, from the rows `w_i = H^-1 x_i`."""

    def rows_hessian(self, W: Float[Array, "n p"], bar: Float[Array, " n"]) -> Float[Array, "k k"]:
        """The second derivatives of `sum_i bar_i q_i`, from the rows `w_i = H^-1 x_i`.

        `sum_i bar_i (2 w_i^T H_j H^-1 H_l w_i - w_i^T H_jl w_i)`.
        """


@runtime_checkable
class LeastSquaresFit(SmoothFit, Protocol):
    """A fit of a mean squared error of rows plus a penalty, with what selection criteria need of its Hessian."""

    @property
    def in_rho(self) -> InRho:
        """The derivatives of C in rho at fixed theta."""

    @property
    def of_inverse(self) -> OfInverse:
        """Functions of `H^-1`."""

    def inverse(self) -> Float[Array, "p p"]:
        """`H^-1`."""

    def kept(self) -> float:
        """The smallest fraction that subtractions have left of a number; its reciprocal is the loss of digits."""

    def log_determinant(self) -> float:
        """`log |H|`."""

    def criterion(self) -> Criterion:
        """C at theta with its derivatives in rho at fixed theta."""


F_co = TypeVar("F_co", bound=Fit, covariant=True)


@runtime_checkable
class System(Protocol[F_co]):
    """The training problem of one split, with the loss that scores it."""

    @property
    def loss(self) -> ScoredLoss:
        """The loss over the validation rows."""

    @property
    def solver(self) -> Solver:
        """The method that finds the minimizer: see `Solver`."""

    def fit(self, lam: Float[Array, " k"]) -> F_co | None:
        """The minimizer at natural hyperparameters, or None if the system is singular to working precision."""


S_co = TypeVar("S_co", bound=SmoothFit, covariant=True)


@runtime_checkable
class LinearSystem(System[S_co], Protocol[S_co]):
    """A system whose theta are the coefficients of linear predictors."""

    @property
    def loss(self) -> ValidationLoss:
        """The loss over the validation rows."""

    def coefficients(self, theta: Float[Array, " p"]) -> Coefficients:
        """Intercept and slopes of the model in original units."""


@runtime_checkable
class LeastSquaresSystem(LinearSystem[LeastSquaresFit], Protocol):
    """A system of least squares."""

    @property
    def loss(self) -> SumOfResiduals:
        """The loss over the validation rows."""

    @property
    def centre(self) -> Centre:
        """The point of `[X, y]`, in original units, that rows are relative to."""

    def about_centre(self, theta: Float[Array, "p f"]) -> tuple[Float[Array, " f"], Float[Array, "q f"]]:
        """Level and slopes of predictors relative to the centre, for each column of theta: linear in theta."""

    def from_rows(self, levels: Float[Array, " f"], slopes: Float[Array, "q f"]) -> Float[Array, "p f"]:
        """The cotangents of theta from those of levels and slopes: the transpose of `about_centre`."""
