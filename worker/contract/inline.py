"""Data inside a request: its faults, its arrays, and the bytes that are stored for a worker."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from worker.contract.classes import inline_class_faults
from worker.contract.criteria import decode_criteria, encode_criteria
from worker.contract.data import ROLES, WEIGHTS, InlineData
from worker.contract.expansion import SMALLEST_MAGNITUDE
from worker.contract.faults import Fault
from worker.contract.inline_table import FLOAT_ROLES, InlineTable
from worker.core.records import Array
from worker.core.rows.problem import Problem
from worker.core.rows.tables import LARGEST_MAGNITUDE
from worker.core.training import Training

LARGEST_EXACT_INTEGER = 2**53  # float64 holds every integer up to this magnitude


def inline_problem(table: InlineTable, training: Training) -> Problem:
    """The table as arrays, the target as the training criterion takes it. Call `inline_faults` first.

    Classes and sources are those of the present rows. The core leaves the others out, so their numbers do not matter.
    """
    data, n = table.data, len(table.data.x)
    roles: dict[str, Any] = dict(table.roles)
    if data.groups is not None:
        roles["groups"] = table.groups
    if data.source is not None:
        roles["source_names"], numbers = table.sources
        roles["source"] = _in_rows(table.present, numbers, n)
    if not training.classifies:
        return Problem(table.X, table.y, table.features, **roles)
    classes, numbers = table.classes
    y = _in_rows(table.present, numbers.astype(float), n)
    return Problem(table.X, y, table.features, classes=classes, **roles)


def _in_rows(rows: Array, values: Array, n: int) -> Array:
    """The values in these rows of n, zero in the others."""
    out = np.zeros(n, values.dtype)
    out[rows] = values
    return out


def inline_faults(table: InlineTable, training: Training) -> Iterator[Fault]:
    """Faults of a table that a schema does not see."""
    data = table.data
    if not data.x:
        yield Fault("/data/x", "empty", "There are no rows.")
        return
    width = len(data.x[0])
    if width == 0:
        yield Fault("/data/x/0", "empty", "There are no columns.")
        return
    for i in np.flatnonzero(table.widths != width)[:1]:
        values = f"This row has {table.widths[i]} values, and the first row has {width}."
        yield Fault(f"/data/x/{i}", "ragged", values)
        return
    if len(data.y) != len(data.x):
        yield Fault("/data/y", "length", f"There are {len(data.y)} targets for {len(data.x)} rows.")
    present = table.present
    if len(data.x) < 2:
        yield Fault("/data/x", "too_few", "At least 2 rows are needed, one to train on and one to score.")
    elif len(present) == 1 < len(data.y) == len(data.x):
        yield Fault("/data/weights", "too_few", "All rows but one have weight 0, and at least 2 rows are needed.")
    if len(present):  # else `_role_faults` says what is wrong
        yield from inline_class_faults(training, table)
    yield from _role_faults(data)
    yield from _magnitude_faults(table)
    names = data.features
    if names is not None and len(names) != width:
        yield Fault("/data/features", "length", f"There are {len(names)} names for {width} columns.")
    seen: dict[str, int] = {}
    for j, name in enumerate(names or ()):
        if seen.setdefault(name, j) != j:
            yield Fault(f"/data/features/{j}", "duplicate", f"Column {seen[name]} has the name {name!r} already.")
            return


def lost_integers(table: InlineTable, body: bytes) -> Iterator[Fault]:
    """A fault for the first integer of each list that changed when it was read as float64. `body` is the request."""
    large = [
        name for name, values in _numbers(table).items() if np.abs(values).max(initial=0.0) >= LARGEST_EXACT_INTEGER
    ]
    written = json.loads(body)["data"] if large else {}
    for name in large:
        rows = written[name] if name == "x" else [written[name]]
        for i, row in enumerate(rows):
            j = next((j for j, value in enumerate(row) if isinstance(value, int) and int(float(value)) != value), None)
            if j is not None:
                place = f"{i}/{j}" if name == "x" else str(j)
                remedy = "write it with a point where it may be rounded"
                if name == "y":
                    remedy = f"send it as a text where it is the name of a class, or {remedy}"
                text = f"This integer is beyond 2^53, and float64 cannot tell it from its neighbours: {remedy}."
                yield Fault(f"/data/{name}/{place}", "integers-beyond-double", text)
                break


def _numbers(table: InlineTable) -> dict[str, Array]:
    """The values of each list of real numbers, by the name of the list, in the order in which faults are reported."""
    target = {} if table.has_names else {"y": table.y}
    return {"x": table.values, **target, **{name: table.roles[name] for name in FLOAT_ROLES if name in table.roles}}


def _role_faults(data: InlineData) -> Iterator[Fault]:
    for role in ROLES:
        vector = getattr(data, role)
        if vector is not None and len(vector) != len(data.x):
            yield Fault(f"/data/{role}", "length", f"There are {len(vector)} entries for {len(data.x)} rows.")
    for role in WEIGHTS:
        if getattr(data, role) is not None and not any(getattr(data, role)):
            yield Fault(f"/data/{role}", "all_zero", "Every weight is zero, so that no row counts.")


def _magnitude_faults(table: InlineTable) -> Iterator[Fault]:
    """Faults of magnitudes whose squares overflow, and of columns whose squares underflow."""
    width = int(table.widths[0])
    for name, values in _numbers(table).items():
        for i in np.flatnonzero(np.abs(values) > LARGEST_MAGNITUDE)[:1].tolist():
            place = f"{i // width}/{i % width}" if name == "x" else str(i)
            text = f"Magnitudes above {LARGEST_MAGNITUDE:g} overflow; rescale the column."
            yield Fault(f"/data/{name}/{place}", "too_large", text)
    for j, largest in enumerate(np.abs(table.X).max(axis=0)):
        if 0 < largest < SMALLEST_MAGNITUDE:
            text = f"Magnitudes below {SMALLEST_MAGNITUDE:g} are too small; rescale the column."
            yield Fault(f"/data/x/0/{j}", "too_small", text)
    if not table.has_names and 0 < np.abs(table.y).max(initial=0.0) < SMALLEST_MAGNITUDE:
        yield Fault(
            "/data/y/0", "too_small", f"Magnitudes below {SMALLEST_MAGNITUDE:g} are too small; rescale the target."
        )


def encode_data(problem: Problem) -> bytes:
    """The table as npy bytes: one float64 matrix `[X, y]` and a column for each role. Criteria: an npz archive."""
    if problem.criteria is not None:
        return encode_criteria(problem.criteria)
    buffer = io.BytesIO()
    vectors = [getattr(problem, role) for role in ROLES if getattr(problem, role) is not None]
    np.save(buffer, np.column_stack([np.asarray(problem.X), problem.y, *vectors]), allow_pickle=False)
    return buffer.getvalue()


def decode_data(data: bytes, described: Mapping[str, Any]) -> Problem:
    """The problem of which `encode_data` made these bytes. `described` is what `describe_inline` returned."""
    table = np.load(io.BytesIO(data), allow_pickle=False)
    if not isinstance(table, np.ndarray):
        return decode_criteria(table)
    roles = described.get("roles", [])
    p = table.shape[1] - 1 - len(roles)
    vectors: dict[str, Any] = {role: np.ascontiguousarray(table[:, p + 1 + k]) for k, role in enumerate(roles)}
    for role in ("groups", "source", "fold"):
        if role in vectors:
            vectors[role] = vectors[role].astype(np.int64)
    names = tuple(described.get("sources", ()))
    X, y = np.ascontiguousarray(table[:, :p]), np.ascontiguousarray(table[:, p])  # noqa: N806
    classes = tuple(described.get("classes", ()))
    return Problem(X, y, tuple(described.get("features", ())), source_names=names, classes=classes, **vectors)


def describe_inline(table: InlineTable, encoded: bytes, classes: tuple[str, ...]) -> dict[str, Any]:
    """What the description of a job says of its inline table: sizes, names, roles, and a hash."""
    data = table.data
    document: dict[str, Any] = {
        "rows": len(data.x),
        "columns": len(data.x[0]),
        "features": list(table.features),
        "sha256": hashlib.sha256(encoded).hexdigest(),
    }
    if roles := [role for role in ROLES if getattr(data, role) is not None]:
        document["roles"] = roles
    if data.source is not None:
        document["sources"] = list(table.sources[0])
    if classes:
        document["classes"] = list(classes)
    return document
