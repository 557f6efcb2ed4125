"""The index of datasets: their names, their bytes, the live jobs that need them, and what may be removed.

The files are in a storage. They are stored before the dataset is added here, and removed after it is removed here. In
between a removed dataset is listed as doomed, so that its files are not forgotten.
"""

import uuid
from typing import Final

from worker.store import keys
from worker.store.driver import Command, Operation
from worker.store.prelude import PRELUDE
from worker.store.queries import encode_cursor, page
from worker.store.records import DatasetEntry, Removal, Shelving

_DATASETS: Final = (
    PRELUDE
    + """
-- Whether a live job needs the dataset. (A worker of a version before datasets may have ended one without a word.)
local function needed(id)
  for _, job in ipairs(call('SMEMBERS', DATASET .. id .. ':jobs')) do
    local status = call('HGET', JOB .. job, 'status')
    if status and not TERMINAL[status] then return true end
    call('SREM', DATASET .. id .. ':jobs', job)
  end
  return false
end

local function remove(id)
  write_at_any_rate()
  call('DECRBY', DATASETS_BYTES, call('HGET', DATASET .. id, 'bytes'))
  call('DEL', DATASET .. id, DATASET .. id .. ':jobs')
  call('ZREM', DATASETS, id)
  call('ZREM', DATASETS_USED, id)
  call('SADD', DATASETS_DOOMED, id)
end

-- Remove what nobody needs, the one longest unused first, until no more than `most` bytes are left.
local function make_room(most)
  for _, id in ipairs(call('ZRANGE', DATASETS_USED, 0, -1)) do
    if tonumber(call('GET', DATASETS_BYTES) or 0) <= most then return end
    if not needed(id) then remove(id) end
  end
end
"""
)

# id, bytes, summary, quota ('' = none), 1 if others may be removed to make room, nonce
_ADD: Final = (
    _DATASETS
    + """
local id, bytes, quota = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[4])
if call('ZSCORE', DATASETS, id) then
  call('ZADD', DATASETS_USED, text(now), id)
  return call('HGET', DATASET .. id, 'nonce') == ARGV[6] and 'created' or 'exists'
end
if quota then
  if ARGV[5] == '1' and bytes <= quota then make_room(quota - bytes) end
  if tonumber(call('GET', DATASETS_BYTES) or 0) + bytes > quota then return 'full' end
end
call('HSET', DATASET .. id, 'bytes', ARGV[2], 'summary', ARGV[3], 'nonce', ARGV[6], 'checked', text(now))
call('INCRBY', DATASETS_BYTES, ARGV[2])
call('ZADD', DATASETS, string.format('%.0f', now * 1e6), id)
call('ZADD', DATASETS_USED, text(now), id)
call('SREM', DATASETS_DOOMED, id)
return 'created'
"""
)

# id
_REMOVE: Final = (
    _DATASETS
    + """
if not call('ZSCORE', DATASETS, ARGV[1]) then return 'unknown' end
if needed(ARGV[1]) then return 'used' end
remove(ARGV[1])
return 'removed'
"""
)

# retention in seconds ('' = for ever), quota ('' = none)
_SWEEP: Final = (
    _DATASETS
    + """
if ARGV[1] ~= '' then
  for _, id in ipairs(call('ZRANGEBYSCORE', DATASETS_USED, '-inf', text(now - tonumber(ARGV[1])))) do
    if not needed(id) then remove(id) end
  end
end
if ARGV[2] ~= '' then make_room(tonumber(ARGV[2])) end
return call('SMEMBERS', DATASETS_DOOMED)
"""
)

# id, what is damaged ('' = nothing)
_MARK: Final = (
    _DATASETS
    + """
if not call('ZSCORE', DATASETS, ARGV[1]) then return 0 end
if ARGV[2] == '' then call('HDEL', DATASET .. ARGV[1], 'damaged')
else call('HSET', DATASET .. ARGV[1], 'damaged', ARGV[2]) end
return 1
"""
)

# seconds; those of older versions count as never checked
_DUE: Final = (
    _DATASETS
    + """
local longest, oldest = nil, now - tonumber(ARGV[1])
for _, id in ipairs(call('ZRANGE', DATASETS, 0, -1)) do
  local checked = tonumber(call('HGET', DATASET .. id, 'checked') or 0)
  if checked < oldest then longest, oldest = id, checked end
end
if longest then call('HSET', DATASET .. longest, 'checked', text(now)) end
return longest
"""
)


