"""A stored corpus, a file for each case, and what a new one differs in."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SHOWN = 20  # differences printed of one case
LONGEST = 200  # characters of a value printed
ABSENT = "nothing"


class UnfitDirectoryError(Exception):
    """A directory that cannot be written to or compared with; the message says why."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A place in a record (a JSON pointer), with the text of its value before and now."""

    place: str
    before: str
    now: str


@dataclass(slots=True)
class Comparison:
    """The cases of a stored corpus and of a new one, by what became of them."""

    equal: int = 0
    different: dict[str, list[Difference]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return not (self.different or self.missing or self.new)

    def lines(self) -> Iterator[str]:
        """Every difference, then the counts."""
        for name, found in self.different.items():
            yield f"different: {name}"
            yield from (f"    {one.place}: {_cut(one.before)} -> {_cut(one.now)}" for one in found[:SHOWN])
            if len(found) > SHOWN:
                yield f"    and {len(found) - SHOWN} more"
        yield from (f"missing: {name}" for name in self.missing)
        yield from (f"new: {name}" for name in self.new)
        counts = {"different": self.different, "missing": self.missing, "new": self.new}
        yield ", ".join([f"{self.equal} equal", *(f"{len(found)} {what}" for what, found in counts.items())])


def path_of(directory: Path, name: str) -> Path:
    """The file of a case."""
    return directory / f"{name}.json"


def write(directory: Path, records: Iterable[tuple[str, str]]) -> list[str]:
    """Store the texts of cases, and return those. Raises UnfitDirectoryError if anything is in the directory."""
    if directory.exists() and any(directory.iterdir()):
        raise UnfitDirectoryError(f"{directory} is not empty, and cases of another corpus would be left in it")
    texts = []
    for name, text in records:
        path = path_of(directory, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        texts.append(text)
    return texts


def compare(directory: Path, records: Iterable[tuple[str, str]], only: str = "") -> Comparison:
    """The stored cases, those with `only` in their name, beside new ones. Raises UnfitDirectoryError without any."""
    stored = {str(path.relative_to(directory)).removesuffix(".json") for path in directory.rglob("*.json")}
    if not stored:
        raise UnfitDirectoryError(f"there is no corpus in {directory}")
    found, left = Comparison(), {name for name in stored if only in name}
    for name, text in records:
        if name not in left:
            found.new.append(name)
            continue
        left.remove(name)
        before = path_of(directory, name).read_text()
        if before == text:
            found.equal += 1
        else:
            found.different[name] = list(differences(json.loads(before), json.loads(text)))
    found.missing = sorted(left)
    return found


def differences(before: Any, now: Any, place: str = "") -> Iterator[Difference]:
    """Where two documents differ in a value, or in the order of their members."""
    if isinstance(before, dict) and isinstance(now, dict):
        yield from _of_members(before, now, place)
    elif isinstance(before, list) and isinstance(now, list):
        yield from _of_members(dict(enumerate(before)), dict(enumerate(now)), place)
    elif _text(before) != _text(now):
        yield Difference(place or "/", _text(before), _text(now))


def _of_members(before: dict[Any, Any], now: dict[Any, Any], place: str) -> Iterator[Difference]:
    for name in [*before, *(name for name in now if name not in before)]:
        here = f"{place}/{name}"
        if name not in now:
            yield Difference(here, _text(before[name]), ABSENT)
        elif name not in before:
            yield Difference(here, ABSENT, _text(now[name]))
        else:
            yield from differences(before[name], now[name], here)
    if before.keys() == now.keys() and list(before) != list(now):
        yield Difference(place or "/", f"members in the order {', '.join(before)}", ", ".join(now))


def _text(value: Any) -> str:
    return json.dumps(value)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
