"""The server's memory: the share that ended jobs may take, and the pop from the queue when the memory is full."""

from typing import Final

from worker.store.driver import Operation
from worker.store.prelude import PRELUDE

MOST_KEPT_BYTES: Final = 2**30
"""Bytes that all ended jobs may take."""
SHORTEST_KEPT: Final = 60.0
"""Seconds for which an ended job is kept in any case: its caller is about to read it."""

# most bytes, seconds for which a job is kept at any rate, most jobs
_TRIM: Final = (
    PRELUDE
    + """
-- Members whose jobs are gone: past their retention, the oldest first; removed by an older version, anywhere.
local function sweep(members)
  local gone = 0
  for _, member in ipairs(members) do
    if call('EXISTS', JOB .. string.match(member, '^%S+')) == 0 then
      unlist(member)
      gone = gone + 1
    end
  end
  return gone
end
for _ = 1, 10 do
  if sweep(call('ZRANGE', ENDED, 0, 99)) < 50 then break end
end
sweep(call('ZRANDMEMBER', ENDED, 20))

-- (Not every server lets itself be asked.)
local most, oldest, info = tonumber(ARGV[1]), now - tonumber(ARGV[2]), redis.pcall('INFO', 'memory')
local memory = type(info) == 'string' and tonumber(string.match(info, '%smaxmemory:(%d+)')) or 0
if memory > 0 then most = math.min(most, memory / 2) end
local removed = 0
while removed < tonumber(ARGV[3]) and tonumber(call('GET', ENDED_BYTES) or 0) > most do
  local first = call('ZRANGE', ENDED, 0, 0, 'WITHSCORES')
  if not first[1] or tonumber(first[2]) > oldest then break end
  local id = string.match(first[1], '^%S+')
  unlist(first[1])
  if TERMINAL[call('HGET', JOB .. id, 'status') or ''] then
    remove_job(id)
    removed = removed + 1
  end
end
return removed
"""
)

# A pop that the server does not refuse when its memory is full.
_TAKE: Final = (
    PRELUDE
    + """
write_at_any_rate()
return call('LMOVE', QUEUE, INTERMEDIATE, 'LEFT', 'RIGHT')
"""
)


def trim(most: int = MOST_KEPT_BYTES, *, grace: float = SHORTEST_KEPT, limit: int = 1000) -> Operation[int]:
    """Remove the jobs that ended first while all that ended take more than `most` bytes; returns how many.

    In a server with `maxmemory` they may take half of it at most. A job that ended less than `grace` seconds ago stays.
    """
    (reply,) = yield (("EVAL", _TRIM, 0, most, grace, limit),)
    return int(reply)


def take() -> Operation[str | None]:
    """Pop an id from the queue as RQ does, without waiting. This also works if the server's memory is full."""
    (reply,) = yield (("EVAL", _TAKE, 0),)
    return None if reply is None else reply.decode()
