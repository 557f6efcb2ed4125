"""What a job says about its data: a table in the request itself, or the columns of a dataset and their roles."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    ConfigDict,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    Tag,
    model_serializer,
)

from worker.contract.dataset import DATASET_ID
from worker.contract.wire import Wire

Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
ColumnName = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
Numbers = Annotated[list[float], Tag("[numbers]")]
Names = Annotated[list[Name], Tag("[names]")]
Index = Annotated[int, Field(ge=0, lt=2**31)]
Day = Literal["days", "year", "month", "day", "weekday", "day_of_year", "hour"]


def _numbers_or_names(value: Any) -> str:
    return "[names]" if isinstance(value, list) and value and isinstance(value[0], str) else "[numbers]"


class InlineData(Wire):
    """A table in the request itself: `x` row by row, `y` with one target a row."""

    x: list[list[float]] = Field(description="Rows of features, all of one length; finite numbers.")
    y: Annotated[Numbers | Names, Discriminator(_numbers_or_names)] = Field(
        description="The target of each row: a number, or where training is of classes a number or a name."
    )
    features: list[Name] | None = Field(
        default=None, description="Names of the columns of `x`, all different. Default: x0, x1, ..."
    )
    time: list[float] | None = Field(default=None, description="The time of each row, in any unit.")
    groups: list[Annotated[int, Field(ge=-(2**63), le=2**64 - 1)]] | None = Field(
        default=None, description="The group of each row, which `group_k_fold` keeps together."
    )
    weights: list[Annotated[float, Field(ge=0)]] | None = Field(
        default=None, description="The weight of each row, not negative."
    )
    scoring: list[Annotated[float, Field(ge=0)]] | None = Field(
        default=None, description="The weight of each row where it is scored. Default: `weights`."
    )
    source: list[Name] | None = Field(default=None, description="Where each row comes from, a name.")
    fold: list[Annotated[int, Field(ge=0, lt=1000)]] | None = Field(
        default=None, description="The fold of each row for `given_folds`, counted from 0."
    )
    offset: list[float] | None = Field(
        default=None, description="A known part of the linear predictor of each row, as the logarithm of an exposure."
    )


class SparseMatrix(Wire):
    """A matrix by its entries: `values[i]` in row `rows[i]` and column `columns[i]`, counted from 0.

    Both triangles of a symmetric matrix are given; entries that are not given are zero, those given twice are added.
    """

    rows: list[Index]
    columns: list[Index]
    values: list[float]


def _form(value: Any) -> str:
    return "[sparse]" if isinstance(value, dict | SparseMatrix) else "[dense]"


MatrixItem = Annotated[
    Annotated[list[list[float]], Tag("[dense]")] | Annotated[SparseMatrix, Tag("[sparse]")], Discriminator(_form)
]


class SelectionTerms(Wire):
    """`E = constant + vector^T theta + theta^T matrix theta / 2`."""

    matrix: MatrixItem | None = Field(default=None, description="Symmetric. Default: zero.")
    vector: list[float] | None = Field(default=None, description="Default: zero.")
    constant: float = 0.0


class MatricesData(Wire):
    """Criteria of the caller's own, for the training and selection criterion `quadratic`, instead of a table.

    `C = theta^T H theta / 2 - b^T theta` with `H = A_0 + sum_j h_j A_j` and `b = b_0 + sum_j h_j b_j`. Matrices are
    symmetric, dense row by row or by their entries; null stands for a zero matrix or vector, and so does what a
    shorter list lacks.
    """

    matrices: list[MatrixItem | None] = Field(description="`A_0, A_1, ..., A_k`.")
    vectors: list[list[float] | None] = Field(
        description="`b_0, b_1, ..., b_k`; b_0 is required and says how many parameters there are."
    )
    selection: SelectionTerms = Field(description="What is minimized over the hyperparameters.")


class AllBut(Wire):
    """Every column that has no other role, except these (names or patterns)."""

    all_but: list[ColumnName]


def _item(value: Any) -> str:
    return "[all_but]" if isinstance(value, dict | AllBut) else "[name]"


FeatureItem = Annotated[
    Annotated[ColumnName, Tag("[name]")] | Annotated[AllBut, Tag("[all_but]")], Discriminator(_item)
]


class Fill(Wire):
    """What a missing number is replaced by, computed on the training rows of each split.

    A missing category becomes a category of its own, whatever is said here.
    """

    fill: Literal["mean", "median", "constant"] = "mean"
    value: float = Field(default=0.0, description="The constant.")
    indicator: bool = Field(default=False, description="Whether having been missing becomes a feature.")


class Missing(Wire):
    """How missing values of features are filled. Columns that no rule is given for may have none."""

    default: Fill | None = Field(default=None, description="For every column that is not listed.")
    columns: dict[ColumnName, Fill] = Field(default_factory=dict, description="For single columns.")


def _number_or_text(value: Any) -> str:
    return "[text]" if isinstance(value, str) else "[number]"


Value = Annotated[
    Annotated[float, Tag("[number]")] | Annotated[str, StringConstraints(max_length=10_000), Tag("[text]")],
    Discriminator(_number_or_text),
]
Values = Annotated[list[Value], Field(min_length=1, max_length=10_000)]


class RowRange(Wire):
    """Keeps the rows whose value in `column` meets everything that is said here; a missing value never does.

    Numbers are compared with numbers, texts with texts, dates with dates of ISO 8601 (`2024-03-01`,
    `2024-03-01T12:00:00Z`; UTC unless they say otherwise). A date without a time of day stands for the whole day.
    """

    model_config = ConfigDict(validate_by_alias=True, validate_by_name=False, serialize_by_alias=True)

    column: ColumnName
    min: Value | None = Field(default=None, description="Least value, included. Numbers and dates only.")
    max: Value | None = Field(default=None, description="Largest value, included. Numbers and dates only.")
    equals: Value | None = Field(default=None, description="The one value.")
    among: Values | None = Field(default=None, alias="in", description="One of these values.")
    not_in: Values | None = Field(default=None, description="None of these values.")

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The conditions that are set, and `min` and `max`, so that fingerprints are those of earlier versions."""
        written: dict[str, Any] = handler(self)
        return {name: value for name, value in written.items() if value is not None or name in {"min", "max"}}


