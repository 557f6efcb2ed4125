"""Callers who send too much, too slowly or not at all, over raw sockets to a real API process with small limits."""

from __future__ import annotations

import json
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from service.keys import create_key
from service.problems import MEDIA_TYPE
from service.server import bind
from service.settings import Settings
from service.sockets import LEAST_MOVED, MOST_HEADERS, MOST_WAITING
from tests.contract.specs import document
from tests.servers import server
from tests.service.api import eventually
from tests.system.processes import environment
from worker.embedded import EmbeddedServer

KEY, HASH = create_key()
SLOW = 1.0  # seconds that headers, and bodies without news, may take here
HELLO = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
UPLOAD = f"POST /v1/datasets HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\nContent-Type: text/csv\r\n"


@dataclass
class Process:
    """A real `gradtune api`."""

    port: int
    process: psutil.Popen
    log: Path

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def asked(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        with self.connect() as connection:
            connection.sendall(request)
            return reply(connection)

    @property
    def healthy(self) -> bool:
        try:
            return self.asked(HELLO)[0] == 200
        except OSError:
            return False


def reply(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the next reply; a problem has its form. ConnectionError where there is none."""
    file = connection.makefile("rb")
    line = file.readline()
    if not line:
        raise ConnectionError("closed without a reply")
    status = int(line.split()[1])
    headers = {}
    while (line := file.readline().rstrip()) != b"":
        name, _, value = line.decode().partition(": ")
        headers[name] = value
    body = file.read(int(headers.get("content-length", 0)))
    if status >= 400:
        document = json.loads(body)
        assert (headers["content-type"], document["status"]) == (MEDIA_TYPE, status)
        assert document["request_id"] == headers["x-request-id"]
    return status, headers, body


def closed(connection: socket.socket) -> bool:
    """Whether the server closes, in whatever way, once all that it has to say is read."""
    try:
        while connection.recv(2**16):
            pass
    except ConnectionError:
        pass
    return True


def ends(connection: socket.socket, parts: list[bytes], pause: float) -> bool:
    """Whether the server closes before it has got all parts."""
    try:
        for part in parts:
            connection.sendall(part)
            time.sleep(pause)
    except ConnectionError:
        return True
    return False


@contextmanager
def api(url: str, directory: Path, descriptors: int | None = None, **settings: str) -> Iterator[Process]:
    def limited() -> None:
        if descriptors is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors // 2, descriptors))

    log = directory / "log"
    with bind(Settings(port=0)) as listener, log.open("wb") as errors:
        listener.set_inheritable(True)
        given = {
            "GRADTUNE_REDIS_URL": url, "GRADTUNE_DATA_DIR": str(directory), "GRADTUNE_API_KEY_HASHES": HASH,
            **{f"GRADTUNE_{name.upper()}": value for name, value in settings.items()},
        }  # fmt: skip
        process = psutil.Popen(
            [sys.executable, "-m", "service.cli", "api", "--fd", str(listener.fileno())],
            env=environment(**given),
            stderr=errors,
            pass_fds=(listener.fileno(),),
            preexec_fn=limited,
        )
        running = Process(listener.getsockname()[1], process, log)
        try:
            eventually(lambda: running.healthy)
            yield running
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with server(tmp_path_factory.mktemp("sockets-store")) as running:
        yield running


@pytest.fixture(scope="module")
def limited(store: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    limits = {"header_seconds": str(SLOW), "body_seconds": str(SLOW), "max_connections": "40"}
    with api(store.url, tmp_path_factory.mktemp("sockets"), **limits) as running:
        yield running


def test_headers_have_a_size(limited: Process) -> None:
    start = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
    fits = start + b"a: " + b"x" * (MOST_HEADERS - 200) + b"\r\n\r\n"
    assert limited.asked(fits)[0] == 200
    many = b"".join(b"h%d: %d\r\n" % (number, number) for number in range(8000))
    for line in (b"a: " + b"x" * 2 * MOST_HEADERS + b"\r\n", many):
        for end in (b"\r\n", b""):  # complete, and still on their way
            assert limited.asked(start + line + end)[0] == 431
    assert limited.asked(b"GET /" + b"x" * 2 * MOST_HEADERS)[0] == 431
    with limited.connect() as connection:  # the second request of a connection, in small parts
        connection.sendall(HELLO)
        assert reply(connection)[0] == 200
        connection.sendall(start)
        line = b"a: " + b"x" * 1000 + b"\r\n"
        assert ends(connection, [line] * (4 * MOST_HEADERS // 1000), 0.0) or reply(connection)[0] == 431


def test_headers_have_a_time(limited: Process) -> None:
    with limited.connect() as silent, limited.connect() as slow, limited.connect() as blank, limited.connect() as later:
        slow.sendall(HELLO[:-3])
        blank.sendall(b"\r\n")
        later.sendall(HELLO)
        assert reply(later)[0] == 200
        later.sendall(HELLO[:-3])
        for connection in (slow, later):
            status, headers, _ = reply(connection)
            assert (status, headers["connection"]) == (408, "close")
        assert all(closed(connection) for connection in (silent, slow, blank, later))


def test_drops_do_not_buy_more_time(limited: Process) -> None:
    with limited.connect() as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\n")
        assert ends(connection, [b"h: 1\r\n"] * 200, SLOW / 10)


def test_a_body_that_does_not_move_ends(limited: Process) -> None:
    with limited.connect() as stopped, limited.connect() as dripping:
        for connection in (stopped, dripping):
            connection.sendall(f"{UPLOAD}Content-Length: 100000\r\n\r\na,b\n".encode())
        for _ in range(8):
            dripping.sendall(b"1,2\n")
            time.sleep(SLOW / 10)
        for connection in (stopped, dripping):
            assert reply(connection)[0] == 408
            assert closed(connection)


def test_a_body_that_moves_may_take_as_long_as_it_likes(limited: Process) -> None:
    rows = b"1,2\n" * (2 * LEAST_MOVED // 4)
    parts = [b"a,b\n", *[rows] * 10]
    with limited.connect() as connection:
        connection.sendall(f"{UPLOAD}Content-Length: {sum(map(len, parts))}\r\n\r\n".encode())
        for part in parts:
            connection.sendall(part)
            time.sleep(SLOW / 4)
        assert reply(connection)[0] == 201


@pytest.mark.parametrize("size", [5_000_000, 400_000_000])
def test_a_refused_body_ends_the_connection(limited: Process, size: int) -> None:
    """And its sender can read why, unless it goes on for long."""
    head = f"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n"
    for extra, expected in (("", 401), (f"Authorization: Bearer {KEY}\r\n", 413)):
        with limited.connect() as connection:
            connection.sendall(f"{head}{extra}\r\n".encode() + b"x" * 1_000_000)
            if size < 10**7:
                connection.sendall(b"x" * (size - 1_000_000))
            status, headers, _ = reply(connection)
            assert status == expected
            if size > 10**7 or expected == 401:
                assert headers["connection"] == "close"
                connection.shutdown(socket.SHUT_WR)
                assert closed(connection)


def test_a_small_body_that_is_refused_does_not(limited: Process) -> None:
    head = "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n"
    with limited.connect() as connection:
        for _ in range(3):
            connection.sendall(f"{head}{{}}".encode())
            assert reply(connection)[0] == 401


def test_a_body_that_is_announced_only_is_not_asked_for(limited: Process) -> None:
    head = "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n"
    status, headers, _ = limited.asked(head.encode())
    assert (status, headers["connection"]) == (401, "close")


@pytest.mark.parametrize(
    "request_",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
    ],
)
def test_what_is_no_http_gets_a_problem(limited: Process, request_: bytes) -> None:
    status, headers, body = limited.asked(request_)
    assert (status, json.loads(body)["code"], headers["connection"]) == (400, "bad-request", "close")


def test_broken_bytes_are_not_the_answer_to_the_request_before_them(limited: Process) -> None:
    spec = json.dumps(document()).encode()
    head = f"Host: localhost\r\nAuthorization: Bearer {KEY}\r\n"
    post = f"POST /v1/jobs HTTP/1.1\r\n{head}Content-Type: application/json\r\nContent-Length: {len(spec)}\r\n\r\n"
    job = json.loads(limited.asked(post.encode() + spec)[2])["id"]
    with limited.connect() as connection:
        connection.sendall(f"GET /v1/jobs/{job} HTTP/1.1\r\n{head}Prefer: wait=20\r\n\r\n".encode() + b"\0\0\r\n\r\n")
        assert connection.recv(2**16) == b""


def test_requests_sent_ahead_are_counted(limited: Process) -> None:
    with limited.connect() as connection:
        connection.sendall(HELLO * 20)
        assert _statuses(connection, 20) == [200] * 20
    with limited.connect() as connection, suppress(ConnectionError):
        connection.sendall(HELLO * 50 * MOST_WAITING)
        assert len(_statuses(connection, 50 * MOST_WAITING)) <= MOST_WAITING


def _statuses(connection: socket.socket, count: int) -> list[int]:
    received = b""
    while received.count(b"HTTP/1.1 ") < count or not received.endswith(b"}"):
        if not (part := connection.recv(2**16)):
            break
        received += part
    return [int(part.split(b" ", 1)[0]) for part in received.split(b"HTTP/1.1 ")[1:]]


def test_connections_have_a_number(limited: Process) -> None:
    """Those without a request give way; where all are busy, the others get a 503 and probes an answer."""
    idle = [limited.connect() for _ in range(40)]
    try:
        eventually(lambda: limited.healthy)
    finally:
        for connection in idle:
            connection.close()
    upload = f"{UPLOAD}Content-Length: 1000000\r\n\r\na\n".encode()
    busy = [limited.connect() for _ in range(40)]
    try:
        for connection in busy:
            connection.sendall(upload)
        listing = b"GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\n\r\n"
        seen = set()

        def refused() -> bool:
            for connection in busy:
                connection.sendall(b"1\n" * LEAST_MOVED)
            status, headers, _ = limited.asked(listing)
            seen.add(status)
            return status == 503 and headers["connection"] == "close" and "retry-after" in headers

        eventually(refused)
        assert limited.asked(HELLO)[0] == 200
        assert seen <= {401, 503}
    finally:
        for connection in busy:
            connection.close()
    eventually(lambda: limited.asked(listing)[0] == 401)


def test_a_client_that_reads_nothing_is_left(limited: Process) -> None:
    with limited.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        request = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
        connection.sendall(request * MOST_WAITING)  # replies of more than the sockets hold
        eventually(lambda: len(_connections(limited)) == 0, 20)


def _connections(running: Process) -> list[object]:
    return [item for item in running.process.net_connections() if item.status in {"ESTABLISHED", "CLOSE_WAIT"}
            and item.laddr.port == running.port]  # fmt: skip


@pytest.mark.slow
def test_the_end_of_file_descriptors_is_told_once_and_survived(store: EmbeddedServer, tmp_path: Path) -> None:
    with api(store.url, tmp_path, descriptors=100, header_seconds="30") as running:
        assert resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE)[0] == 100
        # files that it has open for other reasons, as many as there are descriptors
        held = [running.connect() for _ in range(200)]
        try:
            eventually(lambda: running.healthy)
            time.sleep(0.3)
            before = sum(running.process.cpu_times()[:2])
            time.sleep(0.5)
            assert sum(running.process.cpu_times()[:2]) - before < 0.3  # no loop without end
        finally:
            for connection in held:
                connection.close()
        eventually(lambda: running.asked(b"GET /v1/jobs HTTP/1.1\r\n\r\n")[0] == 401)
        told = [line for line in running.log.read_text().splitlines() if "all file descriptors are used" in line]
        assert len(told) == 1, running.log.read_text()
