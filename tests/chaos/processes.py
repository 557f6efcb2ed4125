"""The real parts as separate processes, the tree below them, and what brings them back, as an init system would."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import psutil

ROOT = Path(__file__).resolve().parents[2]
RESTART_AFTER = 0.3  # seconds between the death of a service and its restart
PATIENCE = 15.0  # seconds that services get to end after SIGTERM


@dataclass(slots=True)
class Service:
    """A top-level process: what an init system or a container engine would look after."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    host: str | None = None  # the network namespace that it runs in
    process: subprocess.Popen[bytes] | None = None
    restart_at: float = 0.0
    starts: int = 0

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None


@dataclass(frozen=True, slots=True)
class Role:
    """A process of the tree, found by where it stands in it."""

    kind: str  # server, api, supervisor, worker, horse
    process: psutil.Process
    service: Service


class Fleet:
    """Starts services, starts again what has died, and stops everything by its process id. For one thread."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.services: list[Service] = []
        self._logs: list[IO[bytes]] = []

    def start(self, service: Service) -> None:
        if service not in self.services:
            self.services.append(service)
        log = (self._directory / f"{service.name}.log").open("ab")
        self._logs.append(log)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GRADTUNE_")}
        service.process = subprocess.Popen(
            [*_dying_with_us(), *_inside(service.host), *service.command],
            cwd=ROOT,
            env={**environment, "PYTHONUNBUFFERED": "1", **service.environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        service.starts += 1
        self._logs.pop().close()

    def look_after(self) -> None:
        """Start again what has died."""
        now = time.monotonic()
        for service in self.services:
            if service.process is not None and service.process.poll() is not None:
                service.process = None
                service.restart_at = now + RESTART_AFTER
            if service.process is None and now >= service.restart_at:
                self.start(service)

    def roles(self) -> Iterator[Role]:
        """Every process of the fleet."""
        for service in self.services:
            if service.process is None or service.process.poll() is not None:
                continue
            with suppress(psutil.Error):
                top = psutil.Process(service.process.pid)
                yield Role(_kind(top, None), top, service)
                yield from _below(top, _kind(top, None), service)

    def stop(self) -> None:
        """Ask everything to end, the job server last; kill what does not. Nothing that was started is left."""
        everything = [role.process for role in self.roles()]
        for process in everything:
            signalled(process, signal.SIGCONT)
        for service in sorted(self.services, key=lambda service: service.name == "server"):
            if service.process is None:
                continue
            service.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                service.process.wait(PATIENCE)
        everything += [role.process for role in self.roles()]
        for process in everything:
            signalled(process, signal.SIGKILL)
        for service in self.services:
            if service.process is not None:
                service.process.wait(PATIENCE)
        psutil.wait_procs(everything, timeout=PATIENCE)
        left = [process.pid for process in everything if process.is_running() and process.status() != "zombie"]
        assert not left, f"processes that cannot be killed: {left}"


def signalled(process: psutil.Process, number: signal.Signals) -> bool:
    """Send a signal to exactly this process, not to a later one with its id; false when it has ended."""
    try:
        process.send_signal(number)
    except (psutil.Error, ProcessLookupError):
        return False
    return True


def tree(process: psutil.Process) -> list[psutil.Process]:
    """A process and all that it started."""
    try:
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return [process]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def python(*words: str) -> list[str]:
    return [sys.executable, "-m", *words]


def _below(parent: psutil.Process, kind: str, service: Service) -> Iterator[Role]:
    for child in parent.children():
        with suppress(psutil.Error):
            role = _kind(child, kind)
            yield Role(role, child, service)
            yield from _below(child, role, service)


def _kind(process: psutil.Process, parent: str | None) -> str:
    if parent in {"worker", "horse"}:
        return "horse"
    if process.name() in {"valkey-server", "redis-server"}:
        return "server"
    words = process.cmdline()
    if "worker.main" in words:
        return "worker"
    return "api" if "api" in words else "supervisor"


def _dying_with_us() -> list[str]:
    """On Linux a service is killed when this process ends, however it ends."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []


def _inside(host: str | None) -> list[str]:
    return ["ip", "netns", "exec", host] if host else []
