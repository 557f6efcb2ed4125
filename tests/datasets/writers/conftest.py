from __future__ import annotations

import importlib

import pytest


@pytest.fixture(scope="session", autouse=True)
def _writers() -> None:
    """Imported before any test, as some set variables of the environment. Without the extra test-files this fails."""
    for name in ("duckdb", "fastparquet", "pandas", "polars", "pyarrow", "sklearn.datasets"):
        importlib.import_module(name)
