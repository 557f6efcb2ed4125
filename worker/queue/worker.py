"""The worker: takes ids out of RQ's queue and runs each in a work-horse that it looks after."""

import gc
import logging
import math
import os
import random
import signal
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, Final, Literal

import redis
import rq
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from rq import worker_registration
from rq.exceptions import DequeueTimeout, StopRequested
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.utils import import_attribute, now
from rq.worker import WorkerStatus

from worker import store
from worker.embedded import die_with_parent
from worker.queue.delivery import JOB, delivery
from worker.queue.horse import Child, Horse, enter
from worker.store import Hold

log = logging.getLogger(__name__)

Conclude = Callable[[redis.Redis, str, int, Literal["cancelled", "max_seconds"]], None]
"""`conclude(client, job_id, attempt, reason)` finishes from its checkpoint a job whose horse was killed."""

Ending = Literal["itself", "stopped", "fenced", "lingering", "cancelled", "max_seconds"]
"""How a work-horse came to its end; `itself` says nothing about success."""


class TuneWorker(rq.Worker):
    """A worker with one work-horse, a fork of itself, for each job.

    The parent keeps the job's lease while the horse lives, ends the horse that overstays (cancelled, out of time,
    fenced) and gives back what a dead horse left. SIGTERM or SIGINT hands the current job over and ends the worker.
    `function` is the only function it runs; without `conclude`, a job whose horse was killed is delivered again.
    """

    TICK: Final = 0.2
    HEARTBEAT: Final = 2.0
    HEARTBEAT_TTL: Final = 10
    CANCEL_PATIENCE: Final = 0.7
    LIMIT_GRACE: Final = 1.0
    LINGER: Final = 5.0

    def __init__(
        self,
        queues: Any = store.QUEUE,
        *args: Any,
        conclude: Conclude | None = None,
        lease: float = store.LEASE,
        function: str = JOB,
        **kwargs: Any,
    ) -> None:
        defaults = {"worker_ttl": 17, "maintenance_interval": 60, "serializer": JSONSerializer}
        super().__init__(queues, *args, **{**defaults, **kwargs})
        self.function = function
        self._conclude = conclude
        self._lease = lease
        self._last_beat = -math.inf
        self._prompt = _impatient(self.connection)

    # What RQ's loop does around a job, without needless round trips, and surviving an absent server.

    @property
    def dequeue_timeout(self) -> int:
        """Seconds for which an idle worker waits at a time; it is also the time that it takes to stop."""
        return 1

    def bootstrap(self, *_args: Any, **_kwargs: Any) -> None:
        """Register, and load the job's code once, for all horses."""
        # RQ does it after this, when others can see the worker already.
        self._install_signal_handlers()  # type: ignore[no-untyped-call]
        import_attribute(self.function)
        self.register_birth()  # type: ignore[no-untyped-call]
        self.heartbeat()
        gc.collect()
        gc.freeze()  # a horse's garbage collector would copy every page it touches

    def check_for_suspension(self, burst: bool) -> None:
        """Do nothing: a worker is suspended by stopping it."""

    def run_maintenance_tasks(self) -> None:
        """Forget dead workers. Nothing of ours is in RQ's registries."""
        try:
            for queue in self.queues:
                worker_registration.clean_worker_registry(queue)
        except RedisError:
            log.warning("cannot clean the registry of workers", exc_info=True)
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
        except RedisError:
            log.warning("no heartbeat", exc_info=True)

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
                return self.queue_class.dequeue_any(
                    self._ordered_queues,
                    timeout,
                    connection=self.connection,
                    job_class=self.job_class,
                    serializer=self.serializer,
                    death_penalty_class=self.death_penalty_class,
                )
            except DequeueTimeout:
                if max_idle_time is not None and time.monotonic() - began >= max_idle_time:
                    return None
            except Exception:
                # The server is away for longer than the client is patient, or RQ's record of a job is broken.
                log.exception("cannot take a job out of the queue")
                time.sleep(1.0)
        raise StopRequested

    def request_stop(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a handler's signature
        """Note the signal: whatever runs now comes to its next look at the flag within a second."""
        self._stop_requested = True

    def teardown(self) -> None:
        """Unregister, if there is a server."""
        try:
            super().teardown()  # type: ignore[no-untyped-call]
        except RedisError:
            log.warning("cannot unregister", exc_info=True)

    # The job.

    def execute_job(self, job: Job, queue: rq.Queue) -> None:
        """Run a job in a new horse and see to it that the job does not depend on the horse's end."""
        self.set_state(WorkerStatus.BUSY)
        self._owner = f"{self.name}:{uuid.uuid4().hex}"
        try:
            before = store.run(self.connection, store.last_attempt(job.id))
            self.fork_work_horse(job, queue)
            try:
                ending, attempt = self._supervise(job.id, before)
            finally:
                self._reap()
            self._settle(job.id, ending, attempt)
        except RedisError:
            log.exception("job %s is left to the reconciler", job.id)
        self.set_state(WorkerStatus.IDLE)

    def fork_work_horse(self, job: Job, queue: rq.Queue) -> None:
        """Fork the horse, in a process group of its own."""
        arrange = die_with_parent(os.getpid(), signal.SIGKILL)
        pid = os.fork()
        if pid == 0:
            os.setpgrp()
            if arrange is not None:
                arrange()
            self.main_work_horse(job, queue)
        with suppress(OSError):  # the child may have done it, and may be gone
            os.setpgid(pid, pid)
        self._horse_pid = pid

    def main_work_horse(self, job: Job, queue: rq.Queue) -> None:  # noqa: ARG002 - RQ's signature
        """Be the horse: run the job function and exit. Never returns."""
        code = 1
        try:
            self.setup_work_horse_signals()  # type: ignore[no-untyped-call]
            self._is_horse = True
            random.seed()
            self._check(job)
            enter(Horse(self.connection, job.id, self._owner, self._lease))
            job.perform()
            code = 0
        except BaseException:
            log.exception("the work-horse of job %s ends with an error", job.id)
        finally:
            os._exit(code)

    def _check(self, job: Job) -> None:
        # Whoever can write to the server could otherwise have any importable function called.
        if job.func_name != self.function:
            raise ValueError(f"job {job.id} names the function {job.func_name!r}, not {self.function!r}")

    def kill_horse(self, sig: signal.Signals = signal.SIGKILL) -> None:
        """Kill the horse, with its children. Does nothing when there is none."""
        if self._horse_pid <= 0 or self._is_horse:
            return
        try:
            os.killpg(self._horse_pid, sig)
        except (ProcessLookupError, PermissionError):  # no group yet, or (macOS) the horse is a zombie
            with suppress(ProcessLookupError, PermissionError):
                os.kill(self._horse_pid, sig)

    def _supervise(self, job_id: str, before: int) -> tuple[Ending, int]:
        """Look after the horse until its end is near; returns how it comes to it, and the attempt (0: no claim)."""
        watch, seen, attempt, done = None, 0.0, 0, math.inf
        with Child(self._horse_pid) as child:
            while not child.wait(self.TICK):
                if self._stop_requested:
                    return "stopped", attempt
                self.heartbeat()
                try:
                    watch = store.run(
                        self._prompt, store.watch(job_id, self._owner, attempt_before=before, lease=self._lease)
                    )
                    seen = time.monotonic()
                except RedisError:
                    log.warning("cannot look after job %s", job_id, exc_info=True)
                if watch is None or watch.hold is Hold.WAITING:
                    continue
                if watch.hold is Hold.FENCED:
                    return "fenced", attempt
                if watch.hold is Hold.DONE:
                    done = min(done, time.monotonic())
                    if time.monotonic() > done + self.LINGER:
                        return "lingering", attempt
                    continue
                attempt = watch.attempt
                late = time.monotonic() - seen  # the limits hold without the server, too
                if watch.cancel_age is not None and watch.cancel_age + late > self.CANCEL_PATIENCE:
                    return "cancelled", attempt
                if watch.elapsed + late > watch.limit + self.LIMIT_GRACE:
                    return "max_seconds", attempt
        return "itself", attempt

    def _reap(self) -> None:
        self.kill_horse()
        with suppress(ChildProcessError):
            os.waitpid(self._horse_pid, 0)
        self._horse_pid = 0

    def _settle(self, job_id: str, ending: Ending, attempt: int) -> None:
        if ending != "itself":
            log.warning("the work-horse of job %s (attempt %d) was ended: %s", job_id, attempt, ending)
        if self._conclude is not None and ending in {"cancelled", "max_seconds"}:
            try:
                self._conclude(self.connection, job_id, attempt, ending)
            except Exception:
                log.exception("cannot conclude job %s", job_id)
        again = delivery(job_id, at_front=True, function=self.function)
        release = store.release(job_id, self._owner, again, blameless=ending == "stopped")
        if store.run(self.connection, release):
            log.warning("job %s (attempt %d) was not finished and is delivered again", job_id, attempt)


def _impatient(client: redis.Redis) -> redis.Redis:
    """Make a client of the same server that does not wait for it: for what is done again soon anyway."""
    pool = client.connection_pool
    options = {**pool.connection_kwargs, "retry": Retry(NoBackoff(), 1), "socket_timeout": 2.0}
    return redis.Redis(connection_pool=redis.ConnectionPool(connection_class=pool.connection_class, **options))
