"""From the store's records to the contract's documents."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson

from worker.contract.abridged import MOST_SHOWN_BYTES, abridge
from worker.contract.job import Progress
from worker.store import JobRecord

NO_PROGRESS = Progress().model_dump()


def job_view(record: JobRecord, *, spec: bytes = b"") -> dict[str, Any]:
    """A job; the stored documents are passed on as they are. `spec`: what is shown instead of the record's."""
    path = f"/v1/jobs/{record.id}"
    progress = orjson.loads(record.progress) if record.progress else NO_PROGRESS | {"elapsed_s": record.elapsed}
    return {
        "id": record.id,
        "status": record.status,
        "done": record.done,
        "attempt": record.attempt,
        "stop_reason": record.stop_reason,
        "progress": {**progress, "queue_position": record.queue_position},
        "spec": orjson.Fragment(spec or record.spec),
        "notes": orjson.Fragment(record.notes) if record.notes else [],
        "labels": record.labels,
        "fingerprint": record.fingerprint,
        "error": orjson.Fragment(record.error) if record.error else None,
        "created_at": _time(record.created_at),
        "started_at": _time(record.started_at),
        "finished_at": _time(record.finished_at),
        "links": {"self": path, "result": f"{path}/result", "steps": f"{path}/steps", "cancel": f"{path}/cancel"},
    }


def job_summary(record: JobRecord) -> dict[str, Any]:
    """A job without its spec."""
    view = job_view(record)
    del view["spec"]
    return view


def shown_spec(description: dict[str, Any], stored: bytes) -> bytes:
    """What users see of a spec instead of what is `stored` of its `description`; empty: the same."""
    shown = orjson.dumps(abridge(description)) if len(stored) > MOST_SHOWN_BYTES else b""
    return shown if shown != stored else b""


def job_etag(record: JobRecord) -> str:
    """Changes with every visible change of the job; weak, because the position in the queue is not part of it."""
    return f'W/"{record.version}"'


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
