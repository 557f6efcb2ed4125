"""Uploads: raw NPY beside the same bytes streamed to disk through bare Starlette, CSV beside pyarrow's own reader."""

from __future__ import annotations

import http.client
import io
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
from pyarrow import csv as pa_csv

from worker.embedded import EmbeddedServer, die_with_parent

CHUNK = 2**20


@contextmanager
def process(arguments: list[str], **environment: str) -> Iterator[tuple[psutil.Process, int]]:
    """A server on a free port, which it is handed as a socket; the process and the port."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        listener.set_inheritable(True)
        child = subprocess.Popen(
            [sys.executable, "-m", *arguments, str(listener.fileno())],
            env={**os.environ, **environment},
            pass_fds=[listener.fileno()],
            preexec_fn=die_with_parent(os.getpid(), signal.SIGKILL),  # noqa: PLW1509
        )
        port = listener.getsockname()[1]
        try:
            for _ in range(600):
                try:
                    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
                    connection.request("GET", "/healthz")
                    connection.getresponse().read()
                    break
                except OSError:
                    time.sleep(0.1)
            yield psutil.Process(child.pid), port
        finally:
            child.terminate()
            child.wait(30)


def send(port: int, parts: Iterator[bytes], size: int, kind: str) -> float:
    """Seconds from the first byte of a POST to its reply."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    headers = {"Content-Type": kind, "Content-Length": str(size)}
    began = time.perf_counter()
    connection.request("POST", "/v1/datasets", parts, headers)
    reply = connection.getresponse()
    text = reply.read()
    took = time.perf_counter() - began
    if reply.status != 201:
        sys.exit(f"status {reply.status}: {text[:300].decode()}")
    connection.close()
    return took


class Memory(threading.Thread):
    """The most memory that a process has while this runs, in MB above what it had."""

    def __init__(self, watched: psutil.Process) -> None:
        super().__init__(daemon=True)
        self._watched, self._over = watched, threading.Event()
        self._before = self.most = watched.memory_info().rss

    def run(self) -> None:
        """Look every 10 ms."""
        while not self._over.wait(0.01):
            self.most = max(self.most, self._watched.memory_info().rss)

    def stop(self) -> float:
        """The growth."""
        self._over.set()
        self.join()
        return (self.most - self._before) / 1e6


def cut(content: bytes) -> Iterator[bytes]:
    view = memoryview(content)
    return (view[i : i + CHUNK] for i in range(0, len(content), CHUNK))  # type: ignore[return-value]


def matrix(rows: int, number: int) -> bytes:
    array = np.random.default_rng(number).normal(size=(rows, 10))
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def processor(process: psutil.Process) -> tuple[float, float]:
    """Seconds of processor time of a server itself, and of its reader process with all its children so far."""
    own, reader = process.cpu_times(), 0.0
    for child in process.children():
        times = child.cpu_times()
        reader += times.user + times.system + times.children_user + times.children_system
    return own.user + own.system, reader


def uploads(bare: tuple[psutil.Process, int], ours: int, api: psutil.Process, rows: int, repeats: int) -> None:
    send(bare[1], cut(matrix(1000, 0)), len(matrix(1000, 0)), "application/x-npy")
    send(ours, cut(matrix(1000, 0)), len(matrix(1000, 0)), "application/x-npy")  # starts the reader process
    times: dict[str, list[float]] = {"bare": [], "ours": []}
    before = processor(bare[0])[0], *processor(api)
    grown = []
    for number in range(1, repeats + 1):
        content = matrix(rows, number)
        times["bare"].append(send(bare[1], cut(content), len(content), "application/x-npy"))
        memory = Memory(api)
        memory.start()
        times["ours"].append(send(ours, cut(content), len(content), "application/x-npy"))
        grown.append(memory.stop())
    ratios = [b / a for a, b in zip(times["bare"], times["ours"], strict=True)]
    megabytes = rows * 80 / 1e6
    for name, seconds in times.items():
        middle = statistics.median(seconds)
        print(f"NPY of {rows * 10:.0e} values, {name}: {middle:.3f} s median, {min(seconds):.3f} s least, "
              f"{megabytes / middle:.0f} MB/s")  # fmt: skip
    print(f"ratio: {statistics.median(ratios):.2f} median of {repeats} pairs, "
          f"{min(times['ours']) / min(times['bare']):.2f} of the least")  # fmt: skip
    spent = [b - a for a, b in zip(before, (processor(bare[0])[0], *processor(api)), strict=True)]
    print("processor time of one upload: " + ", ".join(
        f"{name} {seconds / repeats:.3f} s"
        for name, seconds in zip(("bare", "our API", "its reader"), spent, strict=True)
    ))  # fmt: skip
    print(f"memory of the API: {max(grown):.0f} MB more at most")


