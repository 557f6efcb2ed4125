"""Criteria that a request brings instead of a table: their faults, their matrices, and the bytes that are stored."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from scipy.sparse import coo_array, csr_array

from worker.contract.data import MatricesData, SparseMatrix
from worker.contract.faults import Fault
from worker.contract.inline_criteria import InlineCriteria, InlineMatrix
from worker.core.records import Array
from worker.core.rows.matrices import Criteria
from worker.core.rows.problem import Problem
from worker.core.rows.tables import LARGEST_MAGNITUDE
from worker.core.training.quadratic import empty_problem

Sent = list[list[float]] | SparseMatrix | None
MOST_TERMS = 1_000  # A_0, A_1, ... or b_0, b_1, ...: each takes some tenths of a millisecond to check
ASYMMETRY = 1e-9  # relative to the largest entry; rounding in the caller's own products may leave as much


def numbers(data: MatricesData) -> int:
    """How many numbers were sent. The rows and columns of entries do not count."""
    matrices = [_values(sent) for sent in (*data.matrices, data.selection.matrix)]
    vectors = [len(vector) for vector in (*data.vectors, data.selection.vector) if vector]
    return sum(matrices) + sum(vectors)


def _values(sent: Sent) -> int:
    if sent is None:
        return 0
    return len(sent.values) if isinstance(sent, SparseMatrix) else sum(len(row) for row in sent)


def criteria_faults(given: InlineCriteria) -> Iterator[Fault]:
    """Faults of matrices and vectors that a schema does not see: shapes, symmetry, magnitudes, nothing to tune."""
    data, p = given.data, given.p
    if p == 0:
        text = "b_0 is missing: it has one entry for each parameter; write zeros where b does not matter."
        yield Fault("/data/vectors/0" if data.vectors else "/data/vectors", "missing", text)
        return
    if (most := max(len(data.matrices), len(data.vectors))) > MOST_TERMS:
        yield Fault("/data", "too_many", f"There are {most} matrices or vectors in a list; {MOST_TERMS} is the most.")
        return
    if most < 2:
        text = "There is nothing to tune: give A_1, A_2, ... after A_0, or b_1, b_2, ... in `vectors`."
        yield Fault("/data/matrices", "too_few", text)
    matrices = [(f"/data/matrices/{j}", matrix) for j, matrix in enumerate(given.matrices)]
    for place, matrix in [*matrices, ("/data/selection/matrix", given.Q)]:
        if matrix is not None and (found := next(_matrix_faults(place, matrix), None)):
            yield found
    vectors = [(f"/data/vectors/{j}", vector) for j, vector in enumerate(given.vectors)]
    for place, vector in [*vectors, ("/data/selection/vector", given.e)]:
        if vector is not None:
            yield from _vector_faults(place, vector, p)
    yield from _idle_faults(data)


def _idle_faults(data: MatricesData) -> Iterator[Fault]:
    """Faults of hyperparameters without any effect, and of a selection criterion that depends on nothing."""
    for j in range(1, max(len(data.matrices), len(data.vectors))):
        matrix = data.matrices[j] if j < len(data.matrices) else None
        vector = data.vectors[j] if j < len(data.vectors) else None
        if not _nonzero(matrix) and not any(vector or ()):
            place = f"/data/matrices/{j}" if j < len(data.matrices) else f"/data/vectors/{j}"
            text = f"A_{j} and b_{j} are both zero, so that hyperparameter {j} has no effect; leave it out."
            yield Fault(place, "no_effect", text)
    if not _nonzero(data.selection.matrix) and not any(data.selection.vector or ()):
        text = "Matrix and vector are both zero: E does not depend on theta, and there is nothing to minimize."
        yield Fault("/data/selection", "no_effect", text)


def _nonzero(sent: Sent) -> bool:
    if sent is None:
        return False
    return any(sent.values) if isinstance(sent, SparseMatrix) else any(any(row) for row in sent)


def _vector_faults(place: str, vector: Array, p: int) -> Iterator[Fault]:
    if len(vector) != p:
        yield Fault(place, "length", f"There are {len(vector)} entries for {p} parameters, which b_0 counts.")
    for i in np.flatnonzero(np.abs(vector) > LARGEST_MAGNITUDE)[:1]:
        yield _too_large(f"{place}/{i}")


def _too_large(place: str) -> Fault:
    return Fault(
        place, "too_large", f"Magnitudes above {LARGEST_MAGNITUDE:g} overflow; measure the parameters in larger units."
    )


def _matrix_faults(place: str, matrix: InlineMatrix) -> Iterator[Fault]:
    yield from _shape_faults(place, matrix)
    for large in np.argwhere(np.abs(matrix.values) > LARGEST_MAGNITUDE)[:1]:
        inside = "/values" if matrix.is_sparse else ""
        yield _too_large(place + inside + "".join(f"/{index}" for index in large))
    yield from _asymmetry(place, matrix)


def _shape_faults(place: str, matrix: InlineMatrix) -> Iterator[Fault]:
    """Faults of the lists themselves. The arrays of a matrix are made after this check."""
    sent, p = matrix.sent, matrix.p
    if isinstance(sent, SparseMatrix):
        yield from _entry_faults(place, sent, matrix)
        return
    if len(sent) != p:
        yield Fault(place, "shape", f"There are {len(sent)} rows for {p} parameters, which b_0 counts.")
    for i, row in enumerate(sent):
        if len(row) != p:
            yield Fault(f"{place}/{i}", "shape", f"This row has {len(row)} entries for {p} parameters.")


def _entry_faults(place: str, sent: SparseMatrix, matrix: InlineMatrix) -> Iterator[Fault]:
    p = matrix.p
    for name in ("rows", "columns"):
        given = matrix.places[name]
        if len(given) != len(sent.values):
            yield Fault(f"{place}/{name}", "length", f"There are {len(given)} of them for {len(sent.values)} values.")
        for i in np.flatnonzero(given >= p)[:1]:
            text = f"There is no row or column {given[i]}: with {p} parameters the last one is {p - 1}."
            yield Fault(f"{place}/{name}/{i}", "out_of_range", text)


def _asymmetry(place: str, matrix: InlineMatrix) -> Iterator[Fault]:
    if matrix.is_symmetric:
        return
    A = matrix.entries  # noqa: N806
    D = coo_array(abs(A - A.T))  # noqa: N806
    for i in np.flatnonzero(D.data > ASYMMETRY * np.abs(A.data).max(initial=0.0))[:1]:
        row, column = sorted(int(axis[i]) for axis in D.coords)
        text = f"Entries ({row}, {column}) and ({column}, {row}) differ; send (A + A^T) / 2, which means the same."
        if matrix.is_sparse:
            text = text.replace("send", "give both triangles, or")
            yield Fault(place, "not_symmetric", text)
        else:
            yield Fault(f"{place}/{row}/{column}", "not_symmetric", text)


def criteria_problem(given: InlineCriteria) -> Problem:
    """The criteria as matrices. Call `criteria_faults` first."""
    p, count = given.p, max(len(given.matrices), len(given.vectors))
    zero = np.zeros(p)
    matrices = [_symmetric(matrix, p) for matrix in given.matrices]
    vectors = [zero if vector is None else vector for vector in given.vectors]
    matrices += [csr_array((p, p))] * (count - len(matrices))
    vectors += [zero] * (count - len(vectors))
    e, constant = zero if given.e is None else given.e, given.data.selection.constant
    criteria = Criteria(tuple(matrices), np.column_stack(vectors), _symmetric(given.Q, p), e, constant)
    return empty_problem(criteria)


def _symmetric(matrix: InlineMatrix | None, p: int) -> csr_array:
    return csr_array((p, p)) if matrix is None else matrix.symmetric_part


def encode_criteria(criteria: Criteria) -> bytes:
    """The criteria as an npz archive: the entries of all matrices one after another, those of E last."""
    parts = [A.tocoo() for A in (*criteria.matrices, criteria.Q)]
    buffer = io.BytesIO()
    np.savez(
        buffer,
        allow_pickle=False,
        count=np.array([part.nnz for part in parts]),
        places=np.concatenate([np.array(part.coords, dtype=np.int32) for part in parts], axis=1),
        values=np.concatenate([part.data for part in parts]),
        vectors=criteria.vectors,
        selection=np.append(criteria.e, criteria.constant),
    )
    return buffer.getvalue()


def decode_criteria(archive: Mapping[str, Array]) -> Problem:
    """What `encode_criteria` was given."""
    vectors = np.ascontiguousarray(archive["vectors"])
    p, ends = len(vectors), np.cumsum(archive["count"])[:-1]
    places, values = np.split(archive["places"], ends, axis=1), np.split(archive["values"], ends)
    *matrices, Q = (  # noqa: N806
        csr_array((entries, tuple(at)), shape=(p, p)) for entries, at in zip(values, places, strict=True)
    )
    selection = archive["selection"]
    return empty_problem(Criteria(tuple(matrices), vectors, Q, selection[:-1], float(selection[-1])))


def describe_criteria(problem: Problem, encoded: bytes) -> dict[str, Any]:
    """What the description of a job says of its criteria: their sizes and a hash."""
    criteria = problem.criteria
    assert criteria is not None
    return {
        "parameters": criteria.p,
        "matrices": len(criteria.matrices),
        "entries": sum(A.nnz for A in criteria.matrices),
        "sha256": hashlib.sha256(encoded).hexdigest(),
    }
