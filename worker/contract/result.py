"""What a finished job returns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from worker.contract.notes import Note
from worker.contract.wire import Wire
from worker.core.family import ByKind, kind_of, members
from worker.core.inner.protocols import Solver
from worker.core.kernels import Kernel
from worker.core.losses.links import ColumnLink

MEASURES = (
    "Where training is of classes, measures without smoothing: `error_rate`; of two classes also `auc` and `f1`, both "
    "about the second class"
)
if TYPE_CHECKING:
    Link = str
else:  # a new link of the core is one of the document, too
    Link = Literal[tuple(kind_of(link) for link in members(ColumnLink))]


class Hyperparameter(Wire):
    """One tuned hyperparameter, in natural units."""

    name: str
    value: float
    initial: float
    at_bound: Literal["lower", "upper"] | None
    gradient: float = Field(description="dJ / d log(value) at the result; dJ / d value of one that is tuned as it is.")
    interval: tuple[float, float] | None = Field(
        default=None,
        description="95 %: `log(value)` and 1.96 of its standard deviations to both sides, more for few groups or "
        "blocks of rows, cut to the box. They are of the value that other rows of the same kind would give (the "
        "sandwich `H^-1 V H^-1`, V the covariance of the gradient over the validation rows). Of a likelihood: how far "
        "it can move, the others following at their best, before the criterion rises by half a nat, one standard "
        "deviation. "
        "Null at a bound, where the criterion is flat, where the search has not ended at a stationary point, and where "
        "the criterion has no gradients of rows.",
    )


class SelectionScore(Wire):
    """The selection criterion at the result: the mean loss over all validation rows, pooled over the splits."""

    value: float
    initial_value: float | None
    per_fold: list[float | None] = Field(
        description="The mean loss of each split; null for one whose validation rows all have the weight 0."
    )
    standard_error: float | None = Field(
        description="Of the mean loss of these models over validation rows, by clusters: the groups of the data or of "
        "the selection, the blocks that walk_forward scores, else single rows. Linear models with few rows for each "
        "column: and of how they move with the rows. It is not of the tuning, which lowered the value. Null when it "
        "is not known."
    )
    measures: dict[str, float | None] = Field(default_factory=dict, description=f"{MEASURES} over all validation rows.")
    optimism: float | None = Field(
        default=None,
        description="By how much tuning many hyperparameters on these rows has lowered the value; null if not known.",
    )
    corrected_value: float | None = Field(
        default=None,
        description="`value` plus `optimism`: the loss that new rows can expect. Each row, or each split if a "
        "score is of all rows together, is judged as if it had not taken part in the choice of the hyperparameters, "
        "to first order; null if not known.",
    )
    noise_variance: float | None = Field(default=None, description="What a likelihood says of the noise; else null.")
    delta: float | None = Field(default=None, description="Of the loss `huber`, in units of the target; else null.")


class NamedValue(Wire):
    """A hyperparameter with a value, in natural units."""

    name: str
    value: float


class Baseline(Wire):
    """The best value that all like hyperparameters share, on the same splits: what the result has to beat."""

    hyperparameters: list[NamedValue]
    value: float = Field(description="The selection criterion there.")
    difference: float = Field(description="`selection.value` less `value`: negative is better.")
    difference_se: float | None = Field(
        description="The standard error of the difference, over the same rows; null if it is not known."
    )


class SpreadPoint(Wire):
    """A point on the path of hyper-priors; the spread 0 is the baseline."""

    spread: float
    value: float | None
    corrected_value: float | None


class SpreadReport(Wire):
    """How far like hyperparameters were let to differ, and how that was chosen; see docs/new-rows.md."""

    chosen: float = Field(description="The scale of the hyper-prior on the logarithms; 0 is one shared value.")
    by: Literal["jackknife", "optimism", "nested", "fixed", "given"] | None = Field(
        description="`jackknife`: by what each row, or each split if a score is of all rows together, says as if it "
        "had not taken part in the tuning; `nested`: by the outer folds; "
        "`fixed`: where that is not known; `given`: by the request; null if a limit ended the search."
    )
    path: list[SpreadPoint]


class TestScore(Wire):
    """The mean loss on the rows that nothing was tuned or trained on."""

    value: float | None = Field(description="Null where the rows do not determine it, as when a class is missing.")
    standard_error: float | None = Field(
        default=None, description="Of the mean over the rows, by the same clusters; null when it is not known."
    )
    rows: int
    measures: dict[str, float | None] = Field(default_factory=dict, description=f"{MEASURES}.")


class NestedFold(Wire):
    """One outer fold: the mean loss of its refit on the rows left out, and what its own tuning had promised."""

    value: float | None = Field(description="Null where the refit failed, or all its rows have the weight 0.")
    selection_value: float | None = Field(description="Null where the selection criterion was not finite anywhere.")
    rows: int


class NestedScore(Wire):
    """Outer cross-validation of the whole tuning."""

    value: float | None = Field(description="Mean loss over all rows of the outer folds; null where a fold has none.")
    standard_error: float | None = Field(
        default=None,
        description="Of that mean over the rows of all folds, by the clusters of the selection; null when not known.",
    )
    optimism: float | None = Field(
        description="By how much the selection value is too low: `value` less the mean of the folds' own selection "
        "values; null where the selection criterion is no mean loss."
    )
    folds: list[NestedFold]


class Coefficient(Wire):
    """The coefficient of one original, unstandardized column."""

    feature: str
    value: float


class ExpandedColumn(Wire):
    """A column of the dataset that became features, other than itself as it is.

    Each of the first features is 1 where the column is the category beside it and 0 elsewhere; one that is called
    `COLUMN is missing` is 1 where the column has no value. Without categories the feature is the part of the date.
    """

    column: str
    part: str | None = Field(description="Of a date: which part is taken.")
    categories: list[str] | None
    features: list[str]


class FilledFeature(Wire):
    """What stands for a missing value of a feature: before it is multiplied by its coefficient."""

    feature: str
    value: float


class LinearModel(Wire):
    """Refitted on all rows less the test rows: `eta = intercept + sum of coefficient * feature` (+ offset of the row).

    `link` says what that predicts: `identity` eta itself, `log` the mean `exp(eta)`, `logit` the probability
    `1 / (1 + exp(-eta))` of the second of the `classes`, which is predicted where eta is positive, whatever the link.
    """

    kind: Literal["linear"] = "linear"
    link: Link = "identity"
    classes: list[str] | None = Field(default=None, description="Of classifiers: both, the second is the positive one.")
    intercept: float
    coefficients: list[Coefficient]
    columns: list[ExpandedColumn] = Field(description="How features come from columns; empty where they are the same.")
    fills: list[FilledFeature] = Field(description="Of the refit; each split of the selection had its own.")
    delta: float | None = Field(
        default=None, description="Of the training criterion `huber` in the refit, in units of the target; else null."
    )


class SplineTerm(Wire):
    """A smooth function of one feature: `scipy.interpolate.BSpline(knots, coefficients, degree)` within `range`.

    Beyond the range it is constant, or, where it is cyclic, repeats itself.
    """

    feature: str
    degree: int
    knots: list[float]
    coefficients: list[float]
    range: tuple[float, float]
    cyclic: bool


class AdditiveModel(LinearModel):
    """Refitted on all rows less the test rows: a linear model of some features plus smooth functions of others."""

    kind: Literal["additive"] = "additive"  # type: ignore[assignment]
    splines: list[SplineTerm]


class ClassModel(Wire):
    """The linear predictor of one class."""

    name: str
    intercept: float
    coefficients: list[Coefficient]


class MultinomialModel(Wire):
    """Refitted on all rows less the test rows: a linear predictor for each class.

    The probability of a class is `exp(eta)` of its predictor over the sum of these; the largest is predicted.
    """

    kind: Literal["multinomial"] = "multinomial"
    link: Literal["softmax"] = "softmax"
    classes: list[ClassModel]
    columns: list[ExpandedColumn] = Field(description="How features come from columns; empty where they are the same.")
    fills: list[FilledFeature] = Field(description="Of the refit; each split of the selection had its own.")


class Calibration(Wire):
    """Platt's line: the probability of the second class is `1 / (1 + exp(-(slope * eta + offset)))`."""

    slope: float
    offset: float