def write_csv(path: Path, megabytes: int) -> int:
    """Numbers, a date and a category."""
    rng = np.random.default_rng(0)
    table = rng.normal(size=(20_000, 8)).round(6)
    ends = [f",2024-01-{i % 28 + 1:02},{'abcde'[i % 5]}" for i in range(len(table))]
    rows = [",".join(map(str, row)) + end for row, end in zip(table.tolist(), ends, strict=True)]
    block = ("\n".join(rows) + "\n").encode()
    with path.open("wb") as file:
        file.write(b"a,b,c,d,e,f,g,h,day,kind\n")
        while file.tell() < megabytes * 1e6:
            file.write(block)
        return file.tell()


def csv_rate(ours: int, api: psutil.Process, directory: Path, megabytes: int) -> None:
    path = directory / "table.csv"
    size = write_csv(path, megabytes)

    def parts() -> Iterator[bytes]:
        with path.open("rb") as file:
            while part := file.read(CHUNK):
                yield part

    memory = Memory(api)
    memory.start()
    took = send(ours, parts(), size, "text/csv")
    grown = memory.stop()
    began = time.perf_counter()
    options = pa_csv.ReadOptions(use_threads=False, block_size=2**22)
    for _ in pa_csv.open_csv(path, options):
        pass
    alone = time.perf_counter() - began
    path.unlink()
    print(f"CSV of {size / 1e6:.0f} MB: upload to summary {took:.1f} s, {size / took / 1e6:.0f} MB/s; pyarrow alone, "
          f"one thread, from disk, nothing kept: {alone:.1f} s, {size / alone / 1e6:.0f} MB/s; "
          f"API {grown:.0f} MB more")  # fmt: skip


def main(*, short: bool) -> None:
    rows, repeats, megabytes = (20_000, 2, 5) if short else (1_000_000, 9, 1000)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        bare = process(["benchmarks.datasets"], BENCHMARK_FILE=str(directory / "bare"))
        with EmbeddedServer(directory / "store") as embedded, bare as served:
            settings = {"GRADTUNE_REDIS_URL": embedded.url, "GRADTUNE_DATA_DIR": name}
            with process(["service.cli", "api", "--fd"], **settings) as (api, port):
                uploads(served, port, api, rows, repeats)
                csv_rate(port, api, directory, megabytes)


def bare_starlette(descriptor: int) -> None:
    """Stream a body to a file, and nothing else."""
    import uvicorn  # noqa: PLC0415
    from starlette.applications import Starlette  # noqa: PLC0415
    from starlette.requests import Request  # noqa: PLC0415
    from starlette.responses import JSONResponse  # noqa: PLC0415
    from starlette.routing import Route  # noqa: PLC0415

    async def upload(request: Request) -> JSONResponse:
        size = 0
        with Path(os.environ["BENCHMARK_FILE"]).open("wb") as file:  # noqa: ASYNC230 - as simple as can be
            async for part in request.stream():
                size += file.write(part)
        return JSONResponse({"size": size}, 201)

    async def healthz(_: Request) -> JSONResponse:
        return JSONResponse({})

    app = Starlette(routes=[Route("/v1/datasets", upload, methods=["POST"]), Route("/healthz", healthz)])
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False))
    server.run(sockets=[socket.socket(fileno=descriptor)])


if __name__ == "__main__":
    bare_starlette(int(sys.argv[1]))
