"""Reading uploaded files in processes of their own: see worker/datasets/reader.py for the other side."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from service.problems import DatasetTooLarge, InvalidDataset, Problem, StorageFull, Unavailable
from worker.contract.dataset import Format, ReadingOptions
from worker.contract.faults import Fault
from worker.datasets.draft import Draft
from worker.datasets.reader import ENVIRONMENT, INHERITED, Task
from worker.datasets.refusal import Limits, Reason

LONGEST = 2**28  # bytes of a draft
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_KINDS: dict[str, type[Problem]] = {Reason.TOO_LARGE: DatasetTooLarge, Reason.NO_ROOM: StorageFull}
log = logging.getLogger(__name__)


class ReaderError(Exception):
    """The reader failed for a reason of its own; it has been logged."""


class Reading:
    """A file that is being read. Tell how it grows, then wait for the draft; `cancel` ends it at any time."""

    def __init__(self, task: Task, news: asyncio.StreamWriter, reply: Stream) -> None:
        self._task, self._news, self._reply = task, news, reply
        self._outcome = asyncio.create_task(self._listen())

    @property
    def over(self) -> bool:
        """Whether there is an outcome already."""
        return self._outcome.done()

    def grown(self, size: int, *, complete: bool = False) -> None:
        """Tell that the file has this many bytes, and whether this is all."""
        if not (self.over or self._news.is_closing()):
            self._news.write(json.dumps({"size": size, "complete": complete}).encode() + b"\n")

    async def draft(self) -> Draft:
        """The draft of the dataset. Raises a Problem, or ReaderError."""
        outcome = await asyncio.shield(self._outcome)
        if "draft" in outcome:
            return Draft.model_validate_json(outcome["draft"])
        raise _problem(outcome, self._task)

    async def cancel(self) -> None:
        """End the process, if it has not ended, and wait until it is gone: its directory can be removed then."""
        self._news.close()
        with suppress(Exception):
            await asyncio.wait_for(asyncio.shield(self._outcome), 10)
        self._reply[1].close()

    async def _listen(self) -> dict[str, Any]:
        """What the child says, and how it ended; an exit without a word comes alone."""
        outcome: dict[str, Any] = {}
        while line := await self._reply[0].readline():
            with suppress(json.JSONDecodeError):  # half a line, when the child was ended while it wrote
                outcome |= json.loads(line)
        return outcome


def _problem(outcome: dict[str, Any], task: Task) -> Exception:
    if outcome.get("full"):
        return StorageFull("The disk of the service is full; delete datasets, or tell its operators.")
    if "refused" in outcome:
        faults = [Fault(**fault) for fault in outcome["faults"]]
        kind: type[Problem] = _KINDS.get(outcome["refused"], InvalidDataset)
        return kind(outcome["detail"], errors=faults)
    if "failed" in outcome:
        log.error("reading a file of format %s failed: %s", task.format, outcome["failed"])
        return ReaderError("the reader failed")
    return _end(outcome.get("exit"), task)


def _end(status: int | None, task: Task) -> Exception:
    """Why a child ended without a word: its exit status, None if the reader process did not live to tell."""
    if status is None:
        log.error("the reader process ended while a file of format %s was read", task.format)
        return Unavailable("The process that read the file has ended; send the file again.")
    if status == -signal.SIGXCPU:
        return DatasetTooLarge(f"Reading the file takes more than {task.seconds} s; send a smaller one, or NPY.")
    if status == -signal.SIGKILL:
        return DatasetTooLarge("Reading the file takes more memory than there is; send it as NPY or CSV.")
    if status in {-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, -signal.SIGFPE}:
        log.error("the reader of a file of format %s crashed: %s", task.format, signal.Signals(-status).name)
        return InvalidDataset(
            f"The file cannot be read as {task.format}: it is damaged in a way that breaks the reader, or takes more "
            f"than {task.memory >> 20} MiB of memory; write it again, in smaller blocks."
        )
    log.error("reading a file of format %s ended with status %s", task.format, status)
    return ReaderError("the reader failed")


class Readers:
    """The reader process of this API process, started when the first file comes."""

    def __init__(self, limits: Limits, most: int, hidden: Sequence[Path] = (), log_level: str = "info") -> None:
        """`hidden`: files and directories that hold or lead to the job store, not to be seen by the readers."""
        self._limits = limits
        self._arguments = [log_level, *(str(path.absolute()) for path in hidden)]
        self._late, self._early = asyncio.Semaphore(most), most
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    async def begin(self, directory: Path, kind: Format, options: ReadingOptions, room: int | None = None) -> Reading:
        """Start to read the file `content` of a directory, which need not be there yet.

        `room`: bytes that the quota leaves for what is made of it; None: as many as the limits allow.
        """
        values = asdict(replace(self._limits, room=room))
        task = Task(directory=str(directory), format=kind, options=options, **values)
        pairs = [socket.socketpair() for _ in ("news", "reply")]
        with pairs[0][1] as theirs, pairs[1][1] as also_theirs:
            self._hand_over(theirs, also_theirs)
        _, news = await asyncio.open_unix_connection(sock=pairs[0][0])
        reply = await asyncio.open_unix_connection(sock=pairs[1][0], limit=LONGEST)
        news.write(task.model_dump_json().encode() + b"\n")
        return Reading(task, news, reply)

    async def read(
        self, directory: Path, kind: Format, options: ReadingOptions, size: int, room: int | None = None
    ) -> Draft:
        """Read a complete file, when its turn comes. Raises as `Reading.draft`."""
        async with self._late:
            reading = await self.begin(directory, kind, options, room)
            try:
                reading.grown(size, complete=True)
                return await reading.draft()
            finally:
                await reading.cancel()

    async def begin_early(
        self, directory: Path, kind: Format, options: ReadingOptions, room: int | None = None
    ) -> Reading | None:
        """As `begin`, for a file that is still coming; None when enough are being read. Give it to `end_early`."""
        if self._early == 0:
            return None
        self._early -= 1
        try:
            return await self.begin(directory, kind, options, room)
        except BaseException:
            self._early += 1
            raise

    async def end_early(self, reading: Reading) -> None:
        """End a reading that began early, whatever became of it."""
        self._early += 1
        await reading.cancel()

    def _hand_over(self, *ends: socket.socket) -> None:
        descriptors = [end.fileno() for end in ends]
        try:
            socket.send_fds(self._running(), [b"+"], descriptors)
        except OSError:  # it has ended since it was asked, or is about to
            self.close()
            socket.send_fds(self._running(), [b"+"], descriptors)

    def _running(self) -> socket.socket:
        if self._process is None or self._process.poll() is not None or self._control is None:
            self.close()
            ours, theirs = socket.socketpair()
            with theirs:
                self._process = subprocess.Popen(  # noqa: S603 - our own module
                    [sys.executable, "-m", "worker.datasets.reader", *self._arguments],
                    env={name: os.environ[name] for name in INHERITED if name in os.environ} | ENVIRONMENT,
                    stdin=theirs.fileno(),
                )
            self._control = ours
        return self._control

    def close(self) -> None:
        """End the process and its children."""
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._control = self._process = None
