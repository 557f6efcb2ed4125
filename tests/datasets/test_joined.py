"""Several files in one body: all rows are read, or the file is refused. What comes second is never lost in silence."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from numpy.testing import assert_array_equal

from tests.datasets.files import Shelf, arrow, npz, parquet, samples
from worker.contract.dataset import Format

BINARY = {name: sample for name, sample in samples().items() if sample[0] not in {"csv", "libsvm"}}


@pytest.mark.parametrize("name", BINARY)
def test_a_file_twice(shelf: Shelf, name: str):
    kind, content = BINARY[name]
    if name != "arrow stream":
        assert shelf.refusal(content + content, kind).faults[0].code in {"joined", "length"}
        return
    once, twice = shelf.table(content, kind), shelf.table(content + content, kind)
    assert twice.dataset.rows == 2 * once.dataset.rows
    assert_array_equal(twice.dense, np.vstack([once.dense, once.dense]))


@pytest.mark.parametrize("rows", [(5, 3), (3, 5), (4, 4)])
@pytest.mark.parametrize("codec", [None, "zstd"])
def test_streams_follow_one_another(shelf: Shelf, rows: tuple[int, int], codec: str | None):
    tables = [pa.table({"a": np.arange(n) + 10.0 * n, "t": [f"{n} {i}" for i in range(n)]}) for n in rows]
    content = b"".join(arrow(table, stream=True, rows=2, codec=codec) for table in [*tables, tables[0]])
    table = shelf.table(content, "arrow")
    expected = pa.concat_tables([*tables, tables[0]])
    assert_array_equal(table.dense[:, 0], expected["a"].to_numpy())
    categories = table.dataset.columns[1].categories
    assert categories is not None
    assert [categories[int(code)] for code in table.dense[:, 1]] == expected["t"].to_pylist()


OTHERS: dict[str, pa.Table] = {
    "another name": pa.table({"b": [1.0]}),
    "another type": pa.table({"a": ["x"]}),
    "more columns": pa.table({"a": [1.0], "b": [1.0]}),
}


@pytest.mark.parametrize("case", OTHERS)
def test_a_stream_of_another_table(shelf: Shelf, case: str):
    content = arrow(pa.table({"a": [1.0]}), stream=True) + arrow(OTHERS[case], stream=True)
    assert shelf.places(content, "arrow") == [("", "joined")]


@pytest.mark.parametrize("rest", [b"\x00", b"\x00" * 8, b"\xff\xff\xff\xff", b"rest of another file"])
def test_a_stream_and_something_else(shelf: Shelf, rest: bytes):
    (fault,) = shelf.refusal(arrow(pa.table({"a": [1.0]}), stream=True) + rest, "arrow").faults
    assert fault.code in {"length", "unreadable"}


def test_a_stream_whose_second_part_is_cut_off(shelf: Shelf):
    content = arrow(pa.table({"a": np.arange(9.0)}), stream=True)
    for cut in (*range(1, 20), *range(20, len(content), 53)):
        shelf.refusal(content + content[:-cut], "arrow")


JOINED: dict[str, tuple[Format, list[bytes]]] = {
    "parquet": ("parquet", [parquet(pa.table({"a": np.arange(n) + 0.5})) for n in (700, 700, 1)]),
    "arrow": ("arrow", [arrow(pa.table({"a": np.arange(n) + 0.5})) for n in (700, 700, 1)]),
    "npz": ("npz", [npz(X=np.arange(n) + 0.5) for n in (700, 700, 1)]),
}


@pytest.mark.parametrize("name", JOINED)
def test_files_that_are_found_by_their_end(shelf: Shelf, name: str):
    kind, files = JOINED[name]
    for parts in ([0, 1], [0, 2], [2, 0], [0, 1, 2]):
        refusal = shelf.refusal(b"".join(files[i] for i in parts), kind)
        assert refusal.faults[0].code in {"joined", "unreadable"}
