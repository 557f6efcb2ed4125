import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.store.crew import ROOT, eventually, gone
from worker import store
from worker.embedded import EmbeddedServer, ServerError, server_binary
from worker.queue import delivery

STARTER = """
import sys, time
from worker.embedded import EmbeddedServer
server = EmbeddedServer(sys.argv[1]).start()
print(server.pid, flush=True)
time.sleep(600)
"""


def test_acknowledged_jobs_survive_the_death_of_the_server(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path) as server, store.connect(server.url, patience=10.0) as client:
        for n in range(200):
            job = store.Submission(f"j{n}", b"{}", os.urandom(100), "f", 1.0)
            assert store.run(client, store.submit(job, delivery(job.id)))
        url, pid = server.url, server.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not server.alive)
        server.restart()
        assert server.alive
        assert (server.url, server.pid != pid) == (url, True)
        assert store.run(client, store.health()) == store.Health(workers=0, queued=200, active=200)
        server.restart()  # it runs: nothing to do
    assert not server.alive
    with EmbeddedServer(tmp_path) as server, store.connect(server.url, patience=10.0) as client:
        assert store.run(client, store.health()).queued == 200


def test_only_this_user_can_reach_the_server(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path) as server:
        path = Path(server.url.removeprefix("unix://"))
        assert path.stat().st_mode & 0o077 == 0
        assert server.pid is not None
        listening = [c for c in psutil.Process(server.pid).net_connections("inet") if c.status == psutil.CONN_LISTEN]
        assert listening == []


def test_a_data_directory_has_one_server(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path) as server:
        with pytest.raises(ServerError, match=f"in use by the process {os.getpid()} and its server {server.pid}"):
            EmbeddedServer(tmp_path).start()
        with pytest.raises(ServerError, match="already"):
            server.start()
        assert server.alive


def test_a_long_path_has_a_short_socket(tmp_path: Path) -> None:
    deep = tmp_path / ("long name" * 12)
    with EmbeddedServer(deep) as server, store.connect(server.url, patience=10.0) as client:
        assert store.run(client, store.ping())
        short = Path(server.url.removeprefix("unix://")).parent
        assert short.stat().st_mode & 0o077 == 0
    assert not short.exists()


def test_a_path_may_have_any_characters(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path / "a b?c%20#") as server, store.connect(server.url, patience=10.0) as client:
        assert store.run(client, store.ping())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can do that")
def test_the_server_ends_with_its_starter_and_the_next_one_waits_for_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", STARTER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        starter.kill()
        starter.wait()
    with EmbeddedServer(tmp_path) as server:
        eventually(lambda: gone(pid))  # its lock is free a moment before its process is gone
        assert server.alive


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="last words"):
        EmbeddedServer(tmp_path, binary=sys.executable).start()
    with EmbeddedServer(tmp_path) as server:  # and leaves the directory free
        assert server.alive


def test_without_any_server_the_error_names_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing(name: str) -> object:
        raise ImportError(name)

    monkeypatch.setattr("importlib.import_module", missing)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServerError, match="GRADTUNE_REDIS_URL"):
        server_binary()
    fallback = tmp_path / "redis-server"
    fallback.touch(mode=0o700)
    assert server_binary() == str(fallback)
