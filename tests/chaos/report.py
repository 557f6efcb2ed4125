"""The numbers of a run, as a table and as JSON."""

import os
import platform
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tests.chaos.calls import Api
from tests.chaos.faults import Fault, Injector
from tests.chaos.invariants import Breach
from tests.chaos.ledger import Ledger, Record
from tests.chaos.outcomes import Reference
from tests.chaos.work import Work

PROMISES = (
    "lost", "duplicated", "changed after its end", "illegal move", "progress lost", "not bit-identical", "steps",
    "wrong end", "noticed by a caller",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Report:
    options: dict[str, Any]
    machine: str
    faults: dict[str, int]
    missed: int
    posts: int
    acknowledged: int
    unacknowledged_created: int
    ended: dict[str, int]
    attempts: dict[str, int]
    breaches: dict[str, int]
    sentences: list[str]
    evaluations: int
    repeated: int
    repeated_percent: float
    interruptions: int
    repeated_per_interruption: float
    repeated_seconds_per_interruption: float
    recovery: dict[str, float]
    recovery_seen: dict[str, float]
    recovery_by_kind: dict[str, dict[str, float]]
    drain_seconds: float
    replies: dict[str, int]
    undisturbed_seconds: dict[str, float]

    @property
    def kept(self) -> bool:
        """Whether every promise was kept."""
        return not self.sentences

    def document(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> Iterator[str]:
        """The table."""
        yield f"seed {self.options['seed']}, {self.options['layout']}, {self.options['server']}; {self.machine}"
        yield ""
        yield f"{'fault':32} {'times':>6}   {'recovery: jobs':>14} {'median':>8} {'p95':>8} {'max s':>8}"
        for kind, count in sorted(self.faults.items(), key=lambda item: -item[1]):
            yield f"{kind:32} {count:6}   {_shown(self.recovery_by_kind.get(kind))}"
        yield f"{'all':32} {sum(self.faults.values()):6}   {_shown(self.recovery)}"
        yield f"{'  as callers saw it':32} {'':6}   {_shown(self.recovery_seen)}"
        yield ""
        yield f"{'POSTs':32} {self.posts:6}"
        yield f"{'jobs acknowledged':32} {self.acknowledged:6}"
        yield f"{'jobs of unacknowledged POSTs':32} {self.unacknowledged_created:6}"
        for status, count in sorted(self.ended.items()):
            yield f"{'  ' + status:32} {count:6}"
        yield f"{'attempts':32} {sum(int(n) * count for n, count in self.attempts.items()):6}"
        yield f"{'evaluations':32} {self.evaluations:6}"
        yield f"{'evaluations done again':32} {self.repeated:6}   {self.repeated_percent:.2f} %"
        each = f"{self.repeated_per_interruption:.1f} evaluations, {self.repeated_seconds_per_interruption:.2f} s"
        yield f"{'interruptions of a job':32} {self.interruptions:6}   each {each}"
        yield f"{'drained in':32} {self.drain_seconds:6.1f} s"
        for kind in PROMISES:
            yield f"{kind:32} {self.breaches.get(kind, 0):6}"
        yield from self.sentences[:40]


def summarize(
    options: Any,
    ledger: Ledger,
    breaches: list[Breach],
    injector: Injector,
    work: Work,
    api: Api,
    references: Mapping[str, Reference],
    drained: float,
) -> Report:
    records = ledger.records()
    jobs = [record for record in records if record.job_id is not None]
    breaches = breaches + [Breach("noticed by a caller", sentence) for sentence in ledger.troubles]
    recovered = recoveries(injector.journal, jobs, work)
    attempts = Counter(record.ended.attempt for record in jobs if record.ended)
    interruptions = sum(max(attempt - 1, 0) * count for attempt, count in attempts.items())
    by_kind: dict[str, list[float]] = defaultdict(list)
    for recovery in recovered:
        by_kind[recovery.kind].append(recovery.worked)
    chosen = asdict(options)
    chosen["logs"] = None
    return Report(
        options=chosen,
        machine=f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}",
        faults=dict(Counter(fault.kind for fault in injector.journal)),
        missed=injector.missed,
        posts=len(records),
        acknowledged=sum(record.acknowledged for record in records),
        unacknowledged_created=sum(not record.acknowledged for record in jobs),
        ended=dict(Counter(record.ended.status for record in jobs if record.ended)),
        attempts={str(attempt): count for attempt, count in sorted(attempts.items())},
        breaches=dict(Counter(breach.kind for breach in breaches)),
        sentences=[f"{breach.kind}: {breach.sentence}" for breach in breaches],
        evaluations=work.made,
        repeated=work.repeated,
        repeated_percent=round(work.share, 3),
        interruptions=interruptions,
        repeated_seconds_per_interruption=round(work.again_seconds / interruptions, 3) if interruptions else 0.0,
        repeated_per_interruption=round(work.repeated / interruptions, 2) if interruptions else 0.0,
        recovery=_spread([recovery.worked for recovery in recovered]),
        recovery_seen=_spread([recovery.seen for recovery in recovered]),
        recovery_by_kind={kind: _spread(values) for kind, values in sorted(by_kind.items())},
        drain_seconds=round(drained, 2),
        replies=dict(sorted(api.replies.items())),
        undisturbed_seconds={name: round(reference.seconds, 3) for name, reference in references.items()},
    )


@dataclass(frozen=True, slots=True)
class Recovery:
    """Of one job from one fault, in seconds: until somebody worked at it again, until a caller saw it advance."""

    kind: str
    worked: float
    seen: float


def recoveries(journal: list[Fault], jobs: list[Record], work: Work) -> list[Recovery]:
    """For each fault that hit the work-horse of a job that had not ended."""
    by_id = {record.job_id: record for record in jobs}
    pairs = [(fault, by_id[job]) for fault in journal for job in fault.jobs if job in by_id]
    return [found for fault, record in pairs if (found := _recovery(fault, record, work)) is not None]


def _recovery(fault: Fault, record: Record, work: Work) -> Recovery | None:
    job = record.job_id or ""
    sightings = sorted(record.sightings, key=lambda sighting: sighting.received)
    earlier = [sighting for sighting in sightings if sighting.received <= fault.at]
    if not earlier or earlier[-1].done:
        return None
    best = work.done_before(job, fault.at)
    advanced = (s for s in sightings if s.received > fault.at and (s.done or s.evaluations > best))
    seen = next(advanced, None)
    if seen is None:
        return None
    if fault.kind.startswith("cut"):  # those behind the link go on for a while, in vain
        return Recovery(fault.kind, seen.received - fault.at, seen.received - fault.at)
    # What is killed may live for some milliseconds. Without another evaluation only the end was left to be written.
    dying = fault.jobs[job] if fault.kind.startswith("kill") else None
    worked = work.next_after(job, fault.at, dying) or seen.received
    return Recovery(fault.kind, worked - fault.at, seen.received - fault.at)


def _shown(spread: Mapping[str, float] | None) -> str:
    if not spread:
        return ""
    return f"{spread['count']:14} {spread['median']:8.2f} {spread['p95']:8.2f} {spread['max']:8.2f}"


def _spread(values: list[float]) -> dict[str, float]:
    if not values:
        return {}
    ordered = sorted(values)
    return {
        "count": len(ordered),
        "median": round(statistics.median(ordered), 3),
        "p95": round(ordered[min(int(0.95 * len(ordered)), len(ordered) - 1)], 3),
        "max": round(ordered[-1], 3),
    }
