"""What is wrong with an uploaded file: the caller's fault, with its place, or more than the limits allow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

from worker.contract.faults import Fault


class Reason(StrEnum):
    """Why a file is refused."""

    INVALID = "invalid"
    TOO_LARGE = "too_large"
    NO_ROOM = "no_room"
    WRONG_TYPE = "wrong_type"


class RefusedError(Exception):
    """A file that does not become a dataset; `detail` is a sentence with the remedy, `faults` name places."""

    def __init__(self, reason: Reason, detail: str, faults: Sequence[Fault] = ()) -> None:
        super().__init__(detail)
        self.reason, self.detail, self.faults = reason, detail, tuple(faults)


def invalid(pointer: str, code: str, detail: str) -> RefusedError:
    """The refusal of a file with a fault at a place: `/columns/2`, `/rows/17/columns/2`, both counted from 0."""
    return RefusedError(Reason.INVALID, "The file cannot be read as a table.", [Fault(pointer, code, detail)])


def too_large(detail: str) -> RefusedError:
    """The refusal of a file that exceeds a limit."""
    return RefusedError(Reason.TOO_LARGE, detail)


SPARSE_SETTING = "GRADTUNE_DATASET_MAX_SPARSE_COLUMNS"


def no_room(size: int, room: int) -> RefusedError:
    """The refusal of a file of which too much would be made: at least `size` bytes."""
    detail = (
        f"The dataset takes at least {size} bytes, and the quota of all datasets leaves {room} "
        "(GRADTUNE_DATASET_QUOTA_MB); delete some that are not needed any more, or send fewer rows or columns."
    )
    return RefusedError(Reason.NO_ROOM, detail)


@dataclass(frozen=True, slots=True)
class Limits:
    """Most that one dataset may take: values (rows x columns, or entries of a sparse part), columns, bytes.

    `columns` are the dense ones, `sparse_columns` those of the sparse part, whether anything is stored in them or not.

    `memory` bytes and `seconds` of processor time are for reading it, in a process of its own. `room`: bytes that the
    quota of all datasets leaves for it; None: there is none.
    """

    values: int = 2**31
    columns: int = 20_000
    bytes: int = 16 * 2**30
    memory: int = 2**30
    seconds: int = 1800
    sparse_columns: int = 2_000_000
    room: int | None = None

    def check_sparse(self, columns: int) -> None:
        """Raise RefusedError for a sparse part of too many columns."""
        if columns > self.sparse_columns:
            raise too_large(
                f"A table may have {self.sparse_columns} sparse columns ({SPARSE_SETTING}), and this one has at least "
                f"{columns}; number the columns that are used without gaps, or hash them to fewer."
            )

    def check(self, rows: int, columns: int) -> None:
        """Raise RefusedError for a table of too many columns or values."""
        if columns > self.columns:
            raise too_large(f"A table may have {self.columns} columns, and this one has {columns}; leave some out.")
        if rows * columns > self.values:
            raise too_large(
                f"A table may have {self.values} values, and this one has at least {rows} rows of {columns} columns; "
                "send fewer."
            )
        self.check_room(8 * rows * columns)

    def check_room(self, size: int) -> None:
        """Raise RefusedError for files of more bytes than there is room for."""
        if self.room is not None and size > self.room:
            raise no_room(size, self.room)


@dataclass(slots=True)
class Piece:
    """The part of a file that is being read, with what its writer can do where the memory is too little for it."""

    what: str
    remedy: str

    @contextmanager
    def within(self, limits: Limits) -> Iterator[None]:
        """Name the part at which the memory came to its end."""
        try:
            yield
        except MemoryError:
            most = f"takes more than {limits.memory >> 20} MiB of memory"
            raise too_large(f"Reading {self.what} {most}; {self.remedy}.") from None


def named(names: Sequence[str]) -> tuple[str, ...]:
    """The names of columns. Raises RefusedError for one that is empty, too long, or there twice."""
    seen: dict[str, int] = {}
    for j, name in enumerate(names):
        pointer = f"/columns/{j}"
        if not name.strip():
            raise invalid(pointer, "empty_name", f"Column {j + 1} has no name; every column needs one.")
        if len(name) > 200:
            raise invalid(pointer, "long_name", f"The name of column {j + 1} has more than 200 characters.")
        if seen.setdefault(name, j) != j:
            raise invalid(pointer, "duplicate_name", f"Columns {seen[name] + 1} and {j + 1} have the same name.")
    return tuple(names)
