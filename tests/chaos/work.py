"""What the work-horses did: reads the lines that `counting/sitecustomize.py` makes them append."""

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(slots=True)
class Work:
    """The evaluations made, by job; kept up to date with `update`."""

    path: Path
    made: int = 0
    distinct: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    again: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    moments: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))  # of its evaluations
    job_of: dict[int, str] = field(default_factory=dict)  # process -> what it worked at last
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
            self.job_of[int(pid)] = job
            if evaluations != "0":
                self.moments[job].append(float(at))
                self._count(job, int(evaluations))

    def _count(self, job: str, evaluation: int) -> None:
        self.made += 1
        known = self.distinct[job]
        if evaluation in known:
            self.again[job] += 1
        known.add(evaluation)

    def next_after(self, job: str, at: float) -> float | None:
        """When the first evaluation of a job after a moment ended."""
        return min((moment for moment in self.moments.get(job, ()) if moment > at), default=None)

    @property
    def repeated(self) -> int:
        """Evaluations made more than once."""
        return sum(self.again.values())

    @property
    def share(self) -> float:
        """Of all evaluations, in percent."""
        return 100 * self.repeated / self.made if self.made else 0.0
