"""What a class is: abstract or final. Others ask it for what it does and never which class it is."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType

import pytest

import worker.core

ROOT = Path(__file__).parents[2]
LONGEST_FUNCTION = 50  # lines
# Choices by one of the core's own classes, in the order of their modules, each with its reason.
CHOICES = {
    ("losses/relative.py", "isinstance(delta, RelativeDelta)"): "a number or settings: the wire allows both",
    ("names.py", "isinstance(names, NameList)"): "callers give a tuple or a list of names: the border of that class",
    ("names.py", "isinstance(other, tuple | NameList)"): "equality of a list of names, with itself or a tuple",
}
FOREIGN = {"str", "int", "float", "tuple", "list", "dict", "range", "slice", "frozenset", "np", "ndarray", "csr_array"}


def core_classes() -> list[type]:
    found = {}
    for module in pkgutil.walk_packages(worker.core.__path__, "worker.core."):
        for member in vars(importlib.import_module(module.name)).values():
            if inspect.isclass(member) and member.__module__.startswith("worker.core"):
                found[f"{member.__module__}.{member.__qualname__}"] = member
    return list(found.values())


def is_behaviour(value: object) -> bool:
    return isinstance(value, FunctionType | property | classmethod | staticmethod)


def overrides(one: type) -> Iterator[str]:
    """Concrete methods of a base that a class replaces. What a dataclass writes itself does not count."""
    for name, value in vars(one).items():
        if not is_behaviour(value) or (name.startswith("__") and name.endswith("__")):
            continue
        for base in one.__mro__[1:]:
            replaced = vars(base).get(name)
            is_own = base.__module__.startswith("worker.core") and not getattr(base, "_is_protocol", False)
            if is_own and is_behaviour(replaced) and not getattr(replaced, "__isabstractmethod__", False):
                yield f"{one.__qualname__}.{name} replaces that of {base.__qualname__}"


def test_no_class_replaces_a_concrete_method() -> None:
    assert len(core_classes()) > 150
    assert [text for one in core_classes() for text in overrides(one)] == []


def choices(tree: ast.Module) -> Iterator[str]:
    """Questions for a class: of isinstance on own classes, of match, of type(), and of attributes by literal names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            asked = node.func.id
            if asked in {"isinstance", "issubclass"}:
                names = {n.id for n in ast.walk(node.args[1]) if isinstance(n, ast.Name)}
                names |= {n.attr for n in ast.walk(node.args[1]) if isinstance(n, ast.Attribute)}
                if not names <= FOREIGN:
                    yield ast.unparse(node)
            elif asked in {"getattr", "hasattr"} and isinstance(node.args[1], ast.Constant):
                yield ast.unparse(node)
        elif isinstance(node, ast.MatchClass):
            yield f"case {ast.unparse(node.cls)}"
        elif isinstance(node, ast.Compare) and ast.unparse(node.left).startswith("type("):
            yield ast.unparse(node)


def test_choices_by_class_are_few_and_have_reasons() -> None:
    core = ROOT / "worker" / "core"
    found = [
        (str(path.relative_to(core)), text)
        for path in sorted(core.rglob("*.py"))
        for text in choices(ast.parse(path.read_text()))
    ]
    assert sorted(found) == sorted(CHOICES)


@pytest.mark.parametrize("room", ["worker", "service"])
def test_no_function_is_longer_than_a_screen(room: str) -> None:
    longer = [
        f"{path.relative_to(ROOT)}: {node.name}"
        for path in sorted((ROOT / room).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno >= LONGEST_FUNCTION
    ]
    assert longer == []
