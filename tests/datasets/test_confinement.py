"""What a process can still do after it has given up what reading files does not need: tried out in such a process."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from worker.datasets import confinement

SCRIPT = """
import json, os, runpy, socket, sys
from pathlib import Path

globals().update(runpy.run_path(sys.argv[5]))

def works(attempt):
    try:
        return attempt() is not None
    except OSError:
        return False

def connected(family, address):
    with socket.socket(family) as attempt:
        attempt.settimeout(5)
        attempt.connect(address)
        return True

call, place, port, victim = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
own = place / "own"
allowed = {"isolate": lambda: isolate([place / "store"]), "restrict": lambda: restrict(own), "": lambda: True}[call]()
print(json.dumps({
    "allowed": allowed,
    "tcp": works(lambda: connected(socket.AF_INET, ("127.0.0.1", port))),
    "unix": works(lambda: connected(socket.AF_UNIX, str(place / "store" / "sock"))),
    "secret": works(lambda: (place / "store" / "secret").read_bytes()),
    "outside": works(lambda: (place / "new").write_bytes(b"")),
    "environment": works(lambda: Path("/proc", victim, "environ").read_bytes()),
    "own": works(lambda: (own / "new").write_bytes(b"1")) and (own / "new").read_bytes() == b"1",
    "libraries": works(lambda: Path(os.__file__).read_bytes()),
    "privileges": [line for line in Path("/proc/self/status").read_text().splitlines() if "NoNewPrivs" in line]
    if call != "restrict" else None,
}))
"""


@contextmanager
def listening(family: int, address: Any) -> Iterator[socket.socket]:
    with socket.socket(family) as listener:
        listener.bind(address)
        listener.listen()
        yield listener


def tried(place: Path, call: str) -> dict[str, Any]:
    """What worked in a process that called this before."""
    (place / "own").mkdir()
    (place / "store").mkdir()
    (place / "store" / "secret").write_text("hunter2")
    with (
        listening(socket.AF_INET, ("127.0.0.1", 0)) as tcp,
        listening(socket.AF_UNIX, str(place / "store" / "sock")),
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as victim,
    ):
        arguments = [call, str(place), str(tcp.getsockname()[1]), str(victim.pid), confinement.__file__]
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, *arguments],
            stdout=subprocess.PIPE,
            check=True,
            timeout=60,
        )
        assert victim.stdin is not None
        victim.communicate(b"\n")
    found: dict[str, Any] = json.loads(done.stdout)
    if not found["allowed"]:
        pytest.skip("this machine does not allow it")
    return found


def test_what_a_process_can_do_that_gave_up_nothing(tmp_path: Path) -> None:
    found = tried(tmp_path, "")
    assert all(found[name] for name in ("tcp", "unix", "secret", "outside", "environment", "own", "libraries"))


def test_without_network_and_job_store(tmp_path: Path) -> None:
    found = tried(tmp_path, "isolate")
    assert not any(found[name] for name in ("tcp", "unix", "secret"))
    assert found["own"]
    assert found["libraries"]
    assert found["privileges"] == ["NoNewPrivs:\t1"]


def test_with_programs_and_its_own_directory_alone(tmp_path: Path) -> None:
    found = tried(tmp_path, "restrict")
    assert not any(found[name] for name in ("tcp", "secret", "outside", "environment"))
    assert found["own"]
    assert found["libraries"]
