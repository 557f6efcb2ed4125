"""Durations of fixed length as texts of ISO 8601: `P2W`, `P7D`, `PT12H`, `P1DT6H30M`, `PT0.5S`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

MICROSECONDS_PER_DAY = 86_400_000_000
LONGEST_DAYS = 3_652_500  # 10,000 years: sums of several with any date stay below 2^63 microseconds
_UNITS = {"weeks": 7 * 86_400, "days": 86_400, "hours": 3600, "minutes": 60, "seconds": 1}
_FIXED = re.compile(
    r"P(?=[0-9T])(?:(?P<weeks>[0-9]{1,9})W)?(?:(?P<days>[0-9]{1,9})D)?"
    r"(?:T(?=[0-9])(?:(?P<hours>[0-9]{1,9})H)?(?:(?P<minutes>[0-9]{1,9})M)?"
    r"(?:(?P<seconds>[0-9]{1,12}(?:[.,][0-9]{1,6})?)S)?)?",
    re.ASCII,
)
_OF_CALENDAR = re.compile(r"P[0-9.,DW]*[0-9][YM].*", re.ASCII)


@dataclass(frozen=True, slots=True)
class RowsOrDuration:
    """Marks a setting that is a number of rows, at least `min_rows`, or a duration, as in `Annotated[int | str, ...]`.

    The contract gives the mark its meaning on the wire. A duration may be zero where `min_rows` is.
    """

    min_rows: int

    def check(self, text: str) -> str:
        """The text, if it is a duration that the setting takes. Raises ValueError."""
        if microseconds(text) == 0 and self.min_rows > 0:
            raise ValueError("the duration is zero; give a longer one, as in P7D or PT12H")
        return text


def microseconds(text: str) -> int:
    """The length of a duration. Raises ValueError for other texts, and for months and years, whose lengths differ."""
    found = _FIXED.fullmatch(text)
    if found is None:
        if _OF_CALENDAR.fullmatch(text):
            raise ValueError("months and years differ in length; give weeks or days, as in P4W or P365D")
        raise ValueError("this is no duration of ISO 8601; write weeks, days, hours, minutes and seconds as in P1DT12H")
    parts = {unit: Fraction((number or "0").replace(",", ".")) for unit, number in found.groupdict().items()}
    length = sum(parts[unit] * seconds for unit, seconds in _UNITS.items())
    if length > LONGEST_DAYS * 86_400:
        raise ValueError("the duration is longer than 10,000 years; give a shorter one")
    return int(length * 1_000_000)
