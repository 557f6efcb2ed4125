"""A job store that hangs, refuses or is set up wrongly: what its callers and its operators are told, and how soon."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import redis
from click.testing import CliRunner

from service.cli import main
from service.preflight import require_store
from service.settings import ConfigurationError
from tests.operations.outages import (
    ALIVE,
    DELETE,
    GET,
    PERMANENT,
    POST,
    READY,
    STATES,
    TRANSIENT,
    Reply,
    dripping,
    fake,
    listener,
    measured,
    protected,
    silent,
)
from tests.service.api import Api, eventually
from tests.system.processes import running
from worker import store
from worker.store import REQUEST_PATIENCE, outage

GENEROUS = 5 * REQUEST_PATIENCE  # machines are slow; without a common deadline it was 43 s
DOCUMENT = Path(__file__).parents[2] / "docs" / "redis.md"
READABLE = {"is a replica", "its memory is full", "user who may not write"}
"""Where what only reads goes on."""
WRITES = {"POST /v1/jobs", "POST /v1/datasets"}


def documented(part: str) -> dict[str, list[str]]:
    """The rows of the table of docs/redis.md whose first cell in the head is `part`, by their first cell."""
    lines = DOCUMENT.read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {part} |"))
    rows = {}
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        name, *cells = (cell.strip() for cell in line.strip("| ").split(" | "))
        rows[name] = cells
    return rows


STATE_ROWS = documented("the server")
SENTENCES = {letter: " | ".join(cells) for letter, cells in documented("letter").items()}


QUICK = ("accepts and never answers", "answers a byte at a time", "nothing listens", "user without the keys")
NAMES = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in STATES]
Found = Callable[[str], list[Reply]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What the API answers in a state; most of the time is spent waiting, so several are measured at once."""

    @cache
    def group(quick: bool) -> dict[str, list[Reply]]:
        names = [name for name in STATES if (name in QUICK) == quick]
        return measured(names, tmp_path_factory.mktemp("outages"))

    return lambda name: group(name in QUICK)[name]


@pytest.mark.parametrize("name", NAMES)
def test_each_request_has_its_answer_in_time(found: Found, name: str) -> None:
    for reply in found(name):
        assert reply.seconds < GENEROUS, reply
        if reply.group == ALIVE:
            assert reply.status == 200
        elif reply.status == 503:
            assert int(reply.retry_after or 0) > 0
        else:
            assert name in READABLE, reply
            assert reply.group != READY
            assert reply.request not in WRITES
            assert reply.status in {200, 404}


@pytest.mark.parametrize("name", NAMES)
def test_the_documented_sentences_are_those_given(found: Found, name: str) -> None:
    assert list(STATE_ROWS) == list(STATES)
    for group, cell in zip((ALIVE, READY, GET, POST, DELETE), STATE_ROWS[name], strict=False):
        outcomes, _, seconds = cell.partition(": ")
        given = {(a.status, a.sentence if a.status == 503 else "") for a in found(name) if a.group == group}
        written = set()
        for outcome in outcomes.split(", "):
            status, _, letter = outcome.partition(" ")
            written.add((int(status), SENTENCES[letter] if letter else ""))
        assert written == given
        assert float(seconds.removesuffix(" s")) < GENEROUS


@pytest.mark.parametrize("name", NAMES)
def test_no_sentence_tells_who_or_where(found: Found, name: str) -> None:
    for reply in found(name):
        assert not re.search(r"secret|wrong|User limited|127\.0\.0\.1", reply.sentence)


@pytest.fixture(params=[pytest.param(name, marks=() if "pass" in name else pytest.mark.slow) for name in PERMANENT])
def misconfigured(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Its name and its URL."""
    with STATES[request.param](tmp_path) as url:
        yield request.param, url


def test_what_only_a_change_helps_ends_the_start(misconfigured: tuple[str, str]) -> None:
    name, url = misconfigured
    (sentence,) = re.findall(r"503 (\w+)", STATE_ROWS[name][1])
    for command in (("serve", "--port", "0"), ("api", "--port", "0"), ("worker",)):
        result = CliRunner().invoke(main, [*command, "--redis-url", url])
        assert result.exit_code == 1
        assert result.stderr.splitlines()[-1] == f"Error: {SENTENCES[sentence]}"
        assert "secret" not in result.output


@pytest.mark.parametrize("name", ["nothing listens", "accepts and never answers", "is a replica"])
def test_what_may_pass_does_not(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "LAST", outage.Outage())  # other tests have noticed others
    (letter,) = re.findall(r"503 (\w+)", STATE_ROWS[name][1])
    with TRANSIENT[name](tmp_path) as url:
        require_store(url)
    assert SENTENCES[letter] in caplog.records[-1].getMessage()


def test_protected_mode_is_named(tmp_path: Path) -> None:
    """Its refusal comes before anything was asked."""
    with fake(protected)(tmp_path) as url, pytest.raises(ConfigurationError, match="runs in protected mode"):
        require_store(url)


@pytest.mark.parametrize("talk", [silent, dripping])
def test_a_synchronous_operation_ends_at_its_deadline(talk: object) -> None:
    with listener(talk) as url, store.connect(url, patience=1.0) as client:  # type: ignore[arg-type]
        began = time.monotonic()
        with pytest.raises(redis.TimeoutError):
            store.run(client, store.ping())
        assert time.monotonic() - began < 5.0


def test_the_operations_of_a_request_share_its_time() -> None:
    """Each is answered soon enough by itself."""
    answered = []

    def slow(connection: socket.socket) -> None:
        while connection.recv(1 << 16):
            time.sleep(0.2)
            connection.sendall(b"+PONG\r\n")

    async def request(url: str) -> None:
        client = store.aconnect(url, patience=60.0)
        try:
            with store.sharing(1.0):
                for _ in range(20):
                    answered[:] = [*answered, await store.arun(client, store.ping())]  # as they come
        finally:
            await client.aclose()

    with listener(slow) as url, pytest.raises(store.NoAnswerError):
        asyncio.run(request(url))
    assert len(answered) < 6


@pytest.mark.slow
def test_a_service_without_an_answer_says_so_once_and_stops(tmp_path: Path) -> None:
    log = tmp_path / "log"
    arguments = ("serve", "--port", "0", "--data-dir", str(tmp_path / "data"))
    with listener(silent) as url, running(*arguments, log=log, GRADTUNE_REDIS_URL=url) as service:
        port: list[int] = []

        def listens() -> bool:
            found = [c.laddr.port for c in service.part("api").net_connections() if c.status == "LISTEN"]
            port[:] = found
            return bool(found)

        eventually(listens)
        with Api(f"http://127.0.0.1:{port[0]}") as api:
            assert api.get("/healthz").status_code == 200
            assert api.get("/readyz").status_code == 503
            assert api.get("/v1/jobs").status_code == 503
        eventually(lambda: log.read_text().count("gives no answer in time") == 3)
        assert service.stop(signal.SIGTERM) == 0
    said = log.read_text()
    assert "is killed" not in said
    assert "Traceback" not in said
    assert said.count("gives no answer in time") == 3
