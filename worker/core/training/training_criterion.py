"""The written interface of a training criterion: what every other room may ask of one.

A member of the family `Training` is a frozen dataclass of settings that derives from `TrainingCriterion`. Nobody asks
for its class: what only some criteria have are its `parts`, each present or None, and what a selection criterion, a
hypergradient method or an outer optimizer needs are capabilities (`worker/core/capabilities.py`) that parts stand for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int

from worker.core.capabilities import Capability, Misfit
from worker.core.costs import Sizes, TrainingCost
from worker.core.hypergradient import ExactHypergradient
from worker.core.hyperparameters import Hyperparameters
from worker.core.inner.given.matrix_sum import SumSystem
from worker.core.inner.kernel.kernel_fit import Split
from worker.core.inner.kernel.kernel_model import KernelModel
from worker.core.inner.least_squares.accurate import AccurateFit, AccurateKind
from worker.core.inner.linear_model import LinearModel
from worker.core.inner.protocols import LeastSquaresSystem
from worker.core.inner.smooth.fit import GeneralizedLinear
from worker.core.kernels import KernelFunction
from worker.core.linalg.assembled import Shape
from worker.core.losses import PredictorScore, ResidualLoss, SelectionLoss
from worker.core.losses.relative import Length
from worker.core.losses.training import MachineLoss, TrainingLoss
from worker.core.objective.objective import Objective
from worker.core.objective.whole_sample import Sample
from worker.core.records import Array
from worker.core.rows.problem import Partition, Problem

Model = LinearModel | KernelModel


@runtime_checkable
class OnRows(Protocol):
    """The part of a criterion that trains on rows of a table: its loss, and J as a mean over validation rows."""

    @property
    def length(self) -> Length | None:
        """The size of residuals at which the training loss bends, as it was given; None without such a size."""

    def row_loss(self, problem: Problem, rows: Int[Array, " m"] | None = None) -> TrainingLoss | MachineLoss:
        """The loss of a row in a split that trains on these rows; its link makes predictions from linear predictors.

        Without rows, a loss in units of the target's spread has the unit 1.
        """

    def score(self, loss: SelectionLoss | None) -> SelectionLoss:
        """The selection loss, or the default for None. Raises ValueError if it does not fit."""

    def selection_loss(self, problem: Problem, loss: SelectionLoss | None, rows: Int[Array, " m"]) -> PredictorScore:
        """The same, complete: a deviance has the family of the training loss, a delta the units of these rows."""

    def mean_of_splits(
        self,
        problem: Problem,
        partition: Partition,
        loss: SelectionLoss | None,
        split_weights: Float[Array, " s"] | None,
        hypergradient: ExactHypergradient,
        trials: int,
    ) -> Objective:
        """The mean selection loss over the validation rows of all splits.

        `trials`: about how many evaluations it will have. Raises ValueError if a split lacks what training needs.
        """


@runtime_checkable
class LeastSquaresTraining(Protocol):
    """The part of a criterion that is a mean squared error of rows plus a quadratic penalty."""

    def systems(
        self,
        problem: Problem,
        partition: Partition,
        *,
        loss: ResidualLoss | None = None,
        dual: bool | None = None,
        left_out: bool = False,
        trials: int = 1,
    ) -> list[LeastSquaresSystem]:
        """One training system for each split, with a loss that scores residuals; squared error by default.

        `dual`: whether the n x n matrix is factored; None chooses by cost. `left_out`: rows are scored under fits
        without them.
        """

    def refits(self, problem: Problem, rows: Int[Array, " m"], loss: ResidualLoss) -> list[LeastSquaresSystem] | None:
        """A system without each row, which is scored; None unless a closed form would lose digits."""

    def columns(self, problem: Problem) -> int:
        """The number of penalized coefficients."""

    def sample(self, problem: Problem, rows: Int[Array, " m"]) -> Sample:
        """What criteria of one fit on these rows know of them."""

    def accurate_fits(
        self, problem: Problem, partition: Partition, lam: Float[Array, " k"], kind: AccurateKind
    ) -> list[AccurateFit] | None:
        """The fits with about 32 digits; None if one is singular."""

    def of_moments(self) -> TrainingCriterion:
        """The same criterion, which never factors rows."""


@runtime_checkable
class KernelMatrixTraining(Protocol):
    """The part of a criterion with squared loss in the space of a kernel, whose whole kernel matrix is used."""

    def function(self, problem: Problem) -> KernelFunction:
        """The kernel over the features of the problem."""

    def trained_rows(self, problem: Problem, partition: Partition) -> Split:
        """All rows with a positive weight, for a criterion of one fit on all of them."""

    def check_left_out(self, problem: Problem, rows: Int[Array, " m"]) -> None:
        """Raises ValueError if leave-one-out would score rows that do not train."""


@runtime_checkable
class CurvedTraining(Protocol):
    """The part of a criterion that is a smooth loss of linear predictors, with the Hessian's factor at its minimum."""

    def factored_systems(
        self, problem: Problem, partition: Partition, loss: SelectionLoss | None = None
    ) -> list[GeneralizedLinear]:
        """One training system for each split; each fit has the factor of its Hessian."""

    def selection_loss(self, problem: Problem, loss: SelectionLoss | None, rows: Int[Array, " m"]) -> PredictorScore:
        """As of `OnRows`."""

    def check_factor(self, problem: Problem) -> None:
        """Raises ValueError if that factor is too large for memory. Needs no rows."""


