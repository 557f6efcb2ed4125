"""Data inside a request: its faults, its arrays, and the bytes in which it waits for a worker."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import numpy as np

from worker.contract.classes import classes_of, inline_class_faults
from worker.contract.criteria import decode_criteria, encode_criteria
from worker.contract.data import ROLES, WEIGHTS, InlineData
from worker.contract.expansion import SMALLEST
from worker.contract.faults import Fault
from worker.core.rows.problem import Problem
from worker.core.rows.tables import LARGEST_MAGNITUDE
from worker.core.training import Training

EXACT = 2**53  # float64 holds every integer up to this magnitude


def feature_names(data: InlineData) -> tuple[str, ...]:
    """Names of the columns."""
    return tuple(data.features) if data.features is not None else tuple(f"x{j}" for j in range(len(data.x[0])))


def inline_problem(data: InlineData, training: Training) -> Problem:
    """The table as arrays, the target as the training criterion takes it. Call `inline_faults` first."""
    vectors: dict[str, Any] = {
        name: None if getattr(data, name) is None else np.array(getattr(data, name), dtype=kind)
        for name, kind in (("time", float), ("weights", float), ("scoring", float), ("offset", float), ("fold", int))
    }
    if data.groups is not None:
        codes = {group: code for code, group in enumerate(sorted(set(data.groups)))}  # exact beyond 64 bits with a sign
        vectors["groups"] = np.array([codes[group] for group in data.groups])
    if data.source is not None:
        names, vectors["source"] = np.unique(data.source, return_inverse=True)
        vectors["source_names"] = tuple(names.tolist())
    classes, y = classes_of(data.y) if training.classifies else ((), np.array(data.y, dtype=float))
    return Problem(np.array(data.x, dtype=float), y, feature_names(data), classes=classes, **vectors)


def inline_faults(data: InlineData, training: Training) -> Iterator[Fault]:
    """What a schema cannot say of a table."""
    if not data.x:
        yield Fault("/data/x", "empty", "There are no rows.")
        return
    width = len(data.x[0])
    if width == 0:
        yield Fault("/data/x/0", "empty", "There are no columns.")
        return
    for i, row in enumerate(data.x):
        if len(row) != width:
            yield Fault(f"/data/x/{i}", "ragged", f"This row has {len(row)} values, and the first row has {width}.")
            return
    if len(data.y) != len(data.x):
        yield Fault("/data/y", "length", f"There are {len(data.y)} targets for {len(data.x)} rows.")
    if len(data.x) < 2:
        yield Fault("/data/x", "too_few", "At least 2 rows are needed, one to train on and one to score.")
    yield from inline_class_faults(training, data.y)
    yield from _role_faults(data)
    yield from _magnitude_faults(data)
    names = data.features
    if names is not None and len(names) != width:
        yield Fault("/data/features", "length", f"There are {len(names)} names for {width} columns.")
    seen: dict[str, int] = {}
    for j, name in enumerate(names or ()):
        if seen.setdefault(name, j) != j:
            yield Fault(f"/data/features/{j}", "duplicate", f"Column {seen[name]} has the name {name!r} already.")
            return


def lost_integers(data: InlineData, body: bytes) -> Iterator[Fault]:
    """The first integer of each list that became another number when it was read as float64; `body` is the request."""
    lists = {name: getattr(data, name) for name in ("x", "y", "time", "offset", *WEIGHTS)}
    large = [name for name, values in lists.items() if values and _largest(values) >= EXACT]
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
                told = f"This integer is beyond 2^53, and float64 cannot tell it from its neighbours: {remedy}."
                yield Fault(f"/data/{name}/{place}", "integers-beyond-double", told)
                break


def _largest(values: Any) -> float:
    """The largest magnitude in a list of numbers, or of such lists; 0 for names."""
    if isinstance(values[0], str):
        return 0.0
    numbers = chain.from_iterable(values) if isinstance(values[0], list) else values
    return max(map(abs, numbers), default=0.0)


def _role_faults(data: InlineData) -> Iterator[Fault]:
    for role in ROLES:
        vector = getattr(data, role)
        if vector is not None and len(vector) != len(data.x):
            yield Fault(f"/data/{role}", "length", f"There are {len(vector)} entries for {len(data.x)} rows.")
    for role in WEIGHTS:
        if getattr(data, role) is not None and not any(getattr(data, role)):
            yield Fault(f"/data/{role}", "all_zero", "Every weight is zero, so that no row counts.")


def _magnitude_faults(data: InlineData) -> Iterator[Fault]:
    for name in ("x", "y", "time", "offset", *WEIGHTS):
        values = getattr(data, name) or []
        if values and isinstance(values[0], str):
            continue
        large = np.argwhere(np.abs(np.array(values, dtype=np.float64)) > LARGEST_MAGNITUDE)
        if len(large):
            place = "/".join(str(index) for index in large[0])
            yield Fault(
                f"/data/{name}/{place}",
                "too_large",
                f"Magnitudes above {LARGEST_MAGNITUDE:g} overflow; rescale the column.",
            )
    yield from _vanishing(data)


def _vanishing(data: InlineData) -> Iterator[Fault]:
    """Columns whose squares vanish."""
    for j, largest in enumerate(np.abs(np.array(data.x, dtype=np.float64)).max(axis=0)):
        if 0 < largest < SMALLEST:
            yield Fault(
                f"/data/x/0/{j}", "too_small", f"Magnitudes below {SMALLEST:g} are too small; rescale the column."
            )
    if data.y and not isinstance(data.y[0], str) and 0 < np.abs(np.array(data.y, dtype=np.float64)).max() < SMALLEST:
        yield Fault("/data/y/0", "too_small", f"Magnitudes below {SMALLEST:g} are too small; rescale the target.")


def encode_data(problem: Problem) -> bytes:
    """The table as npy bytes: one float64 matrix `[X, y]`, and a column for each role that it has; or the criteria."""
    if problem.criteria is not None:
        return encode_criteria(problem.criteria)
    buffer = io.BytesIO()
    vectors = [getattr(problem, role) for role in ROLES if getattr(problem, role) is not None]
    np.save(buffer, np.column_stack([np.asarray(problem.X), problem.y, *vectors]), allow_pickle=False)
    return buffer.getvalue()


def decode_data(data: bytes, described: Mapping[str, Any]) -> Problem:
    """What `encode_data` was given, with what `describe_inline` said of it."""
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


def describe_inline(data: InlineData, encoded: bytes, classes: tuple[str, ...]) -> dict[str, Any]:
    """What identifies an inline table, and what its bytes do not say."""
    rows, columns = len(data.x), len(data.x[0])
    document: dict[str, Any] = {
        "rows": rows,
        "columns": columns,
        "features": list(feature_names(data)),
        "sha256": hashlib.sha256(encoded).hexdigest(),
    }
    if roles := [role for role in ROLES if getattr(data, role) is not None]:
        document["roles"] = roles
    if data.source is not None:
        document["sources"] = sorted(set(data.source))
    if classes:
        document["classes"] = list(classes)
    return document
