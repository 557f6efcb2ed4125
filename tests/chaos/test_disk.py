"""A server whose disk was full starts again with everything, since its append-only file is written anew before."""

import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import redis

from tests.chaos import quota
from tests.chaos.mending import rewritten
from tests.chaos.quota import Quota
from tests.servers import binaries
from worker import store
from worker.queue import reconcile
from worker.store import keys

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.skipif(quota.possible() is not None, reason=str(quota.possible())),
]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Quota]:
    (tmp_path / "data").mkdir()
    limited = Quota(tmp_path / "data")
    try:
        limited.mount()
    except subprocess.CalledProcessError as error:
        pytest.skip(error.stderr.decode())
    yield limited
    limited.unmount()


class Server:
    def __init__(self, binary: str, directory: Path) -> None:
        socket = directory / "s"
        self._command = [binary, "--port", "0", "--unixsocket", str(socket), "--dir", str(directory / "data")]
        self.url = f"unix://{socket}"
        self.client = redis.Redis.from_url(self.url)
        self.start()

    def start(self) -> None:
        words = [*self._command, "--appendonly", "yes", "--save", ""]
        self._process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while self._process.poll() is None and time.monotonic() < deadline:
            with suppress(redis.RedisError):
                if self.client.ping():
                    return
            time.sleep(0.02)
        raise AssertionError("the server does not start")

    def write(self, keys: int) -> None:
        for number in range(keys):
            self.client.set(f"key {number}", "x" * 3001)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


def reconciled(client: redis.Redis, rewrites: int) -> None:
    """Reconcile as supervisors do, until the append-only file has been written anew so many times."""
    deadline = time.monotonic() + 30
    while not (rewritten(client) and client.info()["aof_rewrites"] == rewrites):
        assert time.monotonic() < deadline
        with suppress(redis.RedisError):
            reconcile(client)
        time.sleep(0.1)


@pytest.mark.parametrize("name", sorted(binaries()))
def test_a_full_disk_and_a_restart(name: str, disk: Quota, tmp_path: Path) -> None:
    server = Server(binaries()[name], tmp_path)
    try:
        reconcile(server.client)
        assert server.client.get(keys.REWRITTEN) is None  # nothing was refused
        for times in (1, 2):  # the second time the file in use has been opened by a rewrite
            disk.fill()
            with pytest.raises(redis.ResponseError, match="MISCONF"):
                server.write(1000)
            disk.free()
            reconciled(server.client, times)
        for _ in range(5):
            reconcile(server.client)
        assert server.client.info()["aof_rewrites"] == 2  # once is enough
        before = server.client.dbsize()
        server.kill()
        server.start()
        assert server.client.dbsize() == before > 0
        reconcile(server.client)
        assert server.client.info()["aof_rewrites"] == 0
    finally:
        server.kill()
        server.client.close()


@pytest.mark.parametrize("name", sorted(binaries()))
def test_a_refused_write_is_tried_again_until_there_is_room(name: str, disk: Quota, tmp_path: Path) -> None:
    server = Server(binaries()[name], tmp_path)
    try:
        disk.fill()
        with pytest.raises(redis.ResponseError, match="MISCONF"):
            server.write(1000)
        submission = store.Submission("j", b"{}", b"data", "f", 9.0)
        with store.connect(server.url, patience=0.1) as client, pytest.raises(store.RefusedError):
            store.run(client, store.submit(submission, ()))
        room = threading.Timer(1.0, disk.free)
        room.start()
        with store.connect(server.url) as client:
            assert store.run(client, store.submit(submission, ()))
        room.join()
    finally:
        server.kill()
        server.client.close()
