"""The example problem of each training criterion, and how one is written in a request or a file."""

from __future__ import annotations

from typing import Any

import numpy as np

from worker.core.family import kind_of, members
from worker.core.rows.problem import Problem
from worker.core.training import Training

EXAMPLES: dict[str, Problem] = {kind_of(member): member.example() for member in members(Training)}
ROLES = ("time", "groups", "fold", "source", "weights", "scoring", "offset")


def targets(problem: Problem) -> list[Any]:
    """The targets as a caller has them: numbers, or the names of classes."""
    return [problem.classes[int(code)] for code in problem.y] if problem.classes else problem.y.tolist()


def role(problem: Problem, name: str) -> list[Any]:
    """A role as a caller has it: one entry a row."""
    values = getattr(problem, name)
    return [problem.source_names[code] for code in values] if name == "source" else values.tolist()


def inline(problem: Problem, roles: tuple[str, ...] = (), **changes: Any) -> dict[str, Any]:
    """The data of a request: a table with these roles as far as it has them, or matrices."""
    if problem.criteria is not None:
        return matrices(problem) | changes
    known = {name: role(problem, name) for name in roles if getattr(problem, name) is not None}
    return {"x": problem.X.tolist(), "y": targets(problem), "features": list(problem.features), **known, **changes}


def matrices(problem: Problem) -> dict[str, Any]:
    """The data of a request with criteria of the caller's own."""
    given = problem.criteria
    assert given is not None
    selection = {"matrix": given.Q.toarray().tolist(), "vector": given.e.tolist(), "constant": given.constant}
    return {
        "matrices": [A.toarray().tolist() for A in given.matrices],
        "vectors": given.vectors.T.tolist(),
        "selection": selection,
    }


def csv(problem: Problem) -> bytes:
    """The table as a file with all its roles, and a column `size` that misses values."""
    columns: dict[str, list[Any]] = {"y": targets(problem)}
    columns |= {name: problem.X[:, j].tolist() for j, name in enumerate(problem.features)}
    columns |= {name: role(problem, name) for name in ROLES if getattr(problem, name) is not None}
    size = np.round(np.random.default_rng(22).normal(size=len(problem.y)), 3).tolist()
    columns["size"] = ["" if i % 9 == 4 else value for i, value in enumerate(size)]
    lines = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
    return ("\n".join(lines) + "\n").encode()


def libsvm(problem: Problem) -> bytes:
    """The table as a sparse file without every third value: features are called 1, 2, ..., classes by their numbers."""
    lines = []
    for i, (y, row) in enumerate(zip(problem.y.tolist(), problem.X.tolist(), strict=True)):
        values = " ".join(f"{j + 1}:{value}" for j, value in enumerate(row) if (i + j) % 3)
        lines.append(f"{y!r} {values}")
    return ("\n".join(lines) + "\n").encode()
