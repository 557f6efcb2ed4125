"""The worker: takes ids out of RQ's queue and runs each in a work-horse that it looks after."""

import gc
import logging
import math
import signal
import time
import uuid
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, ClassVar, Final, Literal

import redis
import rq
from redis.exceptions import RedisError, ResponseError
from rq import worker_registration
from rq.exceptions import DequeueTimeout, StopRequested
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.utils import as_text, import_attribute, now
from rq.worker import WorkerStatus

from worker import store
from worker.queue.delivery import JOB, delivery
from worker.queue.horse import Stable, Turn, WorkHorse
from worker.store import Hold, Watch

log = logging.getLogger(__name__)

Stop = Literal["cancelled", "max_seconds"]
"""Why a horse is stopped for the sake of its job."""

Conclude = Callable[[redis.Redis, str, int, Stop], None]
"""`conclude(client, job_id, attempt, reason)` finishes from its checkpoint a job whose horse was killed."""

Ending = Turn | Stop | Literal["stopped", "fenced", "unclaimed", "lingering"]
"""How a horse's turn at a job came to its end: by itself, or it was stopped. Says nothing about success."""


class TuneWorker(rq.Worker):
    """A worker with a work-horse, a fork of itself that runs one job after the other and is replaced now and then.

    The parent keeps the job's lease while the horse works, ends the horse that overstays (cancelled, out of time,
    fenced) and gives back what a dead horse left. SIGTERM or SIGINT hands the current job over and ends the worker.
    `function` is the only function it runs; without `conclude`, a job whose horse was killed is delivered again.
    `warm_up` is called once here and once in each horse; `memory`: bytes that a job may take, on Linux; `jobs`: the
    number of jobs after which a horse is replaced; `retention`: seconds for which a job that is given up is kept.
    """

    TICK: Final = 0.2
    HEARTBEAT: Final = 2.0
    HEARTBEAT_TTL: Final = 10
    PROMPT: Final = 2.0  # seconds for what is done again soon anyway
    POP_GRACE: Final = 3.0  # seconds by which the answer of a pop may be late
    CANCEL_PATIENCE: Final = 0.6
    # Seconds beyond its time limit that a job may take: while it searches, and, at least, while it concludes.
    LIMIT_GRACE: Final = 1.0
    CONCLUSION_GRACE: Final = 60.0
    PAUSE: Final = 1.0  # seconds before a server that is away is asked again
    # How long a horse may stay where it cannot go on (frozen, most likely), and how that end is called.
    PATIENCE: ClassVar[Mapping[Hold, tuple[float, Ending]]] = {
        Hold.WAITING: (30.0, "unclaimed"),
        Hold.DONE: (5.0, "lingering"),
    }

    def __init__(
        self,
        queues: Any = store.QUEUE,
        *args: Any,
        conclude: Conclude | None = None,
        lease: float = store.LEASE,
        function: str = JOB,
        warm_up: Callable[[], None] = lambda: None,
        memory: int | None = None,
        jobs: int = 200,
        retention: float = store.RETENTION,
        **kwargs: Any,
    ) -> None:
        defaults = {"worker_ttl": 17, "maintenance_interval": 60, "serializer": JSONSerializer}
        super().__init__(queues, *args, **{**defaults, **kwargs})
        self.function = function
        self._conclude = conclude
        self._lease = lease
        self._retention = retention
        self._last_beat = -math.inf
        self._prompt = store.briefly(self.connection, self.PROMPT)
        self._pops = store.briefly(self.connection, self.dequeue_timeout + self.POP_GRACE)
        self._horse: WorkHorse | None = None
        self._stable = Stable(import_attribute(function), self.connection, lease, warm_up, memory, jobs)

    # What RQ's loop does around a job, without needless round trips, and surviving an absent server.

    @property
    def dequeue_timeout(self) -> int:
        """Seconds for which an idle worker waits at a time; it is also the time that it takes to stop."""
        return 1

    def _set_ip_address(self, connection: redis.Redis) -> None:  # noqa: ARG002 - RQ's signature
        """Ask nobody: RQ does so in its constructor, where a server that is away would end the process."""
        self.ip_address = "unknown"

    def bootstrap(self, *_args: Any, **_kwargs: Any) -> None:
        """Register, and warm up, once for all horses."""
        # RQ does it after this, when others can see the worker already.
        self._install_signal_handlers()  # type: ignore[no-untyped-call]
        self._stable.warm_up()
        self.birth_date = now()
        self.heartbeat()  # which registers
        gc.collect()
        gc.freeze()  # a horse's garbage collector would copy every page it touches

    def check_for_suspension(self, burst: bool) -> None:
        """Do nothing: a worker is suspended by stopping it."""

    def run_maintenance_tasks(self) -> None:
        """Forget dead workers. Nothing of ours is in RQ's registries."""
        try:
            for queue in self.queues:
                worker_registration.clean_worker_registry(rq.Queue(queue.name, connection=self._prompt))
        except RedisError as error:
            store.note(self.connection, error)
        self.last_cleaned_at: Any = now()

    def set_state(self, state: str, pipeline: Any = None) -> None:  # noqa: ARG002 - RQ's signature
        """Note the state; the next heartbeat tells it."""
        self._state = state

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:  # noqa: ARG002 - RQ's signature
        """Tell that this worker lives, at most every `HEARTBEAT` seconds."""
        if time.monotonic() - self._last_beat < self.HEARTBEAT:
            return
        self._last_beat = time.monotonic()
        self.last_heartbeat = now()
        try:
            with self._prompt.pipeline() as transaction:
                # Everything each time: the record of a worker that was frozen has expired.
                transaction.hset(self.key, mapping={**self.serialize(), "state": self._state})
                transaction.expire(self.key, self.HEARTBEAT_TTL)
                worker_registration.register(self, transaction)
                transaction.execute()
        except RedisError as error:
            store.note(self.connection, error)

    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[Job, rq.Queue] | None:
        """Wait for a job. Raises: `StopRequested` after a signal."""
        self.set_state(WorkerStatus.IDLE)
        began = time.monotonic()
        while not self._stop_requested:
            self.heartbeat()
            if self.should_run_maintenance_tasks:
                self.run_maintenance_tasks()
            try:
                return self._pop(timeout)
            except DequeueTimeout:
                if max_idle_time is not None and time.monotonic() - began >= max_idle_time:
                    return None
            except RedisError as error:
                store.note(self.connection, error)
                time.sleep(self.PAUSE)
            except Exception:
                log.exception("what was in the queue is no id")
                time.sleep(self.PAUSE)
        raise StopRequested

    def _pop(self, timeout: int | None) -> tuple[Job, rq.Queue] | None:
        """Take an id out of the queue. RQ's record of the job, which anybody could have written, is not read."""
        queue = self.queues[0]
        try:
            popped = self.queue_class.lmove(self._pops, queue.key, timeout)
            name = None if popped is None else as_text(popped[1])
        except ResponseError as error:
            # Jobs that wait fill the memory of the server, which then refuses to let go of them.
            if store.explain(error).sentence != store.FULL or (name := store.run(self._prompt, store.take())) is None:
                raise
        return None if name is None else (Job(name, self.connection, self.serializer), queue)

    def request_stop(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a handler's signature
        """Note the signal: whatever runs now comes to its next look at the flag soon, also if the server is away."""
        self._stop_requested = True
        store.hurry()

    def teardown(self) -> None:
        """End the horse and unregister, if there is a server."""
        self._retire()
        try:
            super().teardown()  # type: ignore[no-untyped-call]
        except RedisError as error:
            store.note(self.connection, error)

    # The job.

    def execute_job(self, job: Job, queue: rq.Queue) -> None:  # noqa: ARG002 - RQ's signature
        """Run a job in the work-horse and see to it that the job does not depend on the horse's end."""
        self.set_state(WorkerStatus.BUSY)
        owner = f"{self.name}:{uuid.uuid4().hex}"
        try:
            before = store.run(self.connection, store.last_attempt(job.id))
            horse = self._ready()
            horse.hand(job.id, owner)
            ending, attempt = self._supervise(horse, job.id, owner, before)
            if ending not in {"done", "tired"}:
                horse.kill()  # it cannot do anything more; its memory may take a while to be freed
                self._settle(job.id, owner, ending, attempt)
            if ending != "done":
                self._retire()
        except RedisError as error:
            store.note(self.connection, error)
            log.warning("job %s is left to the reconciler", job.id)
        self.set_state(WorkerStatus.IDLE)

    def kill_horse(self, sig: signal.Signals = signal.SIGKILL) -> None:
        """Kill the horse, with its children. Does nothing when there is none."""
        if self._horse is not None:
            self._horse.kill(sig)

    def _ready(self) -> WorkHorse:
        """A living horse: the one that there is, or a new one."""
        if self._horse is not None and self._horse.wait(0.0) is not None:
            self._retire()
        if self._horse is None:
            # A horse that had this socket, too, would keep the pop of a dead worker waiting at the server.
            self._pops.connection_pool.disconnect()
            self._horse = WorkHorse(self._stable)
        return self._horse

    def _retire(self) -> None:
        horse, self._horse = self._horse, None
        if horse is not None:
            horse.end()

    def _supervise(self, horse: WorkHorse, job_id: str, owner: str, before: int) -> tuple[Ending, int]:
        """Look after the horse until its turn is over; returns how that came, and the attempt (0: no claim seen)."""
        watch, seen, attempt, pause = None, 0.0, 0, self.TICK
        since: dict[Hold | Stop, float] = {}  # by the monotonic clock of this process: others may step
        while (turn := horse.wait(pause)) is None:
            if self._stop_requested:
                return "stopped", attempt
            self.heartbeat()
            pause = self.TICK
            try:
                elapsed = self._elapsed(watch, since)
                look = store.watch(job_id, owner, attempt_before=before, lease=self._lease, elapsed=elapsed)
                watch = store.run(self._prompt, look)
                seen = time.monotonic()
            except RedisError as error:
                store.note(self.connection, error)
            if watch is None:
                continue
            if watch.hold is Hold.FENCED:
                return "fenced", attempt
            if watch.hold in self.PATIENCE:
                patience, ending = self.PATIENCE[watch.hold]
                if seen > since.setdefault(watch.hold, seen) + patience:
                    return ending, attempt
                continue
            attempt = watch.attempt
            since.setdefault(watch.hold, seen)
            if watch.cancelled:
                since.setdefault("cancelled", seen)
            reason, left = self._left(watch, since, concluding=horse.concluding)
            if left <= 0:
                return reason, attempt
            pause = min(pause, left)
        return turn, attempt

    @staticmethod
    def _elapsed(watch: Watch | None, since: Mapping[Hold | Stop, float]) -> float | None:
        """Seconds of running time over all attempts; None: the job was not seen to be held yet."""
        held = since.get(Hold.HELD)
        return None if watch is None or held is None else watch.before + time.monotonic() - held

    def _left(self, watch: Watch, since: Mapping[Hold | Stop, float], *, concluding: bool) -> tuple[Stop, float]:
        """Why this job will be stopped first, and in how many seconds; `since`: when what was seen first.

        To conclude, with the refit and the certificates, takes a few times as long as an evaluation of J, and at least
        one has ended within the limit.
        """
        grace = max(self.CONCLUSION_GRACE, watch.limit) if concluding else self.LIMIT_GRACE
        limit = watch.limit + grace - (self._elapsed(watch, since) or 0.0)
        cancelled = since.get("cancelled", math.inf)  # since when this attempt could have known
        patience = self.CANCEL_PATIENCE + cancelled - time.monotonic()
        return ("cancelled", patience) if patience <= limit else ("max_seconds", limit)

    def _settle(self, job_id: str, owner: str, ending: Ending, attempt: int) -> None:
        log.warning("the work-horse of job %s (attempt %d) has ended: %s", job_id, attempt, ending)
        if self._conclude is not None and ending in {"cancelled", "max_seconds"}:
            try:
                self._conclude(self.connection, job_id, attempt, ending)
            except Exception:
                log.exception("cannot conclude job %s", job_id)
        again = delivery(job_id, at_front=True, function=self.function)
        given_back = store.release(job_id, owner, again, blameless=ending == "stopped", retention=self._retention)
        if store.run(self.connection, given_back):
            log.warning("job %s (attempt %d) was not finished and is delivered again", job_id, attempt)
