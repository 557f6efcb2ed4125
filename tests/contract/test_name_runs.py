"""Names of hyperparameters as they are stored: read back as they were, short where they are numbered, never long."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from worker.contract.name_runs import MOST_BYTES, decode_names, encode_names

FEW = st.from_regex(r"[ab]?(0|01|9|10|[1-9][0-9]{0,1}|9{12,13})?[]b]?", fullmatch=True)


@st.composite
def neighbours(draw: st.DrawFn) -> list[str]:
    """Runs of numbered names, in order or not, one after another."""
    names = []
    for _ in range(draw(st.integers(1, 5))):
        prefix, suffix = draw(st.sampled_from(["", "x", "x0", "x1_", "p[x"])), draw(st.sampled_from(["", "]", "nm]"]))
        first = draw(st.integers(0, 12) | st.integers(10**12 - 3, 10**12 + 3))
        names += [f"{prefix}{first + j}{suffix}" for j in range(draw(st.integers(1, 5)))]
    return names


@given(neighbours() | st.lists(FEW) | st.lists(st.text()))
@example(["x1", "x2", "x3", "x", "x4"])
def test_any_names_are_read_back(names: list[str]) -> None:
    assert decode_names(encode_names(names)) == names


def test_numbered_names_are_short() -> None:
    assert encode_names([f"penalty[x{j}]" for j in range(100_000)]) == b'[["penalty[x",0,99999,"]"]]'
    assert encode_names(["a1", "a2", "b3", "b4", "b5"]) == b'["a1","a2",["b",3,5,""]]'


def test_names_that_take_too_many_bytes_are_not_encoded() -> None:
    for name in ("gene%05d", "\x01%05d", "ä%05d"):  # characters of one byte, of six bytes in JSON, of two
        names = [name % (7919 * j % 99_991) for j in range(20_000)]
        assert encode_names(names) == b""
        assert 0 < len(encode_names(names[:4000])) <= MOST_BYTES
