"""What is put into RQ's queue, and who puts it there again when it was lost."""

import logging
from typing import Final

import redis
import rq
from redis.exceptions import NoPermissionError, ResponseError
from rq.serializers import JSONSerializer

from worker import store
from worker.store import Command

JOB: Final = "worker.jobs.run_job"
"""The function that a work-horse runs, by its dotted name: who delivers a job need not be able to run it."""
FAILURE_TTL: Final = 3600
"""Seconds; for RQ's own record, should RQ ever fail one."""

log = logging.getLogger(__name__)


class _Recorder(rq.Queue):
    """A queue that makes no round trip of its own."""

    def get_redis_server_version(self) -> tuple[int, int, int]:
        """Return a version that has every command RQ chooses by version."""
        return (7, 0, 0)


_offline: Final = redis.Redis()  # never connected: its pipelines only record
_recorder: Final = _Recorder(store.QUEUE, connection=_offline, serializer=JSONSerializer)


def delivery(job_id: str, *, at_front: bool = False, function: str = JOB) -> tuple[Command, ...]:
    """Record, without any I/O, the commands with which RQ would put a job into the queue."""
    with _offline.pipeline() as pipeline:
        _recorder.enqueue_call(
            function,
            args=(job_id,),
            timeout=-1,  # the store's limits rule
            result_ttl=0,
            failure_ttl=FAILURE_TTL,
            description=job_id,
            job_id=job_id,
            at_front=at_front,
            pipeline=pipeline,
        )
        return tuple(words for words, _ in pipeline.command_stack)


def reconcile(
    client: redis.Redis,
    lease: float = store.LEASE,
    *,
    retention: float = store.RETENTION,
    kept: int = store.MOST_KEPT_BYTES,
    function: str = JOB,
    last: store.Pass | None = None,
) -> int:
    """Deliver again what was lost; returns the number of jobs delivered. To be called every 2 s or so, by anybody.

    Also has the server's append-only file written anew after its disk was full or its clock was set back, and removes
    the oldest of the ended jobs that take more than `kept` bytes. `retention`: seconds for which a job that is given up
    is kept. `last`: the caller's own, by which steps of the server's clock are seen. Raises: `RedisError`.
    """
    last = last or store.Pass()
    _rewrite_log(client, last)
    lost = store.run(client, store.overdue(lease=lease, last=last))
    if last.stepped:
        log.warning("the clock of the job store has stepped by %+.1f s; leases begin again", last.stepped)
        last.set_back = last.set_back or last.stepped < 0
    made = 0
    for job_id in lost:
        again = delivery(job_id, at_front=True, function=function)
        made += store.run(client, store.redeliver(job_id, again, retention=retention))
    if made:
        log.warning("delivered %d lost jobs again", made)
    if removed := store.run(client, store.trim(kept)):
        log.warning(
            "removed the %d ended jobs that were the oldest, before their retention: ended jobs took more than "
            "GRADTUNE_MAX_KEPT_MB, or more than half of the job store's `maxmemory`",
            removed,
        )
    return made


def _rewrite_log(client: redis.Redis, last: store.Pass) -> None:
    try:
        if store.run(client, store.rewrite_log()):
            log.warning("the job store's disk was full; its append-only file is written anew")
        if last.set_back:
            last.set_back = not store.run(client, store.sync_again())
    except NoPermissionError as error:  # whether INFO may be read is said elsewhere
        log.debug("nobody can tell whether the append-only file has to be written anew: %s", error)
    except ResponseError as error:  # most often somebody else's rewrite is in progress: the next pass looks again
        level = logging.DEBUG if "in progress" in str(error) else logging.WARNING
        log.log(level, "the job store's append-only file has to be written anew, and cannot be: %s", error)
