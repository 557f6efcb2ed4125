"""LIBSVM text: `label index:value index:value ...` a line, parsed whole blocks at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from worker.contract.dataset import Layout
from worker.datasets.draft import DenseWriter, Draft
from worker.datasets.integers import BEYOND, EXACT, is_lost
from worker.datasets.refusal import Limits, Piece, RefusedError, invalid
from worker.datasets.source import Source
from worker.datasets.sparse import SparseWriter

BLOCK = 2**20  # bytes parsed together, which takes some 40 times as many
LONGEST = 2**24  # bytes of a line
_NEWLINE, _COLON = 10, 58
_SEPARATORS: Final = np.zeros(256, dtype=bool)
_SEPARATORS[[9, 11, 12, 13, 32, _NEWLINE, _COLON]] = True

Bytes = npt.NDArray[np.uint8]
Positions = npt.NDArray[np.int64]


def read_libsvm(source: Source, directory: Path, limits: Limits) -> Draft:
    """Read LIBSVM text: the dense column `label`, then sparse columns named by their indices.

    These begin at 1, or at 0 where an index is 0 (as scikit-learn writes).
    """
    try:
        return _read(source, directory, limits, 1)
    except _ZeroBasedError:
        return _read(source, directory, limits, 0)


class _ZeroBasedError(Exception):
    """An index is 0."""


def _read(source: Source, directory: Path, limits: Limits, first: int) -> Draft:
    piece = Piece("a block of lines", "send the matrix as NPZ, by `scipy.sparse.save_npz`")
    with (
        piece.within(limits),
        source.open() as stream,
        DenseWriter(directory, ["label"], limits) as dense,
        SparseWriter(directory, limits) as entries,
    ):
        for first_line, block in _blocks(stream):
            labels, data, indices, counts = parse(block, first_line)
            if len(indices) and int(indices.min()) < first:
                raise _ZeroBasedError
            if len(labels):
                dense.add(labels[:, None])
                entries.add(data, indices - first, counts)
        draft = dense.finish(["number"], {})
        sparse, layout, files = entries.finish(prefix="", first=first)
    joined = Layout(dense=draft.layout.dense, sparse=layout, files={**draft.layout.files, **files})
    return draft.model_copy(update={"sparse": sparse, "layout": joined})


def _blocks(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Blocks of whole lines, each with the number of its first line, counted from 1."""
    line, rest = 1, b""
    while part := stream.read(BLOCK):
        whole, newline, after = part.rpartition(b"\n")
        if not newline:
            rest += part
            if len(rest) > LONGEST:
                raise invalid("", "long_row", f"Line {line} is longer than {LONGEST} bytes.")
            continue
        block, rest = rest + whole + newline, after
        yield line, block
        line += block.count(b"\n")
    if rest:
        yield line, rest + b"\n"


def parse(block: bytes, first_line: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any], Positions, Positions]:
    """Labels, values, indices and the number of entries of each line. Raises RefusedError with the line."""
    if b"#" in block:
        block = re.sub(rb"#[^\n]*", b"", block)
    text = np.frombuffer(block, np.uint8)
    lines = Lines(text, first_line)
    separator = _SEPARATORS[text]
    edges = np.flatnonzero(np.diff(separator, prepend=True, append=True))
    starts, ends = edges[::2], edges[1::2]
    if not len(starts):
        return np.empty(0), np.empty(0), np.empty(0, np.int64), np.empty(0, np.int64)
    after = text[np.minimum(ends, len(text) - 1)] == _COLON
    before = np.concatenate([[False], text[starts[1:] - 1] == _COLON])
    _check_pairs(text, starts, ends, before, after, lines)
    label = ~before & ~after
    row = lines.of(starts)
    new = np.concatenate([[True], row[1:] != row[:-1]])
    wrong = np.flatnonzero(label != new)
    if len(wrong):
        raise lines.refusal(starts[wrong[0]], "label", "a line is one label, then pairs of index:value.")
    kept = text[~separator]
    lengths = ends - starts
    labels = _cast(kept, lengths, label, pa.float64(), starts, lines, "the label is no number")
    indices = _cast(kept, lengths, after, pa.int64(), starts, lines, "an index is no whole number")
    values = _cast(kept, lengths, before, pa.float64(), starts, lines, "a value is no number")
    low = np.flatnonzero(indices < 0)
    if len(low):
        raise lines.refusal(starts[after][low[0]], "index", "an index is below 0; they begin at 0 or 1.")
    counts = np.diff(np.flatnonzero(np.concatenate([label, [True]])), append=0)[:-1] // 2
    return labels, values, indices, counts.astype(np.int64)


