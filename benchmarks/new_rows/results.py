"""Results of single runs, kept as lines of JSON so that a long comparison can stop and go on, and methods be added."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.new_rows.ours import Found

Key = tuple[int, int, str]  # number of the task, split, method


@dataclass
class Results:
    """What was found, by task, split and method; each new one is appended to the file, if there is one."""

    path: Path | None = None
    found: dict[Key, Found] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path | None) -> Results:
        """Those of the file so far, if there is one. A last line that was cut off does not count."""
        results = cls(path)
        if path is None or not path.exists():
            return results
        *lines, rest = path.read_text().split("\n")
        for line in filter(None, lines):
            record = json.loads(line)
            key = (record.pop("task"), record.pop("split"), record.pop("method"))
            results.found[key] = Found(**record)
        if rest:
            path.write_text("".join(f"{line}\n" for line in lines))
        return results

    def add(self, key: Key, found: Found) -> None:
        """Keep it in memory and in the file."""
        self.found[key] = found
        if self.path is not None:
            number, split, method = key
            record = {"task": number, "split": split, "method": method, **asdict(found)}
            with self.path.open("a") as file:
                file.write(json.dumps(record) + "\n")

    def of(self, task: int, method: str) -> dict[int, Found]:
        """By split."""
        return {split: found for (number, split, name), found in self.found.items() if (number, name) == (task, method)}

    def methods(self) -> Iterator[str]:
        """In the order in which they first appear."""
        yield from dict.fromkeys(method for _, _, method in self.found)
