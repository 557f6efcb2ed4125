"""What one request costs a process: processor time, and memory above what it held before."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Cost:
    """`cpu` in seconds, `memory` in bytes."""

    cpu: float
    memory: int


class Meter:
    """Reads clock and peak of another process; Linux only. The peak of resident memory is reset before each request."""

    def __init__(self, pid: int) -> None:
        self._clock = (~pid << 3) | 2  # as clock_getcpuclockid(3) computes it: all threads of the process
        self._status, self._reset = Path(f"/proc/{pid}/status"), Path(f"/proc/{pid}/clear_refs")
        self._cpu, self._held = 0.0, 0

    def begin(self) -> None:
        """Before a request."""
        self._reset.write_text("5")
        self._held = self._read("VmRSS")
        self._cpu = time.clock_gettime(self._clock)

    def end(self) -> Cost:
        """After its reply."""
        return Cost(time.clock_gettime(self._clock) - self._cpu, max(0, self._read("VmHWM") - self._held))

    def held(self) -> int:
        """Bytes that only this process holds now."""
        return self._read("RssAnon")

    def _read(self, name: str) -> int:
        for line in self._status.read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
        raise AssertionError(f"no {name}")
