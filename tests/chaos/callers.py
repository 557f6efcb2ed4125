"""The callers: threads that submit jobs, follow them to their end, cancel some, and read ended ones again and again."""

import random
import threading
import time
from dataclasses import dataclass, field

from tests.chaos.calls import Api, Unreachable
from tests.chaos.ledger import Ledger, Record
from tests.chaos.outcomes import digest
from tests.chaos.specs import Template, draw

TRIES = 200  # POSTs for one job
CANCELLED = 0.1  # share of the jobs
LONG_POLL = 5


@dataclass(slots=True)
class Crowd:
    """`callers` submit one job after the other, together at most `jobs`; `readers` reread what has ended."""

    api: Api
    ledger: Ledger
    templates: list[Template]
    seed: int
    jobs: int
    callers: int
    readers: int
    until: float  # on the monotonic clock: whoever still waits then gives up
    closing: threading.Event = field(default_factory=threading.Event)
    leaving: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _rereading: list[threading.Thread] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _taken: int = 0

    def start(self) -> None:
        for number in range(self.callers):
            self._threads.append(threading.Thread(target=self._guard, args=(self._call, number), daemon=True))
        for number in range(self.readers):
            self._rereading.append(threading.Thread(target=self._guard, args=(self._reread, number), daemon=True))
        for thread in self._threads + self._rereading:
            thread.start()

    @property
    def busy(self) -> bool:
        """Whether any caller still has a job to follow or to submit."""
        return any(thread.is_alive() for thread in self._threads)

    def leave(self) -> None:
        """End the readers, and the callers too if they have not ended."""
        self.closing.set()
        self.leaving.set()
        self.api.closed.set()
        for thread in self._threads + self._rereading:
            thread.join(timeout=20.0)

    def _guard(self, life: object, number: int) -> None:
        try:
            life(number)  # type: ignore[operator]
        except Unreachable as error:
            if not self.api.closed.is_set():
                self.ledger.complain(f"no reply until the end of the run: {error}")
        except Exception as error:  # noqa: BLE001 - a bug here must not look like a quiet success
            self.ledger.complain(f"a caller of the harness failed: {error!r}")

    def _more(self) -> bool:
        with self._lock:
            if self.closing.is_set() or self._taken >= self.jobs:
                return False
            self._taken += 1
            return True

    def _call(self, number: int) -> None:
        chance = random.Random(f"{self.seed}/{number}")
        turn = 0
        while self._more():
            turn += 1
            template = draw(chance, self.templates)
            patience = chance.uniform(0.0, 2.0) if chance.random() < CANCELLED else None
            record = self._submit(f"{self.seed}-{number}-{turn}", template, number + turn)
            if record is not None:
                self._follow(record, number, patience)
                collect(self.api, self.ledger, record, number, self.until)

    def _submit(self, name: str, template: Template, which: int) -> Record | None:
        """POST until one is acknowledged. Each has its own label: what became of the others is found at the end."""
        for attempt in range(TRIES):
            record = self.ledger.open(f"{name}-{attempt}", template.name)
            try:
                reply = self.api.once(which + attempt, "POST", "/v1/jobs", template.body(record.label))
            except Unreachable:
                reply = None
            if reply is not None and reply.status in {201, 202}:
                record.job_id = reply.json["id"]
                record.acknowledged = True
                self.ledger.see(record, "post", reply)
                return record
            if reply is not None and reply.status < 500 and reply.status != 429:
                self.ledger.complain(f"a good job spec got {reply.status}: {reply.body[:300]!r}")
                return None
            if self.closing.is_set() or self.api.closed.is_set():
                return None
            time.sleep(min(0.1 * (attempt + 1), 1.0))
        self.ledger.complain(f"{TRIES} POSTs of one job, and none was accepted")
        return None

    def _follow(self, record: Record, number: int, patience: float | None) -> None:
        """Read the job until it is done: even callers wait for changes, odd ones poll."""
        path, etag, which = f"/v1/jobs/{record.job_id}", None, number
        cancel_at = None if patience is None else time.monotonic() + patience
        while not self.leaving.is_set():
            if cancel_at is not None and time.monotonic() > cancel_at:
                cancel_at = None if self._cancel(record, which) else time.monotonic() + 0.2
            waits = number % 2 == 0 and cancel_at is None
            headers = {"If-None-Match": etag} if etag and waits else {}
            reply = self.api.read(which, path, self.until, headers, LONG_POLL if waits else 0)
            which += 1
            if reply.status == 200:
                etag = reply.etag
                if self.ledger.see(record, f"caller {number}", reply).done:
                    return
            elif reply.status != 304:
                self.ledger.complain(f"job {record.job_id} was acknowledged, and reading it gets {reply.status}")
                return
            if time.monotonic() > self.until:
                return
            if not waits:
                time.sleep(0.1)

    def _cancel(self, record: Record, which: int) -> bool:
        record.cancelled = True  # whatever becomes of this request
        try:
            reply = self.api.once(which, "POST", f"/v1/jobs/{record.job_id}/cancel")
        except Unreachable:
            return False
        if reply.status in {200, 202}:
            self.ledger.see(record, "cancel", reply)
            return True
        if reply.status < 500:
            self.ledger.complain(f"cancelling job {record.job_id} gets {reply.status}")
        return reply.status < 500

    def _reread(self, number: int) -> None:
        chance = random.Random(f"{self.seed}/reader/{number}")
        while not self.leaving.wait(0.2):
            ended = self.ledger.ended()
            if ended:
                record = chance.choice(ended)
                reread(self.api, self.ledger, record, f"reader {number}", chance.randrange(8), self.until)


def reread(api: Api, ledger: Ledger, record: Record, observer: str, which: int, until: float) -> None:
    """Read an ended job and its result once more."""
    reply = api.read(which, f"/v1/jobs/{record.job_id}", until)
    if reply.status != 200:
        ledger.complain(f"job {record.job_id} had ended, and reading it gets {reply.status}")
        return
    ledger.see(record, observer, reply)
    result = api.read(which, f"/v1/jobs/{record.job_id}/result", until)
    ledger.saw_result(record, result, digest(result.body) if result.status == 200 else "")


def collect(api: Api, ledger: Ledger, record: Record, which: int, until: float) -> None:
    """Fetch result and trajectory of a job that has ended."""
    if record.ended is None:
        return
    result = api.read(which, f"/v1/jobs/{record.job_id}/result", until)
    ledger.saw_result(record, result, digest(result.body) if result.status == 200 else "")
    if result.status == 200:
        record.result = result.json
    steps = api.read(which, f"/v1/jobs/{record.job_id}/steps?limit=10000", until)
    if steps.status == 200:
        record.steps = steps.json["data"]
