"""The two ends of the channel to a reader, where one ends at a moment that does not suit the other."""

from __future__ import annotations

import asyncio
import fcntl
import functools
import os
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pytest
from scipy import sparse

from service.problems import DatasetTooLarge, InvalidDataset, Unavailable
from service.readers import ReaderError, Readers, Reading
from tests.datasets.files import arrow, npy, parquet, scipy_npz
from tests.service.api import eventually
from worker.contract.dataset import Format, ReadingOptions
from worker.datasets import confinement
from worker.datasets.draft import CONTENT
from worker.datasets.reader import ENVIRONMENT, INHERITED
from worker.datasets.refusal import Limits

BROKEN = npy(np.array([[1.0, np.inf]]))


def processes(readers: Readers) -> tuple[psutil.Process, list[psutil.Process]]:
    """The reader process and its children."""
    assert readers._process is not None
    main = psutil.Process(readers._process.pid)
    return main, main.children()


def over(child: psutil.Process) -> bool:
    return not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def run(test: Callable[[Readers], Awaitable[None]], limits: Limits | None = None) -> None:
    async def whole() -> None:
        readers = Readers(limits or Limits(), 2)
        try:
            await test(readers)
        finally:
            readers.close()

    asyncio.run(whole())


def unread(reading: Reading) -> int:
    """Bytes of the reply that wait in the socket."""
    size = bytearray(4)
    fcntl.ioctl(reading._reply[1].get_extra_info("socket").fileno(), termios.FIONREAD, size)
    return int.from_bytes(size, sys.byteorder)


async def started(
    readers: Readers, directory: Path, content: bytes = BROKEN, kind: Format = "npy"
) -> tuple[Reading, psutil.Process]:
    """A reading whose child waits for the first byte, and the child."""
    (directory / CONTENT).write_bytes(content)
    reading = await readers.begin(directory, kind, options=ReadingOptions())
    eventually(lambda: len(processes(readers)[1]) == 1)
    return reading, processes(readers)[1][0]


async def refusal(reading: Reading) -> None:
    with pytest.raises(InvalidDataset) as caught:
        await asyncio.wait_for(reading.draft(), 30)
    assert [fault.pointer for fault in caught.value.errors] == ["/rows/0/columns/1"]
    await reading.cancel()


def test_what_a_child_said_counts_although_it_has_not_heard_all(tmp_path: Path):
    """It ends with news unread, before the reader process takes leave of it."""

    async def test(readers: Readers) -> None:
        reading, child = await started(readers, tmp_path)
        main, _ = processes(readers)
        main.suspend()
        reading.grown(len(BROKEN))
        eventually(lambda: over(child))
        reading.grown(len(BROKEN) + 1)
        await asyncio.sleep(0.1)
        main.resume()
        await refusal(reading)

    run(test)


def test_what_a_child_said_counts_although_it_is_told_more_after_its_end(tmp_path: Path):
    """The event loop has other things to do meanwhile: it writes to a socket without another end before it reads."""

    async def test(readers: Readers) -> None:
        reading, _ = await started(readers, tmp_path)
        reading.grown(len(BROKEN))
        eventually(lambda: not processes(readers)[1])
        for _ in range(10):
            reading.grown(len(BROKEN) + 1)
        await refusal(reading)

    run(test)


def test_a_child_that_is_killed_in_the_middle_of_a_line(tmp_path: Path):
    async def test(readers: Readers) -> None:
        names = [f"c{j:0199}" for j in range(5000)]  # a reply of more than a socket holds, of which nothing is read yet
        content = "\n".join([",".join(names), ",".join("1" * 5000)]).encode()
        reading, child = await started(readers, tmp_path, content, "csv")
        reading.grown(len(content), complete=True)
        eventually(lambda: unread(reading) > 10_000)
        child.kill()
        with pytest.raises(DatasetTooLarge):  # as for a child that the system ends for lack of memory
            await asyncio.wait_for(reading.draft(), 30)
        await reading.cancel()

    run(test)


def zeros(rows: int, columns: int) -> pa.Table:
    return pa.table({f"x{j}": pa.array(np.zeros(rows)) for j in range(columns)})


def a_sparse_matrix() -> bytes:
    """By columns, so that all of it is needed at once."""
    entries = 4_000_000
    parts = np.ones(entries, np.int8), np.zeros(entries, np.int32), np.array([0, entries])
    return scipy_npz(sparse.csc_array(parts, (1, 1)))


