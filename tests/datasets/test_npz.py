"""NPZ files: dense arrays and scipy's sparse matrices, and what is refused."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy import sparse

from tests.datasets.files import Shelf, npy, npz, sample_matrix, scipy_npz
from worker.datasets import Limits, Reason
from worker.datasets.formats import npz as reader

X = np.arange(2400.0).reshape(1200, 2)
TEXTS = np.array(["b", "", "a"] * 400)


@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_side_by_side(shelf: Shelf, order: str):
    flags = np.arange(3600).reshape(1200, 3) % 2 == 0
    table = shelf.table(npz(X=np.asarray(X, order=order), y=TEXTS, mask=flags, d=X[:, 0].astype("M8[D]")), "npz")
    assert [c.name for c in table.dataset.columns] == ["x0", "x1", "y", "mask0", "mask1", "mask2", "d"]
    codes = np.array([1, np.nan, 0] * 400)
    assert_array_equal(table.dense, np.column_stack([X, codes, flags, X[:, 0]]))
    assert table.dataset.columns[2].categories == ["a", "b"]
    assert table.dataset.columns[6].type == "date"


@pytest.mark.parametrize("form", ["csr", "csc", "coo"])
@pytest.mark.parametrize("dtype", ["float64", "int16", "bool"])
@pytest.mark.parametrize("make", [sparse.csr_array, sparse.csr_matrix])
def test_a_sparse_matrix_with_labels(shelf: Shelf, form: str, dtype: str, make):
    matrix = make(sample_matrix().astype(dtype))
    labels = np.array(["spam", "ham", "spam", "ham", "ham", "spam"])
    table = shelf.table(scipy_npz(matrix.asformat(form), kind=labels, weight=np.arange(6)), "npz")
    assert table.sparse is not None
    assert_array_equal(table.sparse.toarray(), matrix.toarray())
    assert_array_equal(table.dense, np.column_stack([[1, 0, 1, 0, 0, 1], range(6)]))
    dataset = table.dataset
    assert dataset.sparse is not None
    assert (dataset.width, dataset.sparse.columns, dataset.sparse.nonzeros) == (7, 5, matrix.nnz)
    assert ([dataset.sparse.name(j) for j in (0, 4)], dataset.sparse.index("x3")) == (["x0", "x4"], 3)
    assert [dataset.sparse.index(name) for name in ("x5", "x03", "3", "x", "x-1")] == [None] * 5


def test_without_labels_there_is_no_dense_part(shelf: Shelf):
    table = shelf.table(scipy_npz(sample_matrix()), "npz")
    assert table.dense.shape == (6, 0)


def test_many_blocks_and_entries_out_of_order(shelf: Shelf, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reader, "BLOCK", 50)
    whole = sparse.random_array((300, 40), density=0.2, rng=np.random.default_rng(0), format="csr")
    shuffled = whole.copy()
    for i in range(300):
        part = slice(whole.indptr[i], whole.indptr[i + 1])
        shuffled.indices[part], shuffled.data[part] = whole.indices[part][::-1], whole.data[part][::-1]
    table = shelf.table(scipy_npz(shuffled), "npz")
    assert table.sparse is not None
    assert_array_equal(table.sparse.toarray(), whole.toarray())
    assert table.sparse.has_sorted_indices


@pytest.mark.parametrize("dtype", ["f8", "i2", "U3", "M8[D]"])
@pytest.mark.parametrize("compressed", [True, False])
def test_matrices_in_both_orders_side_by_side(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, dtype: str, compressed: bool
):
    """`to_numpy` of pandas gives F order; blocks of rows are made of it without taking it into memory."""
    monkeypatch.setattr(reader, "BLOCK", 700)
    values = np.random.default_rng(2).integers(100, 999, (1500, 3))
    array = values.astype(dtype) if dtype != "M8[D]" else values.astype("M8[D]")
    buffer = io.BytesIO()
    save = np.savez_compressed if compressed else np.savez
    save(buffer, a=np.asfortranarray(array), b=array, c=np.asfortranarray(array)[:, :1])
    table = shelf.table(buffer.getvalue(), "npz")
    read = np.empty_like(table.dense)
    for j, column in enumerate(table.dataset.columns):
        codes = table.dense[:, j]
        read[:, j] = np.array(column.categories, float)[codes.astype(int)] if column.categories else codes
    assert_array_equal(read, np.column_stack([values, values, values[:, :1]]))


def archive(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def csr(**changed: np.ndarray) -> bytes:
    parts = {
        "format": np.array(b"csr"), "shape": np.array([2, 3]), "data": np.ones(2), "indices": np.array([0, 2]),
        "indptr": np.array([0, 1, 2]),
    }  # fmt: skip
    return npz(**{**parts, **changed})


def damaged(content: bytes, mark: bytes, offset: int, change: int) -> bytes:
    """The content with a change of the byte `offset` bytes after the last mark."""
    place = content.rindex(mark) + offset
    return content[:place] + bytes([content[place] ^ change]) + content[place + 1 :]


ONE = npy(np.ones(3))
TWO = archive(**{"x.npy": ONE, "y.npy": ONE})
ENTRY, END = b"PK\x01\x02", b"PK\x05\x06"
REFUSED = {
    "no arrays": (archive(), "", "empty"),
    "no zip": (b"PK\x03\x04 and no more", "", "zip"),
    "an array before the start": (damaged(TWO, END, 19, 2), "/arrays/x", "zip"),
    "an array elsewhere": (damaged(TWO, ENTRY, 42, 4), "/arrays/y", "zip"),  # further on
    "another checksum": (damaged(npz(x=X, y=np.arange(1200.0)), ENTRY, 16, 1), "/arrays/y", "zip"),
    "zip slip": (archive(**{"../../etc/x.npy": ONE}), "/arrays/..~1..~1etc~1x.npy", "name"),
    "absolute": (archive(**{"/etc/x.npy": ONE}), "/arrays/~1etc~1x.npy", "name"),
    "backslash": (archive(**{"..\\x.npy": ONE}), "/arrays/..\\x.npy", "name"),
    "no array": (archive(**{"x.txt": b"hello"}), "/arrays/x.txt", "name"),
    "not an array": (archive(**{"x.npy": b"hello"}), "/header", "npy_header"),
    "pickled": (npz(x=np.array([{}, 1])), "/header", "pickled"),
    "lengths": (npz(X=X, y=X[:-1, 0]), "/arrays/y", "rows"),
    "scalar": (npz(x=np.float64(1.0)), "/arrays/x", "dimensions"),
    "cube": (npz(x=np.zeros((2, 2, 2))), "/arrays/x", "dimensions"),
    "nothing": (npz(x=np.zeros((0, 2))), "/arrays/x", "empty"),
    "complex": (npz(x=np.array([1j])), "/columns/0", "dtype"),
    "same names": (npz(X=X, x0=X[:, 0]), "/columns/2", "duplicate_name"),
    "infinite": (npz(X=X, y=np.where(X[:, 0] == 8, np.inf, 0)), "/rows/4/columns/2", "infinite"),
    "short": (archive(**{"x.npy": ONE[:-8]}), "/arrays/x", "length"),
    "long": (archive(**{"x.npy": ONE + b"more"}), "/arrays/x", "length"),
    "dia": (scipy_npz(sparse.dia_array((np.ones((1, 3)), [0]), shape=(3, 3))), "/arrays/format", "format"),
    "no data": (csr(data=np.ones((2, 1))), "/arrays/data", "missing"),
    "texts": (csr(data=np.array(["a", "b"])), "/arrays/data", "dtype"),
    "pointers descend": (csr(indptr=np.array([0, 3, 2])), "/arrays/indptr", "structure"),
    "pointers too few": (csr(indptr=np.array([0, 2])), "/arrays/indptr", "structure"),
    "pointers from 1": (csr(indptr=np.array([1, 1, 2])), "/arrays/indptr", "structure"),
    "column outside": (csr(indices=np.array([0, 3])), "/arrays/indices", "structure"),
    "column below": (csr(indices=np.array([0, -1])), "/arrays/indices", "structure"),
    "indices too few": (csr(indices=np.array([0])), "/arrays/indices", "structure"),
    "no shape": (csr(shape=np.array([2, 3, 4])), "/arrays/format", "format"),
    "no rows": (csr(shape=np.array([0, 3])), "/arrays/shape", "empty"),
    "entry not finite": (csr(data=np.array([1.0, np.nan])), "/rows/1", "not_finite"),
    "labels too few": (csr(y=np.ones(1)), "/arrays/y", "rows"),
    "csc outside": (csr(format=np.array(b"csc"), indptr=np.array([0, 1, 1, 2])), "/arrays/indices", "structure"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_the_place(shelf: Shelf, case: str):
    content, pointer, code = REFUSED[case]
    assert shelf.places(content, "npz") == [(pointer, code)]
    assert not (shelf.path / "etc").exists()


def test_arrays_that_overlap_are_refused(shelf: Shelf):
    """Some versions of zipfile notice it at the first of the two, others at the second."""
    assert shelf.places(damaged(TWO, ENTRY, 42, 1), "npz") in ([("/arrays/x", "zip")], [("/arrays/y", "zip")])


def test_a_lying_header_costs_nothing(shelf: Shelf):
    honest = npy(np.zeros(10**6))
    lying = honest.replace(b"(1000000,)", b"(9999999,)")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("x.npy", lying)
    assert shelf.places(buffer.getvalue(), "npz") == [("/arrays/x", "length")]


WIDE = Limits(sparse_columns=2**31 - 1)


def test_limits(shelf: Shelf):
    limits = Limits(values=1000, columns=100)
    for content in (npz(X=np.zeros(1001)), scipy_npz(sparse.csr_array(np.ones((40, 30))))):
        assert shelf.refusal(content, "npz", limits).reason is Reason.TOO_LARGE
    wide = shelf.refusal(npz(X=np.zeros((2, 101))), "npz", limits)
    assert wide.reason is Reason.TOO_LARGE
    shelf.table(scipy_npz(sparse.csr_array(([1.0], [10**9], [0, 1]), shape=(1, 2**31 - 1))), "npz", WIDE)


@pytest.mark.parametrize("kind", ["csr", "csc", "coo"])
def test_the_sparse_columns_are_limited_as_the_file_says_them(shelf: Shelf, kind: str) -> None:
    """Before anything is made that grows with the columns, and whether a column is used or not."""
    matrix = sparse.coo_array(([1.0], ([0], [1])), shape=(2, 301)).asformat(kind)
    for limit, refused in ((300, True), (301, False)):
        limits = Limits(sparse_columns=limit)
        if not refused:
            assert shelf.table(scipy_npz(matrix), "npz", limits).dataset.sparse.columns == 301
            continue
        refusal = shelf.refusal(scipy_npz(matrix), "npz", limits)
        assert refusal.reason is Reason.TOO_LARGE
        assert "300 sparse columns (GRADTUNE_DATASET_MAX_SPARSE_COLUMNS)" in refusal.detail
        assert " 301;" in refusal.detail
