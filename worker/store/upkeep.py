"""Repairs of the server's append-only file after its disk was full or its clock was set back."""

from collections.abc import Mapping
from typing import Any, Final

from worker.store import keys
from worker.store.driver import Operation

REWRITE_PAUSE: Final = 20
"""Seconds before a rewrite that failed is asked for again."""


def rewrite_log() -> Operation[bool]:
    """Have the append-only file rewritten once, if the server has refused writes for a full disk and has room now.

    A file that was in use while the disk was full may be one from which the server cannot start again: Redis 7 and
    Valkey 9 cut off what they had written in part and go on behind the cut, which leaves a hole of zeros. Says whether
    it was asked for. Raises: `ResponseError` where INFO or BGREWRITEAOF is forbidden.
    """
    (info,) = yield (("INFO",),)
    refused = info.get("errorstat_MISCONF", {}).get("count", 0)
    failed = info.get("aof_last_bgrewrite_status") == "err"
    if not (refused or failed) or not _has_room(info):
        return False
    mark = f"{info['run_id']} {refused}".encode()
    known, asked = yield (("GET", keys.REWRITTEN), ("EXISTS", keys.REWRITE_ASKED))
    if known == mark and not (failed and not asked):
        return False
    # The rewrite is asked for before that is noted: two rewrites do no harm.
    yield (("BGREWRITEAOF",),)
    yield (("SET", keys.REWRITTEN, mark), ("SET", keys.REWRITE_ASKED, 1, "EX", REWRITE_PAUSE))
    return True


def sync_again() -> Operation[bool]:
    """Have the append-only file opened again, if there is one, after the server's clock was set back.

    With `appendfsync everysec` the server notes when it has synced that file, and does so again when its clock is a
    second later: after a step back by an hour, in an hour (seen with Valkey 9.1). A file that it opens is synced each
    second again. Says whether that is done; otherwise ask again. Raises: `ResponseError` where INFO or BGREWRITEAOF is
    forbidden.
    """
    info, asked = yield (("INFO",), ("EXISTS", keys.REWRITE_ASKED))
    if asked or not info.get("aof_enabled"):
        return True
    if info.get("aof_rewrite_in_progress") or info.get("aof_rewrite_scheduled"):
        return False  # its file may have been opened before the step
    yield (("BGREWRITEAOF",),)
    yield (("SET", keys.REWRITE_ASKED, 1, "EX", REWRITE_PAUSE),)
    return True


def _has_room(info: Mapping[str, Any]) -> bool:
    """Whether there is room again and a rewrite can begin now."""
    return (
        bool(info.get("aof_enabled"))
        and info.get("aof_last_write_status") == "ok"
        and not info.get("aof_rewrite_in_progress")
        and not info.get("aof_rewrite_scheduled")
        and not info.get("loading")
    )