class Lines:
    """Where the lines of a block begin."""

    def __init__(self, text: Bytes, first: int) -> None:
        self._ends, self._first = np.flatnonzero(text == _NEWLINE), first

    def of(self, positions: Positions) -> Positions:
        """The line of each byte, counted from 0."""
        return np.searchsorted(self._ends, positions)

    def refusal(self, position: np.int64, code: str, text: str) -> RefusedError:
        """The refusal of a file for what is at a byte."""
        line = int(self.of(np.array([position]))[0]) + self._first
        return invalid(f"/lines/{line - 1}", code, f"Line {line}: {text}")


def _check_pairs(text: Bytes, starts: Positions, ends: Positions, before: Any, after: Any, lines: Lines) -> None:
    """Each index is followed by a colon and its value, without blanks."""
    colons = int((text == _COLON).sum())
    follows = np.concatenate([after[:-1] & before[1:] & (starts[1:] == ends[:-1] + 1), [False]])
    wrong = (after & ~follows) | (after & before)
    if int(follows.sum()) == colons and not wrong.any():
        return
    broken = np.flatnonzero(wrong)
    lone = np.flatnonzero(text == _COLON)
    position = starts[broken[0]] if len(broken) else lone[0]
    raise lines.refusal(position, "pair", "an entry is written index:value, without blanks.")


def _cast(
    kept: Bytes, lengths: Positions, wanted: Any, kind: pa.DataType, starts: Positions, lines: Lines, fault: str
) -> npt.NDArray[Any]:
    """The wanted words as numbers: their bytes, one after the other, are the buffer of an Arrow array of texts."""
    sizes = lengths[wanted]
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    letters = kept[np.repeat(wanted, lengths)]
    words = pa.StringArray.from_buffers(len(sizes), pa.py_buffer(offsets), pa.py_buffer(letters))
    try:
        numbers = np.asarray(pc.cast(words, kind).to_numpy())
    except pa.ArrowInvalid:
        position = starts[wanted][_first_bad(words, kind)]
    else:
        _check_exact(words, numbers, starts[wanted], lines)
        return numbers
    hint = "; several labels of one line are not supported" if fault.startswith("the label") else ""
    raise lines.refusal(position, "number", f"{fault}{hint}.")


def _check_exact(words: pa.StringArray, numbers: npt.NDArray[Any], starts: Positions, lines: Lines) -> None:
    """Raise RefusedError for an integer that float64 cannot tell from its neighbours."""
    if numbers.dtype != np.float64 or not len(numbers) or not (numbers.max() >= EXACT or numbers.min() <= -EXACT):
        return
    for place in np.flatnonzero(np.abs(numbers) >= EXACT).tolist():
        if is_lost(words[place].as_py()):
            remedy = "number classes from 0 on, or write a point (1.0e18) where it may be rounded"
            raise lines.refusal(starts[place], BEYOND, f"an integer beyond 2^53 does not survive as float64; {remedy}.")


def _first_bad(words: pa.StringArray, kind: pa.DataType) -> int:
    """The first word that is no number, by bisection."""
    low, high = 0, len(words)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            pc.cast(words.slice(low, middle - low), kind)
            low = middle
        except pa.ArrowInvalid:
            high = middle
    return low
