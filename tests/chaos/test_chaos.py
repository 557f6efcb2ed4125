"""A short run for each way to run the service: whatever is broken, nothing is lost, doubled or changed."""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.chaos import network
from tests.chaos.processes import ROOT

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(400)]
needs_redis = pytest.mark.skipif(shutil.which("redis-server") is None, reason="there is no redis-server on PATH")


def broken(*words: str, seconds: int = 20) -> dict[str, Any]:
    """The report of a run in a process of its own, and nothing else left of it."""
    command = [sys.executable, "-m", "tests.chaos", "--json", "--seconds", str(seconds), *words]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        output, errors = process.communicate(timeout=360)
    except BaseException:
        process.terminate()
        process.wait(60)
        raise
    assert process.returncode in {0, 1}, errors
    return dict(json.loads(output))


def judge(report: dict[str, Any]) -> None:
    assert report["sentences"] == []
    assert sum(report["faults"].values()) >= 10
    assert report["acknowledged"] >= 5
    assert sum(report["ended"].values()) == report["acknowledged"] + report["unacknowledged_created"]
    assert report["repeated_percent"] < 10  # of little work: a long run says more
    assert report["recovery"].get("max", 0) < 60


@pytest.mark.parametrize("server", ["embedded", pytest.param("redis", marks=needs_redis)])
def test_apart(server: str) -> None:
    report = broken("--seed", "1", "--faults", "25", "--server", server, seconds=12)
    judge(report)
    assert report["faults"].get("step the clock", 0) >= 1


@pytest.mark.slow
def test_serve() -> None:
    judge(broken("--seed", "2", "--faults", "25", "--layout", "serve"))


@pytest.mark.slow
@pytest.mark.skipif(network.possible() is not None, reason=str(network.possible()))
def test_network() -> None:
    judge(broken("--seed", "4", "--faults", "25", "--network"))


def test_an_interrupted_run_leaves_nothing() -> None:
    command = [sys.executable, "-m", "tests.chaos", "--seconds", "60"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    started: set[psutil.Process] = set()
    try:
        top = psutil.Process(process.pid)
        deadline = time.monotonic() + 60
        while len(started) < 8 and time.monotonic() < deadline:
            started |= set(top.children(recursive=True))
            time.sleep(0.1)
    finally:
        process.terminate()
        process.wait(90)
    assert len(started) >= 8
    _, alive = psutil.wait_procs(started, timeout=10)
    assert alive == []
    assert not list(Path(tempfile.gettempdir()).glob(f"gradtune-chaos-{process.pid}-*"))
