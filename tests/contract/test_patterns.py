"""Patterns of names against `fnmatch`, and the bounds on them."""

from __future__ import annotations

import fnmatch
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.contract.patterns import MOST_CHARACTERS, MOST_MARKS, MOST_PATTERNS, Pattern, Texts, pattern_faults

LETTERS = "ab19]-![é"
PATTERNS = st.text(LETTERS + "*?[]", max_size=10)
NUMBERED = st.text("x0195*?", max_size=5) | st.sampled_from(
    ["[1-3]*", "*[!5]", "?[7-9]*1", "x[0-4][5-9]*", "*", "1?00"]
)


@settings(max_examples=50)
@given(PATTERNS, st.lists(st.text(LETTERS, max_size=9), max_size=12))
def test_names_match_as_in_fnmatch(pattern: str, names: list[str]) -> None:
    match = re.compile(fnmatch.translate(pattern)).match
    assert Pattern(pattern).among(Texts(names)).tolist() == [i for i, name in enumerate(names) if match(name)]


@settings(max_examples=50)
@given(st.integers(0, 80), PATTERNS, st.integers(0, 80), st.lists(st.text("ab", max_size=5), max_size=4))
def test_long_patterns_do(before: int, pattern: str, behind: int, inner: list[str]) -> None:
    whole = "a" * before + pattern + "b" * behind
    names = ["a" * before + text + "b" * behind for text in inner] + ["a" * before, "b" * behind, "ab"]
    match = re.compile(fnmatch.translate(whole)).match
    assert Pattern(whole).among(Texts(names)).tolist() == [i for i, name in enumerate(names) if match(name)]


@settings(max_examples=50)
@given(NUMBERED, st.sampled_from(["", "x"]), st.integers(0, 1), st.sampled_from([1, 7, 999, 1000, 1001, 2500]))
def test_numbered_names_do(pattern: str, prefix: str, first: int, count: int) -> None:
    match = re.compile(fnmatch.translate(pattern)).match
    wanted = [bool(match(f"{prefix}{number}")) for number in range(first, first + count)]
    assert Pattern(pattern).numbered(prefix, first, count).tolist() == wanted


def test_nothing_is_tried_twice() -> None:
    """Search with backtracking needs 10^20 steps for these."""
    names = Texts(["a" * 200] * 50)
    assert not Pattern("*a" * 29 + "*b").among(names).size
    assert Pattern("*a" * 30).among(names).tolist() == list(range(50))
    assert np.flatnonzero(Pattern("*1*1*1*1*1*1*").numbered("", 1, 2_000_000)).tolist()[0] == 111_110


def test_a_pattern_of_an_older_job_may_be_longer_than_any_of_today() -> None:
    names = Texts(["a" * 50 + "c" + "a" * 50, "b" * 101])
    assert Pattern("*" + "a?" * 50 + "*").is_long
    assert Pattern("*" + "[ac]" * 101 + "*").among(names).tolist() == [0]


@pytest.mark.parametrize(
    ("patterns", "names", "code", "pointer"),
    [
        (["*a"] * MOST_PATTERNS, ["a" * 100] * 2000, None, ""),
        (["*a"] * (MOST_PATTERNS + 1), ["a"], "too_many_patterns", str(MOST_PATTERNS)),
        (["*a"] * 100, ["a" * 100] * 2001, "too_many_patterns", str(MOST_CHARACTERS // 200_100)),
        (["a" * 100 + "?" * MOST_MARKS + "b" * 100], ["a"], None, ""),
        (["*a", "?" * (MOST_MARKS + 1)], ["a"], "long_pattern", "1"),
    ],
)
def test_bounds(patterns: list[str], names: list[str], code: str | None, pointer: str) -> None:
    found = list(pattern_faults([(str(i), text) for i, text in enumerate(patterns)], Texts(names)))
    assert [(fault.code, fault.pointer) for fault in found] == ([(code, pointer)] if code else [])
