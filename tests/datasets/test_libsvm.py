"""LIBSVM text: what it becomes, and what is refused."""

from __future__ import annotations

import re

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy import sparse

from tests.datasets.files import Shelf, libsvm
from worker.datasets import Limits, Reason
from worker.datasets.formats import libsvm as reader


def test_labels_and_pairs(shelf: Shelf):
    text = b"-1 3:1 11:.5 # a comment 7:1\n\n+1 1:-2e-3\t2:4 \r\n  0\n# nothing\n2.5 5:1\n"
    table = shelf.table(text, "libsvm")
    assert [c.name for c in table.dataset.columns] == ["label"]
    assert_array_equal(table.dense[:, 0], [-1, 1, 0, 2.5])
    expected = np.zeros((4, 11))
    expected[[0, 0, 1, 1, 3], [2, 10, 0, 1, 4]] = [1, 0.5, -2e-3, 4, 1]
    assert table.sparse is not None
    assert_array_equal(table.sparse.toarray(), expected)
    columns = table.dataset.sparse
    assert columns is not None
    assert (columns.name(0), columns.index("11"), columns.index("12"), columns.index("0")) == ("1", 10, None, None)
    assert (columns.min, columns.max, columns.nonzeros) == (-2e-3, 4, 5)


@pytest.mark.parametrize("block", [300, 3000, 2**22])
@pytest.mark.parametrize("newline", [True, False])
def test_blocks_of_any_size(shelf: Shelf, monkeypatch: pytest.MonkeyPatch, block: int, newline: bool):
    monkeypatch.setattr(reader, "BLOCK", block)
    rng = np.random.default_rng(0)
    matrix = sparse.random_array((200, 30), density=0.1, rng=rng, format="csr")
    labels = rng.normal(size=200)
    text = libsvm(matrix, labels)
    table = shelf.table(text if newline else text[:-1], "libsvm")
    assert_array_equal(table.dense[:, 0], labels)
    assert table.sparse is not None
    width = table.sparse.shape[1]
    assert_array_equal(table.sparse.toarray(), matrix.toarray()[:, :width])


@pytest.mark.parametrize("block", [100, 2**20])
def test_indices_from_0(shelf: Shelf, monkeypatch: pytest.MonkeyPatch, block: int):
    """Where the one index that is 0 stands does not matter."""
    monkeypatch.setattr(reader, "BLOCK", block)
    matrix = sparse.random_array((60, 9), density=0.5, rng=np.random.default_rng(1), format="lil")
    matrix[:, 0], matrix[:, 8], matrix[59, 0] = 0, 1, 7
    text = libsvm(matrix.tocsr(), np.arange(60))
    table = shelf.table(re.sub(rb"(\d+):", lambda found: b"%d:" % (int(found[1]) - 1), text), "libsvm")
    assert table.sparse is not None
    assert_array_equal(table.sparse.toarray(), matrix.toarray())
    assert_array_equal(table.dense[:, 0], np.arange(60))
    columns = table.dataset.sparse
    assert columns is not None
    assert (columns.name(0), columns.index("8"), columns.index("9")) == ("0", 8, None)


REFUSED = {
    "empty": (b"", "/rows", "empty"),
    "comments only": (b"# a\n\n", "/rows", "empty"),
    "no label": (b"1 1:2\n1:2 2:3\n", "/lines/1", "label"),
    "two labels": (b"1 1:2\n1 2 3:4\n", "/lines/1", "label"),
    "label at the end": (b"1 1:2 3\n", "/lines/0", "label"),
    "several labels": (b"1 1:2\n1,2 3:4\n", "/lines/1", "number"),
    "text": (b"1 1:2\n1 2:x\n", "/lines/1", "number"),
    "index no number": (b"1 1:2\n1 qid:4 2:3\n", "/lines/1", "number"),
    "index negative": (b"1 -1:2\n", "/lines/0", "index"),
    "index fraction": (b"1 1.5:2\n", "/lines/0", "number"),
    "index huge": (b"1 99999999999:2\n", "/rows/0", "index"),
    "index descending": (b"1 1:2\n1 3:1 2:1\n", "/rows/1", "order"),
    "index twice": (b"1 1:2\n1 3:1 3:1\n", "/rows/1", "order"),
    "blank after colon": (b"1 1: 2\n", "/lines/0", "pair"),
    "blank before colon": (b"1 1 :2\n", "/lines/0", "pair"),
    "two colons": (b"1 1:2\n1 1::2\n", "/lines/1", "pair"),
    "three parts": (b"1 1:2:3\n", "/lines/0", "pair"),
    "colon at the end": (b"1 1:\n", "/lines/0", "pair"),
    "infinite": (b"1 1:2\n1 1:inf\n", "/rows/1", "not_finite"),
    "missing": (b"1 1:nan\n", "/rows/0", "not_finite"),
    "infinite label": (b"1 1:2\ninf 1:3\n", "/rows/1/columns/0", "infinite"),
    "bytes": (b"1 1:2\n\xff\x00 1:3\n", "/lines/1", "number"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_the_place(shelf: Shelf, case: str):
    content, pointer, code = REFUSED[case]
    assert shelf.places(content, "libsvm") == [(pointer, code)]


def test_limits(shelf: Shelf, monkeypatch: pytest.MonkeyPatch):
    assert shelf.refusal(b"1 1:1 2:1\n" * 501, "libsvm", Limits(values=1000)).reason is Reason.TOO_LARGE
    monkeypatch.setattr(reader, "BLOCK", 100)
    monkeypatch.setattr(reader, "LONGEST", 400)
    assert shelf.places(b"1 " + b"1" * 1000, "libsvm") == [("", "long_row")]
