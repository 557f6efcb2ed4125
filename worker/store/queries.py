"""Operations that read: a job, a page of jobs, what has a key of its own, and the state of the server."""

import base64
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from worker.store import keys, scripts
from worker.store.driver import Command, Operation
from worker.store.lifecycle import Status
from worker.store.records import Health, JobRecord

FIELDS: Final = (
    *("status", "spec", "labels", "fingerprint", "attempt", "version", "progress", "stop_reason", "error", "seconds"),
    *("elapsed", "created_at", "started_at", "finished_at", "cancelled_at", "request_id", "traceparent"),
    "notes",
)
SUMMARY: Final = tuple(name for name in FIELDS if name != "spec")
LAST_POSITION: Final = 10_000
"""The last position of the queue that is searched for a job: the time of the search grows with it."""

# Key. Users see `shown` if it is stored, else the spec. (The fields are part of the text: each argument would cost the
# client more time than the server needs for all of them.)
_READ: Final = f"""
local job = redis.call('HMGET', ARGV[1], 'status', 'shown', {", ".join(f"'{name}'" for name in FIELDS[2:])})
if not job[2] then job[2] = redis.call('HGET', ARGV[1], 'spec') end
return job
"""


def job(job_id: str) -> Operation[JobRecord | None]:
    """Read a job; `None` if there is none (any more). `queue_position` is None beyond `LAST_POSITION`."""
    (reply,) = yield (_read(job_id),)
    if reply[0] is None:
        return None
    position = None
    if reply[0] == b"queued":
        (position,) = yield (("LPOS", keys.QUEUE_LIST, job_id, "MAXLEN", LAST_POSITION),)
    return _record(job_id, reply, position)


def several(job_ids: Sequence[str]) -> Operation[dict[str, JobRecord | None]]:
    """Read several jobs at once, as `job` does."""
    replies = yield tuple(_read(job_id) for job_id in job_ids)
    waiting = [job_id for job_id, reply in zip(job_ids, replies, strict=True) if reply[0] == b"queued"]
    positions = {}
    if waiting:
        places = yield tuple(("LPOS", keys.QUEUE_LIST, job_id, "MAXLEN", LAST_POSITION) for job_id in waiting)
        positions = dict(zip(waiting, places, strict=True))
    return {
        job_id: None if reply[0] is None else _record(job_id, reply, positions.get(job_id))
        for job_id, reply in zip(job_ids, replies, strict=True)
    }


def stored_spec(job_id: str) -> Operation[bytes | None]:
    """Read the description of a job (JSON) as workers read it, with its long lists."""
    (reply,) = yield (("HGET", keys.JOB + job_id, "spec"),)
    return None if reply is None else bytes(reply)


def stored_names(job_id: str) -> Operation[bytes | None]:
    """Read the names of the hyperparameters as they were submitted; `None` if they were not."""
    (reply,) = yield (("HGET", keys.JOB + job_id, "names"),)
    return None if reply is None else bytes(reply)


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
    """Read INFO of the server. Raises: `ResponseError` if that is forbidden."""
    (reply,) = yield (("INFO",),)
    return dict(reply)


def snapshots() -> Operation[str]:
    """Read when the server saves snapshots; empty: never. Raises: `ResponseError` if that is forbidden."""
    (reply,) = yield (("CONFIG GET", "save"),)
    return str(reply.get("save", ""))


def health() -> Operation[Health]:
    """Count live workers, waiting ids and jobs that have not ended."""
    (reply,) = yield (("EVAL", scripts.HEALTH, 0),)
    return Health(*(int(number) for number in reply))


def trial() -> Operation[None]:
    """Try all rights that jobs need, with commands that change nothing. Raises: `ResponseError` for a missing right.

    A server that takes no writes refuses them, too.
    """
    trial = keys.QUEUE_LIST + ":trial"
    yield (("EVAL", scripts.TRIAL, 0), ("BLMOVE", trial, trial, "RIGHT", "LEFT", 1))


def page(
    key: str, count: int, cursor: str | None, since: int | None = None, before: int | None = None
) -> Operation[list[tuple[str, int]]]:
    """Read up to `count` members with their creation times (microseconds), newest first, that come after the cursor.

    `since`, `before`: only those created then or later, and before then.
    """
    place = None if cursor is None else _decode(cursor)
    limits = [limit for limit in (place and place[0], None if before is None else before - 1) if limit is not None]
    newest = min(limits, default="+inf")
    oldest = "-inf" if since is None else since
    # Ties of a microsecond are ordered by id, descending: read a few more and drop those at or before the cursor.
    spare = 0 if place is None else 8
    while True:
        words = (key, newest, oldest, "WITHSCORES", "LIMIT", 0, count + spare)
        (reply,) = yield (("EVAL", "return redis.call('ZREVRANGEBYSCORE', unpack(ARGV))", 0, *words),)
        members = [(name.decode(), int(score)) for name, score in zip(reply[::2], reply[1::2], strict=True)]
        rest = [m for m in members if place is None or (m[1], m[0]) < place]
        if len(rest) >= count or len(members) < count + spare:
            return rest[:count]
        spare *= 2


def _read(job_id: str) -> Command:
    return ("EVAL", _READ, 0, keys.JOB + job_id)


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
    return record_of(job_id, dict(zip(FIELDS, reply, strict=True)), position)


def record_of(job_id: str, values: Mapping[str, Any], position: int | None = None) -> JobRecord:
    """Make a record of the fields of a job. Its spec is empty if it was not read."""

    def seconds(name: str) -> float | None:
        return None if values[name] is None else float(values[name])

    return JobRecord(
        id=job_id,
        status=Status(values["status"].decode()),
        spec=values.get("spec", b""),
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
        notes=values.get("notes"),
    )
