"""Memory of a work-horse: how much there is, how much it has, and a limit that raises instead of killing (Linux)."""

import os
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

SHARE: Final = 0.8
"""Of the machine's memory (or the container's) that the jobs of its workers may take together, unless it is set."""
_VICTIM: Final = "500"
"""Added (of 1000) to the kernel's out-of-memory score: a work-horse is killed before the server or the service."""
_CONTAINER_LIMITS: Final = (
    Path("/sys/fs/cgroup/memory.max"),  # cgroup 2
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def total() -> int:
    """Bytes of memory that this machine has, or the container that this process is in."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in _CONTAINER_LIMITS:
        with suppress(OSError, ValueError):  # no container; or "max"
            limits.append(int(path.read_text()))
    return min(limits)


def share(workers: int) -> int:
    """Bytes that a job may take on a machine with this number of workers, each of which runs one."""
    return int(SHARE * total() / workers)


def resident() -> int:
    """Bytes of memory that this process has now (elsewhere than on Linux: that it ever had)."""
    with suppress(OSError):
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def divide(parts: int) -> None:
    """In one of several forks that share what is left of a limit: take an equal part of it."""
    with suppress(OSError, KeyError):
        fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        now = int(fields["VmData"].split()[0]) * 1024
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        if soft != resource.RLIM_INFINITY:
            resource.setrlimit(resource.RLIMIT_DATA, (now + max(soft - now, 0) // parts, hard))


def limit(more: int) -> None:
    """Let this process have at most `more` bytes above what it has now: beyond, an allocation raises `MemoryError`.

    Only private writable memory counts (RLIMIT_DATA), so shared libraries and a machine's overcommitment do not matter.
    OpenBLAS exits when it cannot get its own buffers: have it used before. Without effect elsewhere than on Linux.
    """
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_VICTIM, encoding="ascii")
    with suppress(OSError):
        fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        now = int(fields["VmData"].split()[0]) * 1024
        resource.setrlimit(resource.RLIMIT_DATA, (now + more, resource.getrlimit(resource.RLIMIT_DATA)[1]))
