"""The program as its users start it: real processes, of which none may be left at the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from tests.service.api import Api, eventually
from worker.embedded import die_with_parent

PROGRAM = str(Path(sys.executable).parent / "gradtune")
MARK = "GRADTUNE_TEST_MARK"


def environment(**variables: str) -> dict[str, str]:
    """The environment without settings of the machine, and with a mark that all descendants inherit."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GRADTUNE_")}
    return {**inherited, MARK: uuid.uuid4().hex, **variables}


def marked(mark: str) -> list[psutil.Process]:
    """Every process that was started, by whatever detour, with this mark in its environment."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def killed(process: psutil.Process) -> None:
    """Kill a process and wait until it is gone."""
    process.kill()
    eventually(lambda: gone(process))


def gone(process: psutil.Process) -> bool:
    """Whether a process has ended, reaped or not."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


class Running:
    """One `gradtune` process with all that it started."""

    def __init__(self, *arguments: str, log: Path, **variables: str) -> None:
        env = environment(**variables)
        self.mark = env[MARK]
        self.log = log
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                [PROGRAM, *arguments],
                env=env,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
                preexec_fn=die_with_parent(os.getpid(), signal.SIGTERM),  # noqa: PLW1509 - should the tests themselves be killed
            )

    def line(self) -> str:
        """The next line of its output; nothing when it has ended."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def part(self, name: str) -> psutil.Process:
        """The process of a part of the service: `api`, `worker.main`, or `valkey-server` for the embedded server."""
        found: list[psutil.Process] = []

        def look() -> bool:
            found.clear()
            for process in psutil.Process(self.process.pid).children():
                with suppress(psutil.Error):
                    if name in (process.name(), *process.cmdline()):
                        found.append(process)
            return len(found) == 1

        eventually(look)
        return found[0]

    def horse(self) -> psutil.Process:
        """The process that runs the current job."""
        found: list[psutil.Process] = []

        def look() -> bool:
            found[:] = self.part("worker.main").children()
            return len(found) == 1

        eventually(look)
        return found[0]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal; returns the exit status, after a check that nothing is left."""
        descendants = psutil.Process(self.process.pid).children(recursive=True)  # readers of files bear no mark
        self.process.send_signal(number)
        status = self.process.wait(60)
        eventually(lambda: marked(self.mark) == [] and all(gone(process) for process in descendants), 10)
        return status

    def end(self) -> None:
        """Stop whatever still runs."""
        if self.process.poll() is None:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(30)
        for process in marked(self.mark):
            with suppress(psutil.Error):
                process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        print(self.log.read_text())


@contextmanager
def running(*arguments: str, log: Path, **variables: str) -> Iterator[Running]:
    process = Running(*arguments, log=log, **variables)
    try:
        yield process
    finally:
        process.end()


class Service(Running):
    """`gradtune serve` on a free port, with a client."""

    url: str
    api: Api

    def ready(self) -> None:
        """Wait for the line that says so."""
        said = self.line()
        assert "gradtune is ready at http://127.0.0.1:" in said, said + self.log.read_text()
        self.url = said.partition("ready at ")[2].split()[0]
        self.api = Api(self.url)


@contextmanager
def service(data_dir: Path, *arguments: str, **variables: str) -> Iterator[Service]:
    data_dir.mkdir(parents=True, exist_ok=True)
    started = Service(
        "serve", "--port", "0", "--data-dir", str(data_dir), *arguments, log=data_dir / "stderr.log", **variables
    )
    try:
        started.ready()
        with started.api:
            yield started
    finally:
        started.end()


def numbers(result: dict[str, Any]) -> dict[str, Any]:
    """A result without what may differ between two runs of the same spec."""
    return {name: value for name, value in result.items() if name not in {"job_id", "timing"}}
