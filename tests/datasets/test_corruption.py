"""Damaged files: every prefix of a small file of each kind, and random flips of bytes."""

from __future__ import annotations

import contextlib
import csv
import io

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.datasets.files import Shelf, samples
from worker.datasets import RefusedError, Table

SAMPLES = samples()
TEXTS = {"csv", "libsvm"}


def sound(table: Table) -> None:
    """What workers rely on, whatever the file was."""
    dataset = table.dataset
    assert table.dense.shape == (dataset.rows, len(dataset.columns))
    assert not np.isinf(table.dense).any()
    for j, column in enumerate(dataset.columns):
        assert column.missing == np.isnan(table.dense[:, j]).sum()
        if column.categories is not None:
            codes = table.dense[~np.isnan(table.dense[:, j]), j]
            assert ((codes >= 0) & (codes < len(column.categories)) & (codes % 1 == 0)).all()
    if table.sparse is not None:
        assert table.sparse.shape == (dataset.rows, dataset.width - len(dataset.columns))
        table.sparse.check_format(full_check=True)
        assert table.sparse.has_canonical_format
        assert np.isfinite(table.sparse.data).all()


@pytest.mark.parametrize("name", [name for name in SAMPLES if name not in TEXTS])
def test_no_prefix_of_a_binary_file_is_a_file(shelf: Shelf, name: str):
    kind, content = SAMPLES[name]
    sound(shelf.table(content, kind))
    for size in range(len(content)):
        assert shelf.refused(content[:size], kind)


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_a_prefix_of_a_text_is_refused_or_read_as_far_as_it_goes(shelf: Shelf, name: str):
    kind, content = SAMPLES[name]
    read = 0
    for size in range(len(content) + 1):
        try:
            table = shelf.table(content[:size], kind)
        except RefusedError:
            continue
        sound(table)
        read += 1
        lines = content[:size].decode().splitlines()
        rows = len(lines) if kind == "libsvm" else len(list(csv.reader(io.StringIO("\n".join(lines))))) - 1
        assert table.dataset.rows == rows
    assert 0 < read < len(content)


@pytest.mark.parametrize("name", SAMPLES)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_flipped_bytes_are_refused_or_harmless(shelf: Shelf, name: str, data: st.DataObject):
    kind, content = SAMPLES[name]
    places = st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(1, 255)), min_size=1, max_size=3)
    damaged = bytearray(content)
    for place, change in data.draw(places):
        damaged[place] ^= change
    with contextlib.suppress(RefusedError):
        sound(shelf.table(bytes(damaged), kind))
