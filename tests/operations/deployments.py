"""Servers as somebody else would run them, with options of their own, and what they are asked in tests."""

from __future__ import annotations

import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import redis

from tests.service.api import eventually
from worker.embedded import server_binary


@dataclass(frozen=True, slots=True)
class Deployed:
    """A server on a TCP port."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, protocol=2)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def deployed(directory: Path, *options: str, binary: str | None = None, loading: bool = False) -> Iterator[Deployed]:
    """A server with these options: `"--maxmemory", "100mb"`; `loading`: it may still be reading its file."""
    directory.mkdir(parents=True, exist_ok=True)
    for _ in range(5):  # somebody else may take the port first
        server = _launched(directory, options, binary or server_binary(), loading=loading)
        if server.process.poll() is None:
            break
    try:
        yield server
    finally:
        server.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            server.process.wait(20)
        server.kill()


def _launched(directory: Path, options: tuple[str, ...], binary: str, *, loading: bool) -> Deployed:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    words = [binary, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory), *options]
    with (directory / "server.log").open("ab") as log:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    server = Deployed(port, process)
    deadline = time.monotonic() + 30
    while process.poll() is None and not answers(server.client, loading=loading):
        assert time.monotonic() < deadline, (directory / "server.log").read_text()
        time.sleep(0.02)
    return server


def answers(client: redis.Redis, *, loading: bool = False) -> bool:
    try:
        return bool(client.info("server") if loading else client.ping())
    except redis.RedisError:
        return False
    finally:
        client.close()  # which a client that was refused before does not do in time by itself


def replicated(primary: redis.Redis, replica: redis.Redis) -> None:
    """Wait until the replica has everything that the primary has acknowledged."""
    eventually(lambda: replica.info("replication")["master_link_status"] == "up")
    wanted = primary.info("replication")["master_repl_offset"]
    eventually(lambda: replica.info("replication")["slave_repl_offset"] >= wanted)


def commands(client: redis.Redis, act: Callable[[], object]) -> Counter[str]:
    """What the server executes for `act`, commands inside scripts included: `NAME key`, without ids."""
    counts: Counter[str] = Counter()
    with client.monitor() as monitor:
        act()
        client.echo("the end")
        for entry in monitor.listen():
            words = entry["command"].split()
            if words[:2] == ["ECHO", "the"]:
                return counts
            if words[0].upper() != "EVAL":
                counts[" ".join([words[0].upper(), *(_key(word) for word in words[1:2])])] += 1
    raise AssertionError("the monitor ended")


def _key(word: str) -> str:
    return word.rpartition("job_")[0] or word
