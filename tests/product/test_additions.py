"""A member that a test adds goes the same way as the others, with no other file changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.product.additions.install import ADDITIONS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wrong() -> dict[str, list[str]]:
    """What went wrong with each addition, in a process in which they are members from the beginning."""
    command = [sys.executable, "-m", "tests.product.additions"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=110)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return dict(json.loads(ran.stdout.splitlines()[-1]))


@pytest.mark.parametrize("kind", ADDITIONS)
def test_an_addition_is_listed_refused_run_and_predicts(wrong: dict[str, list[str]], kind: str) -> None:
    assert wrong[kind] == []