@runtime_checkable
class OwnCriteria(Protocol):
    """The part of a criterion that the caller brings as matrices."""

    def system(self, problem: Problem, *, shape: Shape | None = None) -> SumSystem:
        """The training system; `shape` None takes the cheapest factorization."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What only some training criteria have.

    `likelihood`: the curved part, where the loss is a likelihood of rows with fixed weights. `has_hessian`: J as a mean
    over splits has an exact Hessian. `has_factor`: fits can be differentiated through their Cholesky factor.
    `withheld`: what other settings would offer: the field to change, and words that follow the name of what needs it.
    """

    rows: OnRows | None = None
    least_squares: LeastSquaresTraining | None = None
    kernel_matrix: KernelMatrixTraining | None = None
    curved: CurvedTraining | None = None
    likelihood: CurvedTraining | None = None
    own: OwnCriteria | None = None
    has_hessian: bool = False
    has_factor: bool = False
    withheld: Mapping[Capability, tuple[str, str]] = field(default_factory=dict)

    @property
    def offers(self) -> frozenset[Capability]:
        """The capabilities that these parts are."""
        present = {
            Capability.ROWS: self.rows is not None,
            Capability.LEAST_SQUARES: self.least_squares is not None,
            Capability.KERNEL_MATRIX: self.kernel_matrix is not None,
            Capability.CURVATURE: self.curved is not None,
            Capability.LIKELIHOOD: self.likelihood is not None,
            Capability.OWN_MATRICES: self.own is not None,
            Capability.HESSIAN: self.has_hessian,
            Capability.CHOLESKY_FACTOR: self.has_factor,
        }
        return frozenset(capability for capability, is_present in present.items() if is_present)


class TrainingCriterion(ABC):
    """C(theta; rho), which is minimized over theta: its settings as fields, with a `kind: Literal[...]`.

    Problems hold rows, features and their roles; `rho` and `lam` are hyperparameters on the scale of the search and in
    natural units. Methods that need no rows say so: they also serve a submission whose data are not read yet.
    """

    __slots__ = ()

    kind: str

    @property
    @abstractmethod
    def parts(self) -> Parts:
        """What this criterion has, with these settings."""

    @property
    @abstractmethod
    def classifies(self) -> bool:
        """Whether the target is a class."""

    @property
    @abstractmethod
    def most_classes(self) -> int | None:
        """The largest number of classes; None without a limit."""

    @property
    @abstractmethod
    def refuses_offset(self) -> str | None:
        """Why a known part of the linear predictor is refused, with the remedy; None if it is taken."""

    @staticmethod
    @abstractmethod
    def example() -> Problem:
        """A small problem for this criterion, which all suites of tests take: see `examples.py`."""

    @property
    @abstractmethod
    def needs_variances(self) -> bool:
        """Whether boxes depend on the variances of columns: without them the numbers of boxes are not known."""

    @abstractmethod
    def hyperparameters(self, problem: Problem) -> Hyperparameters:
        """Names, boxes and initial values, in the order of `lam`. Needs no rows, except for units of boxes.

        Raises ValueError if a setting does not fit the features.
        """

    @abstractmethod
    def misfits(self, problem: Problem, rows: int) -> Iterator[Misfit]:
        """Settings that do not fit the columns, or are too large for so many rows (zero if not known). Needs no rows.

        Paths begin with `training`.
        """

    @abstractmethod
    def check_target(self, problem: Problem) -> None:
        """Raises ValueError (RowError for a single row) if a target cannot be trained on."""

    @abstractmethod
    def check_splits(self, problem: Problem, partition: Partition, loss: SelectionLoss | None) -> None:
        """Raises ValueError if a split lacks what training or the selection loss needs."""

    @abstractmethod
    def expanded(self, problem: Problem, rows: Int[Array, " m"]) -> Problem:
        """The problem with the columns that training makes itself, such as spline bases over the range of these rows.

        And with the variances of columns over these rows, if boxes depend on them.

        Raises ValueError if they do not fit the features or their values.
        """

    @abstractmethod
    def prefers_inexact(self, problem: Problem) -> bool:
        """Whether fits that are not exact cost much less, so that J is best evaluated inexactly. Needs no rows."""

    @abstractmethod
    def cost(self, problem: Problem, sizes: Sizes) -> TrainingCost:
        """The solver with the flops and bytes that it takes for these sizes. Needs no rows."""

    @abstractmethod
    def model(self, problem: Problem, rows: Int[Array, " m"], lam: Float[Array, " k"]) -> Model | None:
        """The model of these rows, whose missing values are filled; None if training is singular."""

    @abstractmethod
    def observations(self, problem: Problem, rows: Int[Array, " m"], partition: Partition) -> tuple[str, ...]:
        """Remarks about columns of the trained rows that the user should read, and about splits with few rows."""

    @abstractmethod
    def penalties_of_separable(self, problem: Problem) -> int:
        """How many of the first hyperparameters alone keep coefficients of separated classes finite; zero if none."""
