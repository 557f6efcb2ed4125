"""Reading jobs: one, a page, the parts that have keys of their own; and the probes."""

import base64
import json
import re
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, Final

from worker.store import keys, scripts
from worker.store.driver import Command, Operation
from worker.store.lifecycle import Status
from worker.store.records import Health, JobRecord

FIELDS: Final = (
    *("status", "spec", "labels", "fingerprint", "attempt", "version", "progress", "stop_reason", "error", "seconds"),
    *("elapsed", "created_at", "started_at", "finished_at", "cancelled_at", "request_id", "traceparent"),
)
SCAN: Final = 500
"""Most jobs looked at for one page."""
DEPTH: Final = 10_000
"""Where the search for a job's position in the queue ends: it takes time in proportion."""


def job(job_id: str) -> Operation[JobRecord | None]:
    """Read a job; `None` when there is none (any more). Only the first `DEPTH` of the queue have a `queue_position`."""
    (reply,) = yield (_read(job_id),)
    if reply[0] is None:
        return None
    position = None
    if reply[0] == b"queued":
        (position,) = yield (("LPOS", keys.QUEUE_LIST, job_id, "MAXLEN", DEPTH),)
    return _record(job_id, reply, position)


def several(job_ids: Sequence[str]) -> Operation[dict[str, JobRecord | None]]:
    """As `job`, for several at once."""
    replies = yield tuple(_read(job_id) for job_id in job_ids)
    waiting = [job_id for job_id, reply in zip(job_ids, replies, strict=True) if reply[0] == b"queued"]
    positions = {}
    if waiting:
        places = yield tuple(("LPOS", keys.QUEUE_LIST, job_id, "MAXLEN", DEPTH) for job_id in waiting)
        positions = dict(zip(waiting, places, strict=True))
    return {
        job_id: None if reply[0] is None else _record(job_id, reply, positions.get(job_id))
        for job_id, reply in zip(job_ids, replies, strict=True)
    }


def jobs(
    *,
    limit: int = 50,
    cursor: str | None = None,
    status: Status | None = None,
    labels: Mapping[str, str] | None = None,
) -> Operation[tuple[list[JobRecord], str | None]]:
    """List jobs, newest first, with the cursor of the next page (`None`: this was the last).

    At most `SCAN` jobs are looked at, so that with a filter a page can be short, even empty, although more follow.
    Jobs created meanwhile come before the first page and move nothing. Raises: `ValueError` for a broken cursor.
    """
    wanted = labels or {}
    filtered = status is not None or bool(wanted)
    count = max(limit, SCAN) if filtered else limit
    window = yield from page(keys.JOBS, count, cursor)
    if not window:
        return [], None
    names = [name for name, _ in window]
    replies = yield tuple(("HMGET", keys.JOB + name, "status", "labels") for name in names)
    gone = [name for name, head in zip(names, replies, strict=True) if head[0] is None]
    if gone:
        yield (("EVAL", scripts.FORGET, 0, *gone),)
    matching = (n for n, head in enumerate(replies) if head[0] is not None and _matches(head, status, wanted))
    chosen = list(islice(matching, limit))
    last = chosen[-1] if len(chosen) == limit else len(window) - 1
    more = len(window) == count or last < len(window) - 1
    records = []
    if chosen:
        replies = yield tuple(_read(names[n]) for n in chosen)
        pairs = zip(chosen, replies, strict=True)
        records = [_record(names[n], reply) for n, reply in pairs if reply[0] is not None]
    return records, encode_cursor(*window[last]) if more else None


def result(job_id: str) -> Operation[bytes | None]:
    """Read the result document (JSON)."""
    (reply,) = yield (("GET", f"{keys.JOB}{job_id}:result"),)
    return None if reply is None else bytes(reply)


def steps(job_id: str, after: int = 0) -> Operation[list[bytes]]:
    """Read the stored steps (JSON each) but the first `after`."""
    (reply,) = yield (("LRANGE", f"{keys.JOB}{job_id}:steps", after, -1),)
    return [bytes(step) for step in reply]


