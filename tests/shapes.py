"""Array shapes of the core, checked at run time as its annotations state them."""

from __future__ import annotations

from collections.abc import Callable
from types import CodeType
from typing import Any

import jaxtyping

_jaxtyped = jaxtyping.jaxtyped
_inner: set[CodeType] = set()  # functions within functions that this test has defined


def install() -> None:
    """Before the core is imported: its functions and dataclasses get their checks, which `check` turns on and off."""
    jaxtyping.jaxtyped = _sparing
    jaxtyping.install_import_hook("worker.core", "beartype.beartype")


def check(on: bool) -> None:
    """For the test that begins now."""
    jaxtyping.config.update("jaxtyping_disable", not on)
    _inner.clear()


def _sparing(typechecker: Any) -> Callable[[Any], Any]:
    """`jaxtyped`, but for a function within a function only the first time that a test defines it.

    Checks are compiled at each definition, in about a millisecond. That was most of the time of the core's tests.
    """
    decorate = _jaxtyped(typechecker=typechecker)

    def decorated(function: Any) -> Any:
        if "<locals>" not in getattr(function, "__qualname__", ""):
            return decorate(function)
        code = getattr(function, "__code__", None)
        if code is None or jaxtyping.config.jaxtyping_disable or code in _inner:
            return function
        _inner.add(code)
        return decorate(function)

    return decorated