class KernelModel(Wire):
    """Refitted on all rows less the test rows: `eta = intercept + sum over support rows of coefficient * kernel`.

    The kernel is that of features less their `centre` and over their `scale`, with the fitted `values` of its
    hyperparameters. `link` and `classes` are those of linear models. `bytes` is the size of the support as numbers.
    """

    kind: Literal["kernel"] = "kernel"
    link: Link = "identity"
    classes: list[str] | None = Field(default=None, description="Of classifiers: both, the second is the positive one.")
    intercept: float
    kernel: Annotated[Kernel, ByKind(named=True)]
    values: dict[str, float] = Field(description="Hyperparameters of the kernel, by name.")
    features: list[str]
    centre: list[float]
    scale: list[float]
    support: list[list[float]] = Field(description="Rows in original units, filled where values were missing.")
    coefficients: list[float] = Field(description="One for each support row.")
    bytes: int
    calibration: Calibration | None = Field(
        default=None, description="Of platt_log_loss: fitted to the pooled validation rows at the result; else null."
    )
    columns: list[ExpandedColumn] = Field(description="How features come from columns; empty where they are the same.")
    fills: list[FilledFeature] = Field(description="Of the refit; each split of the selection had its own.")


class QuadraticModel(Wire):
    """The minimizer of the caller's own training criterion."""

    kind: Literal["quadratic"] = "quadratic"
    theta: list[float]


