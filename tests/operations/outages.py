"""A job store in every state that it should not be in, and what the API answers then: the tables of docs/redis.md.

`python -m tests.operations.outages` prints them.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import logging
import re
import signal
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from service.settings import Settings
from tests.contract.specs import document
from tests.operations.deployments import Deployed, deployed
from tests.service.api import Api, serving

State = Callable[[Path], AbstractContextManager[str]]
Talk = Callable[[socket.socket], None]


# Servers that are none, on real sockets.


@contextmanager
def listener(talk: Talk | None) -> Iterator[str]:
    """A port whose connections are left to `talk`, each in a thread of its own; None: nobody accepts them."""
    open_ones: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0), backlog=256) as server:

        def accept() -> None:
            with suppress(OSError):  # it was shut down
                while True:
                    open_ones.append(server.accept()[0])
                    threading.Thread(target=run, args=(open_ones[-1],), daemon=True).start()

        def run(connection: socket.socket) -> None:
            assert talk is not None
            with connection, suppress(OSError):
                talk(connection)

        thread = threading.Thread(target=accept if talk else lambda: None)
        thread.start()
        try:
            yield f"redis://127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in open_ones:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


def silent(connection: socket.socket) -> None:
    """Read and say nothing."""
    while connection.recv(1 << 16):
        pass


def after_handshake(connection: socket.socket) -> None:
    """Take the password and the database, and say nothing more."""
    while request := connection.recv(1 << 16):
        for _ in range(request.count(b"AUTH") + request.count(b"SELECT")):
            connection.sendall(b"+OK\r\n")


def dripping(connection: socket.socket) -> None:
    """Answer without end, a byte at a time, so that no single read takes long."""
    connection.recv(1 << 16)
    connection.sendall(b"$1000000\r\n")
    while True:
        connection.sendall(b"x")
        time.sleep(0.1)


def closing(connection: socket.socket) -> None:
    """Hang up at once."""


def web(connection: socket.socket) -> None:
    """Answer as a web server does."""
    connection.recv(1 << 16)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
    silent(connection)


def outdated(connection: socket.socket) -> None:
    """Say that this is Redis 5."""
    text = b"# Server\r\nredis_version:5.0.14\r\n"
    while request := connection.recv(1 << 16):
        for _ in re.findall(rb"^\*\d+\r\n", request, re.MULTILINE):  # each command
            reply = b"$%d\r\n%s" % (len(text), text) if b"INFO" in request else b"-ERR unknown command"
            connection.sendall(reply + b"\r\n")


def protected(connection: socket.socket) -> None:
    """Refuse as a server in protected mode does, which this machine's own clients cannot see."""
    connection.sendall(b"-DENIED Redis is running in protected mode because protected mode is enabled\r\n")


def fake(talk: Talk | None, credentials: str = "", path: str = "") -> State:
    @contextmanager
    def state(_: Path) -> Iterator[str]:
        with listener(talk) as url:
            yield url.replace("//", f"//{credentials}") + path

    return state


@contextmanager
def refusing(_: Path) -> Iterator[str]:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # the port is ours, and nobody listens
        yield f"redis://127.0.0.1:{nobody.getsockname()[1]}"


@contextmanager
def fixed(url: str) -> Iterator[str]:
    yield url


# Real servers with a wrong setting, or under a wrong URL.


def real(url: str, *options: str, setup: tuple[str, ...] = (), act: Callable[[Deployed], None] | None = None) -> State:
    """A server with these options, after this command; `url` has PORT and DIR in it."""

    @contextmanager
    def state(directory: Path) -> Iterator[str]:
        with deployed(directory, "--appendonly", "yes", *options) as server:
            if setup:
                with server.client as client:
                    client.execute_command(*setup)
            if act is not None:
                act(server)
            try:
                yield url.replace("PORT", str(server.port)).replace("DIR", str(directory))
            finally:
                server.process.send_signal(signal.SIGCONT)

    return state


def freeze(server: Deployed) -> None:
    server.process.send_signal(signal.SIGSTOP)