def add_dataset(
    dataset_id: str, stored: int, summary: bytes, *, quota: int | None = None, evict: bool = False
) -> Operation[Shelving]:
    """Add a dataset whose files are in the storage. A dataset that was added before counts as used now.

    `stored`: bytes of its files; `quota`: bytes that all may take; `evict`: remove others, which no live job needs and
    which were not used for the longest time, to make room.
    """
    limit = "" if quota is None else quota
    (reply,) = yield _script(_ADD, dataset_id, stored, summary, limit, int(evict), uuid.uuid4().hex)
    return Shelving(reply.decode())


def remove_dataset(dataset_id: str) -> Operation[Removal]:
    """Remove a dataset, unless a live job needs it. The caller then removes its files and calls `forget_doomed`."""
    (reply,) = yield _script(_REMOVE, dataset_id)
    return Removal(reply.decode())


def sweep_datasets(retention: float | None = None, quota: int | None = None) -> Operation[list[str]]:
    """Remove the datasets that no live job needs and that were not used for `retention` seconds or exceed the quota.

    Returns all datasets whose files are to be removed, also those that other processes have left.
    """
    (reply,) = yield _script(_SWEEP, "" if retention is None else retention, "" if quota is None else quota)
    return [name.decode() for name in reply]


def doomed(dataset_id: str) -> Operation[bool]:
    """Ask whether the files of a dataset are to be removed: it may have been added again."""
    (reply,) = yield (("SISMEMBER", keys.DATASETS_DOOMED, dataset_id),)
    return bool(reply)


def forget_doomed(dataset_id: str) -> Operation[None]:
    """Note that the files of a removed dataset are gone."""
    yield (("SREM", keys.DATASETS_DOOMED, dataset_id),)


def mark_dataset(dataset_id: str, damage: str | None) -> Operation[bool]:
    """Note the damage of a dataset, or that it has none. False if there is no such dataset (any more)."""
    (reply,) = yield _script(_MARK, dataset_id, damage or "")
    return bool(reply)


def due_dataset(period: float) -> Operation[str | None]:
    """The dataset whose files were last checked longest ago, if `period` seconds ago. It counts as checked now."""
    (reply,) = yield _script(_DUE, period)
    return None if reply is None else reply.decode()


def dataset(dataset_id: str) -> Operation[DatasetEntry | None]:
    """Read a dataset; `None` when there is none."""
    (entry,) = yield from _entries([dataset_id])
    return entry


def datasets(*, limit: int = 50, cursor: str | None = None) -> Operation[tuple[list[DatasetEntry], str | None]]:
    """List datasets, newest first, with the cursor of the next page. Raises: `ValueError` for a broken cursor."""
    window = yield from page(keys.DATASETS, limit + 1, cursor)
    shown = window[:limit]
    if not shown:
        return [], None
    entries = yield from _entries([name for name, _ in shown])
    return [entry for entry in entries if entry], encode_cursor(*shown[-1]) if len(window) > limit else None


def stored_bytes() -> Operation[int]:
    """Read how many bytes all datasets take."""
    (reply,) = yield (("GET", keys.DATASETS_BYTES),)
    return int(reply or 0)


def _entries(ids: list[str]) -> Operation[list[DatasetEntry | None]]:
    commands = [
        command
        for name in ids
        for command in (
            ("HMGET", keys.DATASET + name, "summary", "damaged"),
            ("ZSCORE", keys.DATASETS_USED, name),
            ("SCARD", f"{keys.DATASET}{name}:jobs"),
        )
    ]
    replies = yield tuple(commands)
    triples = zip(ids, replies[::3], replies[1::3], replies[2::3], strict=True)
    return [
        None if summary is None or used is None else DatasetEntry(name, summary, float(used), int(jobs), _text(damaged))
        for name, (summary, damaged), used, jobs in triples
    ]


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()


def _script(script: str, *arguments: bytes | str | float) -> tuple[Command]:
    return (("EVAL", script, 0, *arguments),)
