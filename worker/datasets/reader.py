"""The process that reads uploaded files: started once by the API, it forks a child with limits for each file.

What comes from outside is parsed in such a child only. `python -m worker.datasets.reader LEVEL HIDDEN...`: each byte
that arrives on the socket at standard input brings another socket, over which a child gets its task (a line of JSON),
then lines that tell how far the file has grown, and replies with a line: a draft, a refusal, or the reason why there is
neither. When standard input is closed, everything ends. LEVEL is that of the log. The process has no network and does
not see HIDDEN files, and children see programs and their own directory only, as far as the system allows it.
"""

from __future__ import annotations

import errno
import fcntl
import gc
import json
import logging
import os
import resource
import select
import signal
import socket
import sys
import threading
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from worker.contract.dataset import Format, ReadingOptions
from worker.contract.wire import Wire
from worker.datasets.confinement import isolate, restrict
from worker.datasets.draft import CONTENT
from worker.datasets.ingest import read
from worker.datasets.refusal import Limits, RefusedError, no_room, too_large
from worker.datasets.source import GrowingSource
from worker.embedded import die_with_parent

ENVIRONMENT: Final = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",  # the others reserve address space, which is what is limited
    "ARROW_IO_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
INHERITED: Final = (
    "PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TZDIR", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH",
    "PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE", "PYTHONNOUSERSITE", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX",
    "PYTHONUTF8",
)  # fmt: skip
"""What of the API's environment is passed on: how to find Python, and no secret."""
_VICTIM: Final = "500"


class Task(Wire):
    """A file to read: `content` in `directory`, where its canonical form is made, too."""

    directory: str
    format: Format
    options: ReadingOptions
    values: int
    columns: int
    bytes: int
    memory: int
    seconds: int
    sparse_columns: int
    room: int | None = None

    @property
    def limits(self) -> Limits:
        """Most that the dataset may take."""
        return Limits(self.values, self.columns, self.bytes, self.memory, self.seconds, self.sparse_columns, self.room)


def main() -> None:
    """Fork children until the control socket is closed."""
    # a high one: when this process is killed, Linux closes it before the others, by which the API notices
    highest = min(200, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
    control = socket.socket(fileno=fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, highest))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    logging.basicConfig(level=sys.argv[1].upper(), format="%(asctime)s %(name)s %(message)s")
    isolate([Path(path) for path in sys.argv[2:]])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is for the service
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    arrange = die_with_parent(os.getpid(), signal.SIGKILL)
    _load()
    gc.freeze()
    children: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([control.fileno(), woken], [], [])
        if woken in ready:
            os.read(woken, 1024)
            _bury(children)
        if control.fileno() in ready:
            byte, descriptors, _, _ = socket.recv_fds(control, 1, 2)
            if not byte:
                return
            news, reply = (socket.socket(fileno=descriptor) for descriptor in descriptors)
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                if arrange is not None:
                    arrange()
                for other in (control, *children.values()):
                    other.close()
                _child(news, reply)
            news.close()
            children[pid] = reply


def _load() -> None:
    """Load what children need, so that each need not."""
    import pyarrow as pa  # noqa: PLC0415

    import worker.datasets.formats.arrow  # noqa: PLC0415
    import worker.datasets.formats.csv  # noqa: F401, PLC0415

    # the first conversion imports pandas, where that is installed: 40 MiB
    pa.array([1.0]).dictionary_encode().dictionary.to_numpy(zero_copy_only=False)


def _bury(children: dict[int, socket.socket]) -> None:
    """Tell how children have ended, after whatever they had to say themselves."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        with suppress(OSError), children.pop(pid) as reply:
            # a line of its own, even if the child died in the middle of one
            reply.sendall(b"\n" + json.dumps({"exit": os.waitstatus_to_exitcode(status)}).encode() + b"\n")


def _child(news: socket.socket, reply: socket.socket) -> None:
    """Do one task and end the process."""
    status = 1
    try:
        lines = news.makefile("rb")
        task = Task.model_validate_json(lines.readline())
        confine(task.limits)
        restrict(Path(task.directory))
        source = GrowingSource(Path(task.directory) / CONTENT)
        threading.Thread(target=_follow, args=(lines, source), daemon=True).start()
        reply.sendall(json.dumps(_outcome(source, task)).encode() + b"\n")
        status = 0
    finally:
        os._exit(status)


def _follow(lines: Any, source: GrowingSource) -> None:
    """Pass on how the file grows; when nobody is there any more who wants the result, end."""
    for line in lines:
        told = json.loads(line)
        source.grown(told["size"], complete=told["complete"])
    os._exit(1)


def _outcome(source: GrowingSource, task: Task) -> dict[str, Any]:
    try:
        draft = read(source, Path(task.directory), task.format, task.limits, task.options)
        return {"draft": draft.model_dump_json()}
    except RefusedError as refusal:
        return _refused(refusal)
    except OSError as error:
        if error.errno == errno.EFBIG and task.room is not None and task.room < task.bytes:
            return _refused(no_room(task.room, task.room))
        if error.errno == errno.EFBIG:
            return _refused(too_large(f"The table takes more than {task.bytes} bytes; send fewer rows or columns."))
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        return {"full": True} if full else {"failed": traceback.format_exc()}
    except Exception:  # noqa: BLE001 - told to the API, which logs it
        return {"failed": traceback.format_exc()}


def _refused(refusal: RefusedError) -> dict[str, Any]:
    faults = [{"pointer": f.pointer, "code": f.code, "detail": f.detail} for f in refusal.faults]
    return {"refused": refusal.reason, "detail": refusal.detail, "faults": faults}


def confine(limits: Limits) -> None:
    """Limit this process: address space above what it has, processor time, size of each file; no core dump."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_VICTIM, encoding="ascii")
    with suppress(OSError):
        pages = int(Path("/proc/self/statm").read_bytes().split()[0])
        _lower(resource.RLIMIT_AS, pages * os.sysconf("SC_PAGE_SIZE") + limits.memory)
    _lower(resource.RLIMIT_CPU, limits.seconds)
    _lower(resource.RLIMIT_FSIZE, limits.bytes if limits.room is None else min(limits.bytes, limits.room))
    _lower(resource.RLIMIT_CORE, 0)


def _lower(which: int, value: int) -> None:
    _, hard = resource.getrlimit(which)
    resource.setrlimit(which, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


if __name__ == "__main__":
    main()