TOO_LARGE: dict[str, tuple[Format, Callable[[], bytes], tuple[str, ...]]] = {
    "parquet": (  # one page for each column, as fastparquet writes
        "parquet",
        lambda: parquet(
            zeros(1_500_000, 8), data_page_size=2**30, max_rows_per_page=2**30, compression="zstd", use_dictionary=False
        ),
        ("row group 1 of 2 (1048576 rows, 64 MiB)", "row_group_size", "ROW_GROUP_SIZE"),
    ),
    "arrow file": (
        "arrow",
        lambda: arrow(zeros(1_500_000, 8), rows=2_000_000, codec="lz4"),
        ("record batch 1 of 1", "chunksize", "record_batch_size"),
    ),
    "arrow stream": (
        "arrow",
        lambda: arrow(zeros(1_500_000, 8), rows=2_000_000, codec="zstd", stream=True),
        ("record batch 1", "chunksize", "record_batch_size"),
    ),
    "npz": ("npz", a_sparse_matrix, ("the array 'data'", "tocsr()")),
}


@pytest.mark.parametrize(
    "name", ["parquet", "arrow file", *(pytest.param(name, marks=pytest.mark.slow) for name in ("arrow stream", "npz"))]
)
def test_a_piece_that_is_too_large_is_named(tmp_path: Path, name: str):
    """With what its writer can do about it, as a matter of size and not of damage."""
    kind, make, told = TOO_LARGE[name]
    content = make()

    async def test(readers: Readers) -> None:
        (tmp_path / CONTENT).write_bytes(content)
        with pytest.raises(DatasetTooLarge) as caught:
            await readers.read(tmp_path, kind, ReadingOptions(), len(content))
        for text in (*told, "more than 24 MiB of memory"):
            assert text in caught.value.detail

    run(test, Limits(memory=24 * 2**20))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what a process may take")
def test_a_child_is_confined(tmp_path: Path):
    """Before it reads the first byte: what it may take is the kernel's affair, not that of a parser."""
    limits = Limits(memory=123 * 2**20, seconds=77, bytes=54_321)

    async def test(readers: Readers) -> None:
        reading, child = await started(readers, tmp_path)
        eventually(lambda: child.rlimit(psutil.RLIMIT_CORE)[0] == 0)
        assert child.rlimit(psutil.RLIMIT_CPU)[0] == limits.seconds
        assert child.rlimit(psutil.RLIMIT_FSIZE)[0] == limits.bytes
        assert 0 < child.rlimit(psutil.RLIMIT_AS)[0] - limits.memory <= child.memory_info().vms
        await reading.cancel()

    run(test, limits)


def test_the_end_of_the_reader_process_is_told(tmp_path: Path):
    async def test(readers: Readers) -> None:
        reading, _ = await started(readers, tmp_path)
        processes(readers)[0].send_signal(signal.SIGKILL)
        with pytest.raises(Unavailable):
            await asyncio.wait_for(reading.draft(), 30)
        await reading.cancel()
        again = await readers.begin(tmp_path, "npy", options=ReadingOptions())  # at once, be the old one buried or not
        again.grown(len(BROKEN), complete=True)
        await refusal(again)

    run(test)


def test_a_reader_gets_no_secret_of_the_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Neither in the environment nor as a file that is open, nor by the network, where the machine allows that."""
    for name in ("GRADTUNE_REDIS_URL", "GRADTUNE_API_KEY_HASHES", "AWS_SECRET_ACCESS_KEY", "REDIS_PASSWORD"):
        monkeypatch.setenv(name, "hunter2")
    own, other = tmp_path / "own", tmp_path / "other"
    own.mkdir()
    other.write_bytes(BROKEN)

    async def test(readers: Readers) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.set_inheritable(True)
            reading, child = await started(readers, own)
        main, _ = processes(readers)
        reading.grown(0)
        for process in (main, child):
            assert set(process.environ()) <= {*INHERITED, *ENVIRONMENT}
            assert "hunter2" not in str(process.environ())
            assert "LISTEN" not in {found.status for found in process.net_connections()}
            assert "NoNewPrivs:\t1" in status(process)
            if allowed("isolate([])"):
                assert network(process.pid) != network(os.getpid())
                assert "CapEff:\t0000000000000000" in status(process)
        await reading.cancel()
        if allowed("restrict(Path('/tmp'))"):  # a name that leads elsewhere stands for a parser that was taken over
            (own / CONTENT).unlink()
            (own / CONTENT).symlink_to(other)
            with pytest.raises(ReaderError):
                await readers.read(own, "npy", ReadingOptions(), len(BROKEN))

    run(test)


def network(pid: int) -> Path:
    return Path(f"/proc/{pid}/ns/net").readlink()


def status(process: psutil.Process) -> str:
    return Path(f"/proc/{process.pid}/status").read_text()


@functools.cache
def allowed(call: str) -> bool:
    """Whether this machine lets a process do it to itself."""
    script = f"import runpy; globals().update(runpy.run_path({confinement.__file__!r})); raise SystemExit(not {call})"
    return subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
