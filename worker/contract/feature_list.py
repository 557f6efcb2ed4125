"""The features of a job on a dataset as they stand in its description: short, also for 100,000 numbered ones."""

from __future__ import annotations

import re
from typing import Any

from worker.contract.columns import Selected

RUN = 3  # names from which on a run is written by its ends


def write_features(selected: Selected) -> list[Any]:
    """Columns and their features: `"age"`, `{"column": "month", "features": [...]}`, `{"from": "w1", "to": "w9"}`."""
    items: list[Any] = []
    run: list[str] = []
    for column, names in [*selected.groups.items(), ("", ())]:
        plain = names == (column,)
        if plain and run and _follows(run[-1], column):
            run.append(column)
            continue
        items += run if len(run) < RUN else [{"from": run[0], "to": run[-1]}]
        run = [column] if plain else []
        if names and not plain:
            items.append({"column": column, "features": list(names)})
    return items


def _parts(name: str) -> tuple[str, int] | None:
    """Prefix and number of a name that ends with a number without leading zeros."""
    match = re.fullmatch(r"(.*?)(0|[1-9][0-9]{0,11})", name, re.DOTALL)
    return (match[1], int(match[2])) if match else None


def _follows(name: str, after: str) -> bool:
    one, other = _parts(name), _parts(after)
    return one is not None and other is not None and other == (one[0], one[1] + 1)


def read_features(items: list[Any]) -> dict[str, tuple[str, ...]]:
    """The features of each column, in the order of the job."""
    columns: dict[str, tuple[str, ...]] = {}
    for item in items:
        if isinstance(item, str):
            columns[item] = (item,)
        elif "column" in item:
            columns[item["column"]] = tuple(item["features"])
        else:
            first, last = _parts(item["from"]), _parts(item["to"])
            assert first is not None
            assert last is not None
            names = (f"{first[0]}{number}" for number in range(first[1], last[1] + 1))
            columns |= {name: (name,) for name in names}
    return columns
