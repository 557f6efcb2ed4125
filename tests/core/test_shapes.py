"""The checks of array shapes, which all other tests of the core rely on."""

from __future__ import annotations

from collections.abc import Callable

import jaxtyping
import numpy as np
import pytest
from beartype import beartype
from jaxtyping import Float
from numpy import ndarray

from tests import shapes
from worker.core.losses.elementary import growth

Row = Float[ndarray, "n"]
PAIR, TRIPLE = np.zeros(2), np.zeros(3)


def inner() -> Callable[..., object]:
    """A function within a function, decorated as the import hook does it."""

    @jaxtyping.jaxtyped(typechecker=beartype)
    def added(a: Row, b: Row) -> object:
        return len(a) + len(b)

    return added


def test_a_wrong_shape_is_refused():
    with pytest.raises(jaxtyping.TypeCheckError):
        growth(PAIR, TRIPLE)


def test_a_function_within_a_function_is_checked_once_a_test():
    with pytest.raises(jaxtyping.TypeCheckError):
        inner()(PAIR, TRIPLE)
    assert inner()(PAIR, TRIPLE) == 5  # defined again
    shapes.check(True)
    with pytest.raises(jaxtyping.TypeCheckError):
        inner()(PAIR, TRIPLE)


@pytest.mark.unchecked
def test_without_checks_nothing_is_refused():
    assert inner()(PAIR, TRIPLE) == 5