def tls(url: str, *, clients: bool = False) -> State:
    """The same behind a terminator of TLS, with a certificate that nobody knows."""

    @contextmanager
    def state(directory: Path) -> Iterator[str]:
        with deployed(directory, "--appendonly", "yes") as server:
            certificate, key = self_signed(directory)
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(certificate, key)
            if clients:
                context.verify_mode = ssl.CERT_REQUIRED

            def forward(connection: socket.socket) -> None:
                with (
                    context.wrap_socket(connection, server_side=True) as inside,
                    socket.create_connection(("127.0.0.1", server.port)) as outside,
                ):
                    back = threading.Thread(target=pump, args=(outside, inside), daemon=True)
                    back.start()
                    pump(inside, outside)
                    back.join()

            with listener(forward) as plain:
                yield url.replace("PORT", plain.rpartition(":")[2]).replace("DIR", str(directory))

    return state


def pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while some := source.recv(1 << 16):
            sink.sendall(some)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)


def self_signed(directory: Path) -> tuple[Path, Path]:
    """A certificate for this machine, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = directory / "certificate.pem", directory / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


PLAIN = "redis://127.0.0.1:PORT"
PASSWORD = ("CONFIG", "SET", "requirepass", "secret")
LIMITED = ("ACL", "SETUSER", "limited", "on", ">secret", "&gradtune:changed", "+@all")
ELSEWHERE = (*LIMITED, "~app:*")
READER = (*LIMITED, "~gradtune:*", "~rq:*", "-@write", "-@dangerous")

TRANSIENT: dict[str, State] = {
    "accepts and never answers": fake(silent),
    "lets connections wait": fake(None),
    "takes the password, then never answers": fake(after_handshake, ":secret@", "/3"),
    "answers a byte at a time": fake(dripping),
    "is frozen": real(PLAIN, act=freeze),
    "closes at once": fake(closing),
    "nothing listens": refusing,
    "no socket at the path": lambda directory: fixed(f"unix://{directory}/none.sock"),
    "its name is unknown": lambda _: fixed("redis://-"),
    "is a replica": real(PLAIN, setup=("REPLICAOF", "127.0.0.1", "1")),
    "its memory is full": real(PLAIN, setup=("CONFIG", "SET", "maxmemory", "1")),
}
PERMANENT: dict[str, State] = {
    "wrong password": real("redis://:wrong@127.0.0.1:PORT", setup=PASSWORD),
    "password missing": real(PLAIN, setup=PASSWORD),
    "password not wanted": real("redis://:secret@127.0.0.1:PORT"),
    "no such database": real(f"{PLAIN}/99"),
    "user without the keys": real("redis://limited:secret@127.0.0.1:PORT", setup=ELSEWHERE),
    "user who may not write": real("redis://limited:secret@127.0.0.1:PORT", setup=READER),
    "cluster": real(PLAIN, "--cluster-enabled", "yes"),
    "older than 6.2": fake(outdated),
    "rediss:// to a plain port": real("rediss://127.0.0.1:PORT"),
    "redis:// to a TLS port": tls(PLAIN),
    "certificate of an unknown authority": tls("rediss://127.0.0.1:PORT"),
    "certificate of another name": tls("rediss://localhost:PORT?ssl_ca_certs=DIR/certificate.pem"),
    "certificate of the client missing": tls("rediss://127.0.0.1:PORT?ssl_ca_certs=DIR/certificate.pem", clients=True),
    "no Redis at all": fake(web),
}
STATES = {**TRANSIENT, **PERMANENT}


# What is asked, and what is answered.

JOB, DATASET = "job_" + "0" * 24, "ds_" + "0" * 64
ALIVE = "`/healthz`, `/v1/catalog`"
READY = "`/readyz`"
GET, POST, DELETE = "`GET`", "`POST`", "`DELETE`"
REQUESTS = (
    (ALIVE, "GET", "/healthz"),
    (ALIVE, "GET", "/v1/catalog"),
    (READY, "GET", "/readyz"),
    (GET, "GET", "/v1/jobs"),
    (GET, "GET", f"/v1/jobs/{JOB}"),
    (GET, "GET", f"/v1/jobs/{JOB}/result"),
    (GET, "GET", f"/v1/jobs/{JOB}/steps"),
    (GET, "GET", "/v1/datasets"),
    (POST, "POST", "/v1/jobs"),
    (POST, "POST", f"/v1/jobs/{JOB}/cancel"),
    (POST, "POST", f"/v1/jobs/{JOB}/predictions"),
    (POST, "POST", "/v1/datasets"),
    (DELETE, "DELETE", f"/v1/jobs/{JOB}"),
    (DELETE, "DELETE", f"/v1/datasets/{DATASET}"),
)


@dataclass(frozen=True, slots=True)
class Reply:
    group: str
    request: str
    seconds: float
    status: int
    sentence: str
    retry_after: str | None


def asked(api: Api, group: str, method: str, path: str) -> Reply:
    """What comes back; a long poll waits no longer than others."""
    headers = {"Prefer": "wait=30"} if path in {"/v1/jobs", f"/v1/jobs/{JOB}"} else {}
    options: dict[str, object] = {}
    if path == "/v1/datasets" and method == "POST":
        options["content"] = b"a,b\n1,2\n2,3\n3,5\n"
        headers["Content-Type"] = "text/csv"
    elif method == "POST":
        options["json"] = document() if path == "/v1/jobs" else {"rows": [[1.0, 2.0, 3.0]]}
    began = time.monotonic()
    reply = api.request(method, path, headers=headers, **options)  # type: ignore[arg-type]
    seconds = time.monotonic() - began
    sentence = reply.json().get("detail", "") if reply.status_code >= 400 else ""
    return Reply(group, f"{method} {path}", seconds, reply.status_code, sentence, reply.headers.get("Retry-After"))


def replies(url: str, directory: Path) -> list[Reply]:
    """Every request, all at the same time, on a new API."""
    with (
        serving(Settings(redis_url=url, data_dir=directory / "api")) as api,
        ThreadPoolExecutor(len(REQUESTS)) as pool,
    ):
        api.get("/v1/catalog")  # which takes a moment for the first time
        return list(pool.map(lambda request: asked(api, *request), REQUESTS))


def measured(names: list[str], directory: Path, at_once: int = 4) -> dict[str, list[Reply]]:
    """The replies in each of the states."""

    def measure(name: str) -> list[Reply]:
        where = directory / name.replace(" ", "-").replace("/", "")
        where.mkdir(parents=True)
        with STATES[name](where) as url:
            return replies(url, where)

    with ThreadPoolExecutor(at_once) as pool:
        return dict(zip(names, pool.map(measure, names), strict=True))


# The tables.


def tables(found: dict[str, list[Reply]]) -> str:
    """Two of them: what each request gets in each state, and the sentences that the first one names by letters."""
    letters: dict[str, str] = {}
    lines = [
        f"| the server | {ALIVE} | {READY} | {GET} | {POST} | {DELETE} | `gradtune serve` |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, answers in found.items():
        cells = [cell([a for a in answers if a.group == group], letters) for group in (ALIVE, READY, GET, POST, DELETE)]
        start = "ends at once" if name in PERMANENT else "starts and waits"
        lines.append(f"| {name} | {' | '.join(cells)} | {start} |")
    lines += ["", "| letter | `detail` |", "|---|---|"]
    lines += [f"| {letter} | {sentence} |" for sentence, letter in letters.items()]
    return "\n".join(lines) + "\n"


def cell(answers: list[Reply], letters: dict[str, str]) -> str:
    """Status, longest time and sentence of a group of requests, which all have the same."""
    outcomes = {(a.status, a.sentence if a.status >= 500 else "") for a in answers}
    longest = max(a.seconds for a in answers)
    parts = []
    for status, sentence in sorted(outcomes):
        letter = letters.setdefault(sentence, letter_of(len(letters))) if status >= 500 else ""
        parts.append(f"{status}{' ' + letter if letter else ''}")
    return f"{', '.join(parts)}: {longest:.1f} s"


def letter_of(number: int) -> str:
    return chr(ord("A") + number) if number < 26 else f"A{chr(ord('A') + number - 26)}"


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="gradtune-outages-") as directory:
        logging.disable()
        print(tables(measured(list(STATES), Path(directory), at_once=1)))


if __name__ == "__main__":
    main()
