"""The embedded server starts on what a power cut leaves, refuses other damage with a sentence, may load for long."""

import json
import logging
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from service.cli import main
from tests.servers import binaries
from tests.store.crew import eventually
from worker import loading, store
from worker.append_only import FOLDER, MANIFEST
from worker.embedded import EmbeddedServer, ServerError

INCREMENT, BASE = "appendonly.aof.1.incr.aof", "appendonly.aof.1.base.rdb"


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=() if name == "embedded" else pytest.mark.slow) for name in binaries()],
)
def binary(request: pytest.FixtureRequest) -> str:
    return binaries()[request.param]


@pytest.fixture(scope="module")
def written(binary: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of a server that was stopped after three transactions and a last command."""
    directory = tmp_path_factory.mktemp("written")
    with EmbeddedServer(directory, binary=binary) as server, store.connect(server.url) as client:
        for number in range(3):
            with client.pipeline(transaction=True) as together:
                together.set(f"a{number}", "x" * 500).set(f"b{number}", "y")
                together.execute()
        client.set("last", "z" * 5000)
    return directory


@pytest.fixture
def data(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "data"))


@pytest.fixture
def part(data: Path) -> Callable[[str], Path]:
    return lambda name: data / "redis" / FOLDER / name


def keys(data: Path, binary: str) -> set[bytes]:
    with EmbeddedServer(data, binary=binary) as server, store.connect(server.url) as client:
        return set(client.keys())


def doctor(data: Path, *words: str) -> Result:
    return CliRunner().invoke(main, ["doctor", "--data-dir", str(data), *words])


ALL = {b"a0", b"b0", b"a1", b"b1", b"a2", b"b2", b"last"}
SIX = ALL - {b"last"}


@pytest.mark.parametrize(
    ("change", "left"),
    [
        (lambda text: text + bytes(512), ALL),
        (lambda text: text + b"garbage\r\n\r\n", ALL),  # which ends as a command does
        (lambda text: text[:-100] + bytes(100), SIX),  # the server alone takes the zeros as the value's end
        (lambda text: text[:-2500], SIX),
        (lambda text: text[: text.rindex(b"*1\r\n$4\r\n")], SIX - {b"a2", b"b2"}),  # MULTI without EXEC
        (lambda text: text[: text.rindex(b"*1\r\n$4\r\n")] + bytes(9), SIX - {b"a2", b"b2"}),
    ],
)
def test_what_a_power_cut_leaves_is_cut_off_and_kept(
    change: Callable[[bytes], bytes],
    left: set[bytes],
    data: Path,
    binary: str,
    part: Callable[[str], Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    damaged = change(part(INCREMENT).read_bytes())
    part(INCREMENT).write_bytes(damaged)
    assert keys(data, binary) == left
    (kept,) = part(INCREMENT).parent.glob("*.cut-*")
    whole = part(INCREMENT).read_bytes()
    assert whole + kept.read_bytes() == damaged
    assert kept.stat().st_mode & 0o777 == 0o600
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(said) == 1
    for word in (INCREMENT, f"{len(damaged) - len(whole)} bytes", f"byte {len(whole)} ", str(kept)):
        assert word in said[0]
    assert keys(data, binary) == left
    assert len(caplog.records) == len(said)


def test_damage_before_whole_commands_needs_the_doctor(data: Path, binary: str, part: Callable[[str], Path]) -> None:
    text = part(INCREMENT).read_bytes()
    at = text.index(b"*3\r\n", text.index(b"MULTI", text.index(b"EXEC")))  # in the second transaction
    damaged = text[:at] + bytes(10) + text[at + 10 :]
    part(INCREMENT).write_bytes(damaged)
    with pytest.raises(ServerError) as refused:
        keys(data, binary)
    for word in (part(INCREMENT), f"byte {at}:", "7 whole commands", f"gradtune doctor --repair --data-dir {data}"):
        assert str(word) in str(refused.value)
    assert part(INCREMENT).read_bytes() == damaged, "nothing is touched"
    looked = doctor(data, "--json")
    assert looked.exit_code == 1
    (wrong,) = (check for check in json.loads(looked.stdout)["checks"] if check["status"] == "wrong")
    assert wrong["detail"] == str(refused.value)
    served = CliRunner().invoke(main, ["serve", "--port", "0", "--data-dir", str(data)])
    assert (served.exit_code, served.stderr) == (1, f"Error: {refused.value}\n")
    with EmbeddedServer(data, binary=binary).held():
        held = doctor(data, "--repair")
        assert held.exit_code == 1
        assert "in use" in held.stdout
    mended = doctor(data, "--repair")
    assert mended.exit_code == 0, mended.output
    (kept,) = part(INCREMENT).parent.glob("*.cut-*")
    assert str(kept) in mended.stdout
    assert part(INCREMENT).read_bytes() + kept.read_bytes() == damaged
    assert part(INCREMENT).stat().st_size < at, "the transaction is cut at its beginning"
    assert keys(data, binary) == {b"a0", b"b0"}
    assert doctor(data).exit_code == 0


def test_a_later_file_is_put_aside_whole(data: Path, binary: str, part: Callable[[str], Path]) -> None:
    text, second = part(INCREMENT).read_bytes(), INCREMENT.replace(".1.", ".2.")
    part(second).write_bytes(text)
    part(INCREMENT).write_bytes(text[:-7])
    with part(MANIFEST).open("a") as manifest:
        manifest.write(f"file {second} seq 2 type i\n")
    with pytest.raises(ServerError, match="14 whole commands stand after it"):
        keys(data, binary)
    assert doctor(data, "--repair").exit_code == 0
    assert not part(second).exists()
    assert [each.read_bytes() for each in part(second).parent.glob(f"{second}.cut-*")] == [text]
    assert keys(data, binary) == SIX


@pytest.mark.parametrize(
    "text",
    [None, b"", bytes(88), b"file appendonly.aof.1.base.rdb seq 1 type b\n"],
    ids=["missing", "empty", "zeros", "without increment"],
)
def test_a_damaged_list_does_not_start_an_empty_server(
    text: bytes | None, data: Path, binary: str, part: Callable[[str], Path]
) -> None:
    change(part(MANIFEST), text)
    with pytest.raises(ServerError, match=r"manifest (is missing|cannot be read|does not list) ?.*doctor --repair"):
        keys(data, binary)
    assert doctor(data, "--repair").exit_code == 0
    assert keys(data, binary) == ALL


def change(path: Path, text: bytes | None) -> None:
    if text is None:
        path.unlink()
    else:
        path.write_bytes(text)


@pytest.mark.parametrize(
    ("text", "word"), [(None, "is missing"), (b"", "cannot be read"), (bytes(89), "cannot be read")]
)
def test_a_snapshot_cannot_be_repaired(
    text: bytes | None, word: str, data: Path, binary: str, part: Callable[[str], Path]
) -> None:
    change(part(BASE), text)
    for attempt in (lambda: keys(data, binary), lambda: EmbeddedServer(data, binary=binary).start()):
        with pytest.raises(ServerError, match=f"{BASE} {word}.*cannot be repaired. Put a backup") as refused:
            attempt()
    mended = doctor(data, "--repair")
    assert mended.exit_code == 1
    if word == "is missing":
        assert str(refused.value) in mended.stdout
    assert part(INCREMENT).stat().st_size > 0


def test_a_flipped_bit_in_the_snapshot(data: Path, binary: str, part: Callable[[str], Path]) -> None:
    text = part(BASE).read_bytes()
    part(BASE).write_bytes(text[:-1] + bytes([text[-1] ^ 1]))
    with pytest.raises(ServerError, match=r"cannot be read by this server: at byte .*cannot be repaired"):
        keys(data, binary)


def test_a_missing_increment(data: Path, binary: str, part: Callable[[str], Path]) -> None:
    part(INCREMENT).unlink()
    with pytest.raises(ServerError, match=f"{INCREMENT} is missing.*0 whole commands"):
        keys(data, binary)
    assert doctor(data, "--repair").exit_code == 0
    assert keys(data, binary) == set()


def test_a_folder_in_the_place_of_a_file(data: Path, binary: str, part: Callable[[str], Path]) -> None:
    part(INCREMENT).unlink()
    part(INCREMENT).mkdir()
    with pytest.raises(ServerError, match=r"cannot be read or mended: .*Is a directory"):
        keys(data, binary)
    for words in ([], ["--repair"]):
        looked = doctor(data, *words)
        assert (looked.exit_code, "Is a directory" in looked.stdout) == (1, True), looked.exception


def test_a_first_start_that_was_killed(data: Path, binary: str, part: Callable[[str], Path]) -> None:
    part(MANIFEST).unlink()
    part(INCREMENT).write_bytes(b"")
    assert keys(data, binary) == set()


def test_one_file_as_older_servers_write_it(data: Path, binary: str, part: Callable[[str], Path]) -> None:
    single = data / "redis" / "appendonly.aof"
    single.write_bytes(part(BASE).read_bytes() + part(INCREMENT).read_bytes() + bytes(100))
    shutil.rmtree(part(BASE).parent)
    assert keys(data, binary) == ALL


@pytest.fixture
def slowly(binary: str, tmp_path: Path) -> str:
    """A server that takes 20 ms to load a key and answers meanwhile."""
    script = tmp_path / "slow-server"
    words = "--key-load-delay 20000 --loading-process-events-interval-bytes 1024"
    script.write_text(f'#!/bin/sh\nexec "{binary}" "$@" {words}\n')
    script.chmod(0o700)
    return str(script)


def test_loading_has_more_time_than_silence(
    data: Path, binary: str, slowly: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with EmbeddedServer(data, binary=binary) as server, store.connect(server.url) as client:
        client.mset({f"key {number}": os.urandom(500) for number in range(100)})  # not to be compressed
        client.bgrewriteaof()
        while client.info("persistence")["aof_rewrite_in_progress"] or not client.info("persistence")["aof_rewrites"]:
            pass
    monkeypatch.setattr(loading, "SAID_EVERY", 0.3)
    caplog.set_level(logging.INFO, "worker.loading")
    with EmbeddedServer(data, binary=slowly, start_timeout=1.0) as server, store.connect(server.url) as client:
        assert client.dbsize() == 107
        assert any("% of" in record.getMessage() for record in caplog.records)
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        eventually(lambda: not server.alive)
        server.restart(lambda: True)  # who is told to stop meanwhile does not wait
        assert server.alive
    monkeypatch.setattr(loading, "LONGEST", 0.5)
    with pytest.raises(ServerError, match="was not ready after"):
        EmbeddedServer(data, binary=slowly).start()
