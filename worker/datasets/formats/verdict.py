"""What a CSV column is, given how all of its texts are spelled; what is refused, and what is told."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from worker.contract.dataset import ColumnType, DatasetWarning
from worker.datasets.formats.spelling import DATES, FORMATTED, PLAIN, Evidence, Spelling
from worker.datasets.integers import beyond_warning
from worker.datasets.refusal import RefusedError, invalid

_FORMATS = {
    Spelling.THOUSANDS: (
        "thousands",
        "with marks between thousands",
        "send the option `thousands` (as in thousands=,; and decimal=, where that is the decimal mark)",
    ),
    Spelling.COMMA: (
        "decimal_comma",
        "with a decimal comma (or commas between thousands)",
        "send the option decimal=, (or thousands=,), or write them with a point and without separators: 1234.5",
    ),
    Spelling.PERCENT: ("percent", "with a percent sign", "write them without it"),
    Spelling.CURRENCY: ("currency", "with the sign of a currency", "write them without it"),
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the file: its position, its name, and the type that was asked for, if one was."""

    j: int
    name: str
    wanted: ColumnType | None = None


def type_of(column: Column, seen: Evidence) -> ColumnType:
    """What a column is read as. Raises RefusedError where a person has to decide."""
    if column.wanted is not None:
        _check_wanted(column, seen)
        return column.wanted
    present, plain, dates = seen.present, seen.number_of(PLAIN), seen.number_of(DATES)
    if plain == present:
        return _numeric(seen)
    if dates == present:
        return "date"
    formatted = seen.number_of(FORMATTED)
    if formatted and plain + formatted == present and not (seen.marked and plain):
        raise _formatted(column, seen)
    numeric = PLAIN if seen.marked else (*PLAIN, *FORMATTED)
    if 2 * seen.number_of(numeric) >= present:
        raise _mixed(column, seen, "numbers", numeric)
    if 2 * dates >= present:
        raise _mixed(column, seen, "dates", DATES)
    return "category"


def _numeric(seen: Evidence) -> ColumnType:
    """Whole numbers are names of things where they have leading zeros, or float64 cannot tell them apart."""
    whole = seen.counts[Spelling.NUMBER] == 0
    padded = seen.counts[Spelling.PADDED] and not seen.signed
    return "category" if whole and (padded or seen.counts[Spelling.LOST]) else "number"


def _formatted(column: Column, seen: Evidence) -> RefusedError:
    spelling = max(FORMATTED, key=lambda one: seen.counts[one])
    code, how, remedy = _FORMATS[spelling]
    detail = f"Column {column.name!r} holds numbers {how}; {remedy}, or send types={column.name}:category."
    return invalid(f"/columns/{column.j}", code, detail)


def _mixed(column: Column, seen: Evidence, what: str, most: tuple[Spelling, ...]) -> RefusedError:
    count = seen.number_of(most)
    example = seen.examples(_others(most))[0]
    shown = f"row {example.row + 1} holds {example.value!r}"
    told = f"Column {column.name!r}: {count} of {seen.present} values are {what}, and the others are not: {shown}"
    remedy = f"send missing={_listed(example.value)} where that is a missing value, or types={column.name}:category"
    detail = f"{told}. Correct them, or {remedy}."
    return invalid(f"/rows/{example.row}/columns/{column.j}", "mixed-column", detail)


def _others(taken: Collection[Spelling]) -> tuple[Spelling, ...]:
    return tuple(one for one in Spelling if one not in (*taken, Spelling.MISSING))


def _listed(value: str) -> str:
    return "..." if "," in value else value


def _check_wanted(column: Column, seen: Evidence) -> None:
    """Raise RefusedError where a value is not of the type that was asked for."""
    taken = {"number": PLAIN, "date": DATES}.get(column.wanted or "")
    if taken is None:
        return
    others = _others(taken)
    if seen.number_of(others):
        example = seen.examples(others)[0]
        detail = f"Column {column.name!r} is to be read as {column.wanted}, and row {example.row + 1} holds "
        detail += repr(example.value)
        place = f"/rows/{example.row}/columns/{column.j}"
        hint = "; dates are written as in ISO 8601: 2021-03-31" if column.wanted == "date" else ""
        raise invalid(place, "mixed-column", f"{detail}{hint}. Correct it, name it in `missing`, or change `types`.")


def warnings_of(column: Column, seen: Evidence, kind: ColumnType) -> Iterator[DatasetWarning]:
    """What is told of a column that is read as `kind`."""
    name = column.name

    def warning(code: str, text: str, *spellings: Spelling) -> DatasetWarning:
        told = f"Column {name!r} {text}."
        return DatasetWarning(
            column=name, code=code, text=told, count=seen.number_of(spellings), examples=seen.examples(spellings)
        )

    if tokens := seen.told_tokens:
        count = sum(seen.tokens[token] for token in tokens)
        shown = ", ".join(repr(token) for token in tokens[:5])
        values = "one value is" if count == 1 else f"{count} values are"
        text = f"Column {name!r}: {values} {shown}, taken for missing; the option `missing` says which ones are."
        examples = seen.examples((Spelling.MISSING,))
        yield DatasetWarning(column=name, code="missing-tokens", text=text, count=count, examples=examples)
    if column.wanted is None and kind == "category" and seen.counts[Spelling.PADDED] and seen.plain_only:
        remedy = f"for numbers send types={name}:number"
        yield warning(
            "leading-zeros", f"holds whole numbers with leading zeros, read as texts; {remedy}", Spelling.PADDED
        )
    if seen.counts[Spelling.LOST] and seen.plain_only and (column.wanted is None or kind == "number"):
        examples = seen.examples((Spelling.LOST,))
        yield beyond_warning(name, seen.counts[Spelling.LOST], examples, kept=kind == "category")
    naive = (Spelling.DAY, Spelling.MOMENT, Spelling.FINE)
    zoned = seen.number_of((Spelling.ZONED, Spelling.ZONED_FINE))
    if kind == "date" and zoned and seen.number_of(naive):
        text = "has times with a time zone and without; those without are taken as UTC"
        yield warning("mixed-time-zones", text, *naive)
    fine = (Spelling.FINE, Spelling.ZONED_FINE)
    if kind == "date" and seen.number_of(fine):
        yield warning("rounded-times", "has times finer than microseconds, which are cut to them", *fine)
    if kind == "category" and column.wanted is None and 0 < seen.counts[Spelling.OTHER_DATE] == seen.present:
        remedy = "write dates as in ISO 8601: 2021-03-31"
        yield warning(
            "dates-not-iso", f"holds dates that are not read, only their texts; {remedy}", Spelling.OTHER_DATE
        )
