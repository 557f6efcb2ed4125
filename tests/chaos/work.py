"""What the work-horses did: reads the lines that `counting/sitecustomize.py` makes them append."""

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(slots=True)
class Work:
    """The evaluations made, by job; kept up to date with `update`."""

    path: Path
    made: int = 0
    again_seconds: float = 0.0  # spent on what had been done before
    _seconds: dict[tuple[str, int], float] = field(default_factory=dict)  # the fastest time of each evaluation
    _last: dict[int, float] = field(default_factory=dict)  # process -> when it wrote last
    distinct: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    again: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    moments: dict[str, list[tuple[float, int, int]]] = field(default_factory=lambda: defaultdict(list))
    _job_of: dict[int, str] = field(default_factory=dict)  # process -> what it worked at last
    _process_of: dict[str, int] = field(default_factory=dict)  # job -> who worked at it last
    _offset: int = 0

    def update(self) -> None:
        """Read what has been appended since."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._offset)
            text = file.read()
        whole = text.rfind(b"\n") + 1
        self._offset += whole
        for line in text[:whole].decode().splitlines():
            at, pid, job, evaluations = line.split()
            self._job_of[int(pid)] = job
            self._process_of[job] = int(pid)
            if evaluations != "0":
                self.moments[job].append((float(at), int(evaluations), int(pid)))
                self._count(job, int(evaluations), float(at) - self._last[int(pid)])
            self._last[int(pid)] = float(at)

    def _count(self, job: str, evaluation: int, seconds: float) -> None:
        # A process may have been frozen meanwhile: of two times the shorter one counts.
        fastest = min(seconds, self._seconds.get((job, evaluation), seconds))
        self._seconds[job, evaluation] = fastest
        self.made += 1
        known = self.distinct[job]
        if evaluation in known:
            self.again[job] += 1
            self.again_seconds += fastest
        known.add(evaluation)

    def job_held_by(self, process: int) -> str | None:
        """The job that a work-horse worked at last, unless another one has taken it over."""
        job = self._job_of.get(process)
        return job if job is not None and self._process_of[job] == process else None

    def next_after(self, job: str, at: float, not_by: int | None) -> float | None:
        """When the first evaluation of a job after a moment ended; those of one process do not count."""
        moments = self.moments.get(job, ())
        return min((moment for moment, _, process in moments if moment > at and process != not_by), default=None)

    def done_before(self, job: str, at: float) -> int:
        """How many evaluations of a job had been made by then."""
        return max((number for moment, number, _ in self.moments.get(job, ()) if moment <= at), default=0)

    @property
    def repeated(self) -> int:
        """Evaluations made more than once."""
        return sum(self.again.values())

    @property
    def share(self) -> float:
        """Of all evaluations, in percent."""
        return 100 * self.repeated / self.made if self.made else 0.0
