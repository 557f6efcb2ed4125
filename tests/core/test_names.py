"""Lists of numbered names against plain tuples of the same names."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.core.names import NameList, Numbered, Part, Plain, places, without

PLAIN = st.lists(st.sampled_from(["a", "x", "x01", "town=Ulm", "y7", "z 3", ""]), unique=True, max_size=7).map(tuple)


@st.composite
def lists(draw: st.DrawFn) -> NameList:
    """Parts of every kind, whose names are all different."""
    free = {"x": list(range(60)), "": list(range(100, 130))}
    parts: list[Part] = [Plain(draw(PLAIN))]
    for _ in range(draw(st.integers(0, 20))):
        prefix = draw(st.sampled_from(sorted(free)))
        if draw(st.booleans()):
            chosen = free[prefix][: draw(st.integers(0, 4))]
            run = range(chosen[0], chosen[-1] + 1) if chosen else range(0)
            numbers: range | np.ndarray = run if len(run) == len(chosen) else np.array(chosen, int)
        else:
            chosen = draw(st.lists(st.sampled_from(free[prefix]), unique=True, max_size=4)) if free[prefix] else []
            numbers = np.array(chosen, int)
        free[prefix] = [number for number in free[prefix] if number not in chosen]
        parts.append(Numbered(prefix, numbers))
    parts.append(Plain(draw(st.sampled_from([(), ("b",), ("c", "b c", "x007")]))))
    return NameList(parts)


@pytest.mark.unchecked  # the checks draw random items of their own
@settings(max_examples=30)
@given(lists(), st.lists(st.from_regex(r"x?(0|[1-9]?[0-9]{1,2})?", fullmatch=True), max_size=8))
def test_a_list_is_the_tuple_of_its_names(names: NameList, others: list[str]) -> None:
    plain = tuple(names)
    asked = [*others, *plain[::3], "town=Ulm", "y8", "b c"]
    assert names == plain
    assert plain == names
    assert len(names) == len(plain)
    assert tuple(names[i] for i in range(-len(plain), len(plain))) == plain + plain
    assert names[1:-1] == plain[1:-1]
    assert [name in names for name in asked] == [name in plain for name in asked]
    assert places(names, asked).tolist() == places(plain, asked).tolist()
    assert places(plain, asked).tolist() == [plain.index(name) if name in plain else -1 for name in asked]
    assert without(names, asked) == tuple(name for name in plain if name not in asked)
    assert [names.index(name) for name in plain] == list(range(len(plain)))
    with pytest.raises(IndexError):
        names[len(plain)]
    with pytest.raises(ValueError, match="'none' is not in the list"):
        names.index("none")
    assert names != (*plain, "none")
    assert names != [*plain]
