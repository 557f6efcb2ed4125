"""The resumable state of a search as bytes, exact to the last bit, without pickle."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np

from worker.core.records import Array, Evaluation, FoldScore, Outcome, SpreadScore, Start, State

_FOLD = ("value", "weight", "rows", "selection_value", "iterations", "evaluations", "scanned")
_COUNTS = ("rows", "iterations", "evaluations", "scanned")
_EVALUATION = ("rho", "value", "gradient", "per_split")
_ERRORS = ("value_error", "gradient_error", "prior")  # not in what versions before them wrote


def pack(state: State) -> bytes:
    """An npz archive of plain arrays; those of the starts are stacked, since every entry of an archive costs time."""
    starts = state.starts
    arrays: dict[str, Array] = {f"search.{name}": array for name, array in state.search.items()}
    for role in ("initial", "best"):
        for name in _EVALUATION + _ERRORS:
            arrays[f"{role}.{name}"] = np.array([getattr(getattr(start, role), name) for start in starts])
    arrays["gradient_norm"] = np.array([start.gradient_norm for start in starts])
    arrays["counts"] = np.array([(start.iterations, start.evaluations) for start in starts])
    arrays["scanned"] = np.array([start.scanned for start in starts])
    arrays["refused"] = np.array([start.refused for start in starts])
    arrays["spread"] = np.array([np.nan if start.spread is None else start.spread for start in starts])
    arrays["outcome"] = np.array([start.outcome.code if start.outcome else "" for start in starts])
    if state.folds:
        arrays["folds"] = np.array([[getattr(fold, name) for name in _FOLD] for fold in state.folds], dtype=float)
        for i, fold in enumerate(state.folds):
            arrays[f"fold{i}.clusters"] = fold.clusters
            if fold.path:
                arrays[f"fold{i}.path"] = np.array([(one.spread, one.value, one.selection_value) for one in fold.path])
                arrays |= {f"fold{i}.path{j}.clusters": one.clusters for j, one in enumerate(fold.path)}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def unpack(data: bytes) -> State:
    """The state that `pack` was given."""
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        arrays = dict(archive)
    search = {name.removeprefix("search."): array for name, array in arrays.items() if name.startswith("search.")}
    starts = tuple(_start(arrays, i) for i in range(len(arrays["outcome"])))
    return State(search, starts, tuple(_fold(arrays, i, row) for i, row in enumerate(arrays.get("folds", ()))))


def _fold(arrays: dict[str, Array], i: int, row: Array) -> FoldScore:
    values = dict(zip(_FOLD, row.tolist()))  # noqa: B905 - versions before the scan wrote fewer
    rows, iterations, evaluations, scanned = (int(values.get(name, 0)) for name in _COUNTS)
    fold = FoldScore(
        values["value"], values["weight"], rows, values["selection_value"], iterations, evaluations, scanned
    )
    clusters = arrays.get(f"fold{i}.clusters")  # not in what versions before them wrote
    path = tuple(
        SpreadScore(spread, value, promised, arrays[f"fold{i}.path{j}.clusters"])
        for j, (spread, value, promised) in enumerate(arrays.get(f"fold{i}.path", np.empty((0, 3))).tolist())
    )
    return fold if clusters is None else replace(fold, clusters=clusters, path=path)


def _start(arrays: dict[str, Array], i: int) -> Start:
    iterations, evaluations = (int(count) for count in arrays["counts"][i])
    outcome = str(arrays["outcome"][i])
    return Start(
        _evaluation(arrays, "initial", i),
        _evaluation(arrays, "best", i),
        float(arrays["gradient_norm"][i]),
        iterations,
        evaluations,
        Outcome[outcome.upper()] if outcome else None,
        refused=int(arrays["refused"][i]) if "refused" in arrays else 0,
        scanned=int(arrays["scanned"][i]) if "scanned" in arrays else 0,
        spread=None if "spread" not in arrays or np.isnan(arrays["spread"][i]) else float(arrays["spread"][i]),
    )


def _evaluation(arrays: dict[str, Array], role: str, i: int) -> Evaluation:
    rho, value, gradient, per_split = (arrays[f"{role}.{name}"][i] for name in _EVALUATION)
    errors = [float(arrays[f"{role}.{name}"][i]) if f"{role}.{name}" in arrays else 0.0 for name in _ERRORS]
    return Evaluation(rho, float(value), gradient, per_split, None, *errors)
