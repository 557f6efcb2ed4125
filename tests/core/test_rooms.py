"""The layout of the core: one name for one thing, and BLAS in one place."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "worker" / "core"
FILES = sorted(CORE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text()) for path in FILES}


def repeated(names: list[str]) -> list[str]:
    return sorted(name for name, count in Counter(names).items() if count > 1)


def test_no_two_files_have_one_name():
    assert not repeated([path.name for path in FILES if path.name != "__init__.py"])


def test_no_two_classes_have_one_name():
    assert not repeated([node.name for tree in TREES.values() for node in tree.body if isinstance(node, ast.ClassDef)])


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CORE)))
def test_only_linalg_calls_blas_and_lapack(path: Path):
    imported = {
        alias.name
        for node in ast.walk(TREES[path])
        if isinstance(node, ast.ImportFrom) and node.module == "scipy.linalg"
        for alias in node.names
    }
    assert path.parent == CORE / "linalg" or not imported & {"blas", "lapack"}


def test_the_notation_names_packages_that_there_are():
    table = (ROOT / "docs" / "NOTATION.md").read_text().partition("## Scale")[0]
    rows = re.findall(r"^\| (.+?) \| (?:.+) \| (.*?) ?\|$", table, re.MULTILINE)[2:]
    assert len(rows) > 10
    for _, places in rows:
        for place in re.findall(r"`([\w.]+)`", places):
            found = CORE / (place if place.endswith(".py") else place.replace(".", "/"))
            assert found.exists() or list(CORE.rglob(place)), place


def test_every_package_stands_in_the_description_of_the_house():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    packages = [path.name for path in CORE.iterdir() if (path / "__init__.py").exists()]
    assert len(packages) > 10
    assert [name for name in packages if not re.search(rf"^    {name}\s", text, re.MULTILINE)] == []
