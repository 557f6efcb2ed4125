"""What the callers saw: every reply about every job, in the order in which it came."""

import threading
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.calls import Reply


@dataclass(frozen=True, slots=True)
class Sighting:
    """One reply about a job. `observer` is a sequential caller: its sightings have an order."""

    sent: float
    received: float
    observer: str
    status: str
    done: bool
    attempt: int
    iteration: int
    evaluations: int
    etag: str | None
    stop_reason: str | None


@dataclass(slots=True)
class Record:
    """One POST and the job that it made."""

    label: str
    template: str
    cancelled: bool = False  # somebody asked for its end
    acknowledged: bool = False
    job_id: str | None = None
    sightings: list[Sighting] = field(default_factory=list)
    results: set[tuple[int, str | None, str]] = field(default_factory=set)  # status, ETag, what was in it
    result: dict[str, Any] | None = None
    steps: list[dict[str, Any]] | None = None
    ended: Sighting | None = None  # the first sighting of its end


class Ledger:
    """All records; threads write their own records and this class guards what they share."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: dict[str, Record] = {}
        self.troubles: list[str] = []  # broken promises that a caller noticed on the spot

    def open(self, label: str, template: str) -> Record:
        with self._lock:
            record = self._records[label] = Record(label, template)
        return record

    def see(self, record: Record, observer: str, reply: Reply) -> Sighting:
        job = reply.json
        sighting = Sighting(
            reply.sent,
            reply.received,
            observer,
            job["status"],
            job["done"],
            job["attempt"],
            job["progress"]["iteration"],
            job["progress"]["evaluations"],
            reply.etag,
            job["stop_reason"],
        )
        with self._lock:
            record.sightings.append(sighting)
            if sighting.done and record.ended is None:
                record.ended = sighting
        return sighting

    def saw_result(self, record: Record, reply: Reply, digest: str) -> None:
        with self._lock:
            record.results.add((reply.status, reply.etag, digest))

    def complain(self, sentence: str) -> None:
        with self._lock:
            self.troubles.append(sentence)

    def records(self) -> list[Record]:
        with self._lock:
            return list(self._records.values())

    def find(self, label: str) -> Record | None:
        with self._lock:
            return self._records.get(label)

    def ended(self) -> list[Record]:
        return [record for record in self.records() if record.ended is not None]