FittedModel = LinearModel | AdditiveModel | MultinomialModel | KernelModel | QuadraticModel


class CertificateSet(Wire):
    """Evidence for the result; see docs/certificates.md. Null where the job was stopped before it could be computed."""

    outer_gradient_norm: float | None
    inner_gradient_norm: float | None
    adjoint_residual: float | None
    finite_difference_error: float | None
    arithmetic_error: float | None = None
    refit_gradient_norm: float | None = Field(
        default=None,
        description="Of the returned model: the gradient of its training criterion at its coefficients, relative.",
    )
    point: Literal["minimum", "flat", "saddle"] | None = Field(
        default=None, description="Null unless the gradient vanishes to the tolerance of the search."
    )
    smallest_curvature: float | None = None


class StartReport(Wire):
    """What became of one starting point."""

    value: float | None
    initial_value: float | None
    spread: float | None = Field(
        default=None, description="Of the hyper-prior: 0 for a shared value, null without a prior."
    )
    gradient_norm: float | None
    iterations: int
    evaluations: int
    outcome: str | None = Field(description="Null where the job was cancelled before this start ended.")
    refused: int = Field(
        default=0, description="Evaluations at which training had no minimizer, so that the search turned back."
    )


class Counts(Wire):
    """Work done, over all starts. `factorizations` are those of the search; of iterative training, its fits."""

    iterations: int
    evaluations: int
    gradients: int
    factorizations: int
    scan: int = Field(default=0, description="Evaluations of the coarse scans, which are among `evaluations`.")


class Method(Wire):
    """What `auto` stood for."""

    hypergradient: str
    outer: str
    approximate: bool
    solver: Solver | None = Field(
        description="Which matrix is factored, that of the features or of the rows, or decomposed once for all trials; "
        "which Newton method trains; of `quadratic`, as what the matrix is factored; of kernels, with landmarks or not."
    )
    why: list[str] = Field(default_factory=list, description="A sentence for each choice that was left open.")


class Timing(Wire):
    """Seconds: in the queue, running (over all attempts), from creation to the end."""

    queued_s: float
    fit_s: float
    total_s: float


class Result(Wire):
    """Hyperparameters, fitted model, certificates."""

    job_id: str
    partial: bool = Field(
        description="Whether the search was cut short by a cancellation or a failure, or its refit by the time limit."
    )
    stop_reason: str | None
    message: str
    messages: list[str]
    notes: list[Note] = Field(
        default_factory=list, description="What `messages` says, for programs, as far as it is so."
    )
    hyperparameters: list[Hyperparameter]
    selection: SelectionScore
    baseline: Baseline | None = Field(
        default=None, description="Null with one hyperparameter, and where a note says why there is none."
    )
    spread: SpreadReport | None = Field(default=None, description="Null without a hyper-prior.")
    test: TestScore | None
    nested: NestedScore | None = None
    model: Annotated[FittedModel, Field(discriminator="kind")] | None
    certificates: CertificateSet
    starts: list[StartReport]
    counts: Counts
    method: Method
    timing: Timing
    versions: dict[str, str]
    fingerprint: str