class DatasetData(Wire):
    """Columns of an uploaded dataset and what they are for."""

    dataset_id: Annotated[str, StringConstraints(pattern=f"^{DATASET_ID}$")]
    target: ColumnName = Field(
        description="The column to predict: a number; where training is of classes also a text, or one of at most 100 "
        "different numbers."
    )
    features: list[FeatureItem] | None = Field(
        default=None,
        description="Names, patterns (`x*`), or `{'all_but': [...]}`. Default: every column without another role.",
    )
    categorical: list[ColumnName] = Field(
        default_factory=list, description="Columns of numbers that are categories: at most 100 different values."
    )
    dates: dict[ColumnName, Annotated[list[Day], Field(min_length=1)]] = Field(
        default_factory=dict,
        description="What a date among the features becomes: numbers (`days` since 1970, `year`, `day`, `day_of_year`) "
        "or categories (`month`, `weekday`, `hour`).",
    )
    time: ColumnName | None = Field(default=None, description="Orders the rows: a number or a date.")
    groups: ColumnName | None = Field(default=None, description="Rows with one value stay together in `group_k_fold`.")
    weights: ColumnName | None = Field(default=None, description="The weight of each row, not negative.")
    scoring: ColumnName | None = Field(
        default=None, description="The weight of each row where it is scored. Default: that of `weights`."
    )
    source: ColumnName | None = Field(default=None, description="Where each row comes from.")
    fold: ColumnName | None = Field(default=None, description="The fold of each row for `given_folds`, from 0.")
    offset: ColumnName | None = Field(default=None, description="A known part of the linear predictor of each row.")
    missing: Missing | None = Field(default=None, description="Default: missing values are refused.")
    where: Annotated[list[RowRange], Field(max_length=100)] = Field(
        default_factory=list, description="Which rows are used: those that meet all of these conditions."
    )


class StoredDatasetData(DatasetData):
    """The columns of a dataset as any version stored them: settings that no longer exist are ignored."""

    model_config = ConfigDict(extra="ignore")


SHARED = set(InlineData.model_fields) & set(DatasetData.model_fields)


FORMS: dict[str, type[Wire]] = {"[inline]": InlineData, "[dataset]": DatasetData, "[matrices]": MatricesData}


def _which(value: Any) -> str:
    """The form that shares most field names with what was sent; inline data if no form shares any."""
    if isinstance(value, Wire):
        return next(tag for tag, form in FORMS.items() if isinstance(value, form))
    names = set(value) if isinstance(value, dict) else set()
    return max(FORMS, key=lambda tag: len(names & (set(FORMS[tag].model_fields) - SHARED)))


Data = Annotated[
    Annotated[InlineData, Tag("[inline]")]
    | Annotated[DatasetData, Tag("[dataset]")]
    | Annotated[MatricesData, Tag("[matrices]")],
    Discriminator(_which),
]
ROLES = ("time", "groups", "weights", "source", "fold", "scoring", "offset")
WEIGHTS = ("weights", "scoring")
