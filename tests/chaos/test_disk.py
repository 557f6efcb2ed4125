"""A server whose disk was full starts again with everything, if its append-only file is written anew before."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import redis

from tests.chaos import quota
from tests.chaos.quota import Quota
from tests.chaos.runbook import Runbook
from tests.servers import binaries

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


@pytest.mark.parametrize("name", sorted(binaries()))
def test_a_full_disk_and_a_restart(name: str, disk: Quota, tmp_path: Path) -> None:
    server = Server(binaries()[name], tmp_path)
    runbook = Runbook(server.url)
    try:
        for _ in range(2):  # the second time the file in use has been opened by a rewrite
            disk.fill()
            with pytest.raises(redis.ResponseError, match="MISCONF"):
                server.write(1000)
            disk.free()
            runbook.after_full_disk()
            runbook.wait()
        before = server.client.dbsize()
        server.kill()
        server.start()
        assert server.client.dbsize() == before > 0
    finally:
        server.kill()
        server.client.close()