def ping() -> Operation[bool]:
    """Ask whether the server answers."""
    (reply,) = yield (("PING",),)
    return bool(reply)


def server_info() -> Operation[dict[str, Any]]:
    """Read what the server says about itself. Raises: `ResponseError` where that is forbidden."""
    (reply,) = yield (("INFO",),)
    return dict(reply)


def snapshots() -> Operation[str]:
    """Read when the server saves snapshots; empty: never. Raises: `ResponseError` where that is forbidden."""
    (reply,) = yield (("CONFIG GET", "save"),)
    return str(reply.get("save", ""))


def health() -> Operation[Health]:
    """Count live workers, waiting ids and jobs that have not ended."""
    (reply,) = yield (("EVAL", scripts.HEALTH, 0),)
    return Health(*(int(number) for number in reply))


def trial() -> Operation[None]:
    """Ask for what jobs need, with commands that change nothing. Raises: `ResponseError` for a right that is missing.

    A server that takes no writes refuses them, too.
    """
    trial = keys.QUEUE_LIST + ":trial"
    yield (("EVAL", scripts.TRIAL, 0), ("BLMOVE", trial, trial, "RIGHT", "LEFT", 1))


def page(key: str, count: int, cursor: str | None) -> Operation[list[tuple[str, int]]]:
    """Read up to `count` members with their creation times (microseconds), newest first, that come after the cursor."""
    if cursor is None:
        newest, after = "+inf", None
    else:
        created, after = _decode(cursor)
        newest = str(created)
    # Ties of a microsecond are ordered by id, descending: read a few more and drop those at or before the cursor.
    spare = 0 if after is None else 8
    while True:
        words = (key, newest, "-inf", "WITHSCORES", "LIMIT", 0, count + spare)
        (reply,) = yield (("EVAL", "return redis.call('ZREVRANGEBYSCORE', unpack(ARGV))", 0, *words),)
        members = [(name.decode(), int(score)) for name, score in zip(reply[::2], reply[1::2], strict=True)]
        rest = [m for m in members if after is None or (m[1], m[0]) < (int(newest), after)]
        if len(rest) >= count or len(members) < count + spare:
            return rest[:count]
        spare *= 2


def _read(job_id: str) -> Command:
    return ("HMGET", keys.JOB + job_id, *FIELDS)


def _matches(head: Sequence[bytes], status: Status | None, labels: Mapping[str, str]) -> bool:
    if status is not None and head[0].decode() != status:
        return False
    return bool(labels.items() <= json.loads(head[1]).items())


def encode_cursor(name: str, created: int) -> str:
    """Make the cursor of the page after this member."""
    return base64.urlsafe_b64encode(f"{created}:{name}".encode()).decode().rstrip("=")


def _decode(cursor: str) -> tuple[int, str]:
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except ValueError:
        text = ""
    parts = re.fullmatch(r"([0-9]{1,16}):(.+)", text)
    if parts is None:
        raise ValueError("this cursor is not one of ours")
    return int(parts[1]), parts[2]


def _record(job_id: str, reply: Sequence[Any], position: int | None = None) -> JobRecord:
    values = dict(zip(FIELDS, reply, strict=True))

    def seconds(name: str) -> float | None:
        return None if values[name] is None else float(values[name])

    return JobRecord(
        id=job_id,
        status=Status(values["status"].decode()),
        spec=values["spec"],
        labels=json.loads(values["labels"]),
        fingerprint=values["fingerprint"].decode(),
        attempt=int(values["attempt"]),
        version=int(values["version"]),
        progress=values["progress"],
        stop_reason=None if values["stop_reason"] is None else values["stop_reason"].decode(),
        error=values["error"],
        seconds=float(values["seconds"]),
        elapsed=seconds("elapsed") or 0.0,
        created_at=float(values["created_at"]),
        started_at=seconds("started_at"),
        finished_at=seconds("finished_at"),
        cancelled_at=seconds("cancelled_at"),
        request_id=values["request_id"].decode(),
        traceparent=values["traceparent"].decode(),
        queue_position=position,
    )
