"""The resumable state of a search as bytes, exact to the last bit, without pickle."""

from __future__ import annotations

import io

import numpy as np

from worker.core.records import Array, Evaluation, Outcome, Start, State

_EVALUATION = ("rho", "gradient", "per_split")


def pack(state: State) -> bytes:
    """An npz archive of plain arrays."""
    arrays: dict[str, Array] = {f"search.{name}": array for name, array in state.search.items()}
    for i, start in enumerate(state.starts):
        for role, at in (("initial", start.initial), ("best", start.best)):
            for name in _EVALUATION:
                arrays[f"start.{i}.{role}.{name}"] = getattr(at, name)
            arrays[f"start.{i}.{role}.value"] = np.array(at.value)
        arrays[f"start.{i}.gradient_norm"] = np.array(start.gradient_norm)
        arrays[f"start.{i}.counts"] = np.array([start.iterations, start.evaluations])
        arrays[f"start.{i}.outcome"] = np.array([start.outcome.code if start.outcome else ""])
    arrays["starts"] = np.array(len(state.starts))
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def unpack(data: bytes) -> State:
    """The state that `pack` was given."""
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        arrays = dict(archive)
    search = {name.removeprefix("search."): array for name, array in arrays.items() if name.startswith("search.")}
    starts = tuple(_start(arrays, i) for i in range(int(arrays["starts"])))
    return State(search, starts)


def _start(arrays: dict[str, Array], i: int) -> Start:
    iterations, evaluations = (int(count) for count in arrays[f"start.{i}.counts"])
    outcome = str(arrays[f"start.{i}.outcome"][0])
    return Start(
        _evaluation(arrays, f"start.{i}.initial"),
        _evaluation(arrays, f"start.{i}.best"),
        float(arrays[f"start.{i}.gradient_norm"]),
        iterations,
        evaluations,
        Outcome[outcome.upper()] if outcome else None,
    )


def _evaluation(arrays: dict[str, Array], prefix: str) -> Evaluation:
    rho, gradient, per_split = (arrays[f"{prefix}.{name}"] for name in _EVALUATION)
    value = float(arrays[f"{prefix}.value"])
    return Evaluation(rho, value, gradient, per_split)
