"""A dataset: what a table is called, what its columns are, and how its canonical form lies in files."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from worker.contract.wire import Wire

Format = Literal["csv", "parquet", "arrow", "npy", "npz", "libsvm"]
ColumnType = Literal["number", "category", "date"]
DATASET_ID = r"ds_[0-9a-f]{64}"


class Column(Wire):
    """One dense column. `min` to `std` are over its values that are not missing; null where there are none."""

    name: str
    type: ColumnType = Field(
        description="Dates are stored as days since 1970-01-01 UTC, categories as their position in `categories`."
    )
    missing: int
    min: float | None
    max: float | None
    mean: float | None
    std: float | None = Field(description="Population standard deviation (divided by the number of values).")
    distinct: int | None = Field(description="Number of different values; null: more than 1000 different numbers.")
    values: list[float] | None = Field(
        default=None,
        description="Sorted different values of a number with at most 100; null: more, another type, or a table with "
        "too many such columns, of which those with the fewest values are listed.",
    )
    categories: list[str] | None = Field(
        description="Sorted texts of a category; null for other types, and for a category with more than 10,000."
    )
    index: bool = Field(
        default=False, description="Whether it was the index of a data frame: a feature only where a job names it."
    )


class WarningExample(Wire):
    """A value that a warning is about."""

    row: int = Field(description="Counted from 0, names not counted.")
    value: str = Field(description="As the file has it, at most 60 characters.")


class DatasetWarning(Wire):
    """What was read in another way than its writer may have meant."""

    column: str | None = Field(description="Null: the whole file.")
    code: str
    text: str = Field(description="A sentence with the remedy.")
    count: int = Field(description="Values (or lines) that it is about.")
    examples: list[WarningExample] = Field(default_factory=list, description="At most 3, the first ones.")


class ReadingOptions(Wire):
    """How a file is to be read, where its content alone leaves that open; null: found out by the reader."""

    missing: list[str] | None = Field(
        default=None, description="The texts that stand for a missing value, besides the empty one."
    )
    decimal: Literal[".", ","] | None = None
    thousands: str | None = None
    encoding: str | None = None
    delimiter: str | None = None
    header: bool | None = Field(default=None, description="Whether the first row holds names.")
    types: dict[str, ColumnType] | None = Field(default=None, description="The types of single columns.")

    def given(self) -> dict[str, Any]:
        """Those that were given."""
        return self.model_dump(exclude_none=True)


class SparseColumns(Wire):
    """The columns of the sparse part: the last of the dataset, named `prefix + (first + j)`, j = 0, 1, ..."""

    columns: int
    prefix: str
    first: int
    nonzeros: int = Field(description="Entries stored.")
    min: float | None = Field(description="Of the entries stored.")
    max: float | None

    def name(self, j: int) -> str:
        """Name of the sparse column `j`."""
        return f"{self.prefix}{self.first + j}"

    def index(self, name: str) -> int | None:
        """Position of a column among the sparse ones; None when there is no such column."""
        digits = name.removeprefix(self.prefix)
        if not (name.startswith(self.prefix) and digits.isascii() and digits.isdigit() and len(digits) < 12):
            return None
        j = int(digits) - self.first
        return j if 0 <= j < self.columns and self.name(j) == name else None


class DenseLayout(Wire):
    """A float64 matrix, rows x dense columns, little-endian, from `offset` (bytes) of `file` on."""

    file: str
    offset: int
    order: Literal["C", "F"]


class SparseLayout(Wire):
    """A CSR matrix in three raw files: float64 `data`, `indices` of `index_type`, int64 `indptr`."""

    data: str
    indices: str
    indptr: str
    index_type: Literal["int32", "int64"]


class StoredFile(Wire):
    """One file of the canonical form."""

    bytes: int
    sha256: str


class Layout(Wire):
    """Where the arrays are; `dense` is null without dense columns."""

    dense: DenseLayout | None
    sparse: SparseLayout | None
    files: dict[str, StoredFile]


class DatasetBase(Wire):
    """What identifies and describes a dataset, but its columns."""

    id: Annotated[
        str,
        Field(
            pattern=f"^{DATASET_ID}$",
            description="`ds_` + SHA-256 of the content; with reading options, of the canonical JSON of both.",
        ),
    ]
    format: Format
    bytes: int = Field(description="Of the content as it was uploaded, decompressed.")
    stored_bytes: int = Field(description="Of the canonical form, which counts against the quota.")
    sha256: str
    rows: int
    created_at: datetime


class DatasetBody(DatasetBase):
    """A dataset with its columns: the dense ones first, then those of the sparse part, if there is one."""

    columns: list[Column]
    sparse: SparseColumns | None
    options: ReadingOptions | None = Field(default=None, description="Those of the upload; null: none.")
    warnings: list[DatasetWarning] = Field(default_factory=list)


class DatasetLinks(Wire):
    """Where to go from here."""

    self: str
    preview: str


class DatasetView(DatasetBody):
    """A dataset as callers see it."""

    links: DatasetLinks


class DatasetSummary(DatasetBase):
    """A dataset in a list: its columns by their number, dense and sparse."""

    columns: int
    used_at: datetime = Field(description="Last upload, or start or end of a job.")
    jobs: int = Field(description="Jobs that have not ended and need it.")
    damaged: bool = Field(
        default=False,
        description="Whether its files were found not to be what was stored; uploading the same file again repairs it.",
    )
    links: DatasetLinks


class DatasetPage(Wire):
    """Datasets, newest first."""

    data: list[DatasetSummary]
    next_cursor: str | None


class Preview(Wire):
    """The first rows and columns, at most 100 of each, as a person reads them; null where a value is missing."""

    columns: list[str]
    rows: list[list[float | str | None]]


class Dataset(DatasetBody):
    """The record that lies beside the arrays as `manifest.json`."""

    header: bool | None = Field(default=None, description="Of CSV: whether the first row was read as names.")
    layout: Layout

    @property
    def width(self) -> int:
        """Number of columns, dense and sparse."""
        return len(self.columns) + (self.sparse.columns if self.sparse else 0)
