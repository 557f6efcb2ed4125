"""Reading many records at once within a bound of bytes: a page of the list of jobs, a part of a trajectory.

Jobs and steps can be large, and only the server knows how large. So a script in the server stops at the bound.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from worker.store import keys, scripts
from worker.store.driver import Operation
from worker.store.lifecycle import Status
from worker.store.queries import FIELDS, SUMMARY, encode_cursor, page, record_of
from worker.store.records import JobRecord

PAGE_BYTES: Final = 2**20
"""Bytes of one page. A single record always fits."""
MOST_SCANNED_JOBS: Final = 500
"""Jobs that are read for one page, at most."""
MOST_SCANNED_PAGES: Final = 64
"""Bytes, in pages, that the server reads for one page of steps without their hyperparameters, at most."""

# prefix of the keys, status ('' = any), most jobs, most bytes, number of fields, these, number of labels, these as they
# stand in the stored JSON, ids
_JOBS: Final = """
local status, most, room = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local last = 5 + tonumber(ARGV[5])
local before = last + 1 + tonumber(ARGV[last + 1])
local found, gone, looked = {}, {}, 0
for i = before + 1, #ARGV do
  local key = ARGV[1] .. ARGV[i]
  local head = redis.call('HMGET', key, 'status', 'labels')
  local fits = head[1] and (status == '' or head[1] == status)
  for n = last + 2, before do fits = fits and string.find(head[2], ARGV[n], 1, true) end
  if not head[1] then gone[#gone + 1] = ARGV[i] end
  if fits then
    local job = redis.call('HMGET', key, unpack(ARGV, 6, last))
    room = room - 600  -- names of fields, links
    for _, value in ipairs(job) do room = room - (value and #value or 0) end
    if room < 0 and #found > 0 then break end
    found[#found + 1] = {ARGV[i], job}
  end
  looked = looked + 1
  if #found == most then break end
end
return {looked, gone, found}
"""

# key, steps to leave out, most steps, most bytes, 1 if these are to be spread over all that follow, 1 to leave out the
# hyperparameters (which a step ends with), bytes to look at
_STEPS: Final = """
local key, after, most, room = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local bare, effort = ARGV[6] == '1', tonumber(ARGV[7])
local total = redis.call('LLEN', key)
local left, taken = math.max(total - after, 0), {}

local function read(i)
  local step = redis.call('LINDEX', key, i)
  effort = effort - #step
  local at = bare and string.find(step, ',"hyperparameters":[', 1, true)
  if at and string.find(step, ']', at, true) == #step - 1 then return string.sub(step, 1, at - 1) .. '}' end
  return step
end

if ARGV[5] == '1' and left > 2 then
  local before = effort
  local longest = math.max(#read(after), #read(total - 1))
  local looked = (before - effort) / 2
  local count = math.max(2, math.min(most, left, math.floor(room / longest), math.floor(effort / looked)))
  for k = 0, count - 1 do taken[k + 1] = read(after + math.floor(k * (left - 1) / (count - 1) + 0.5)) end
  return {total, taken}
end
for i = after, after + math.min(most, left) - 1 do
  if effort < 0 then break end
  local step = read(i)
  room = room - #step
  if room < 0 and #taken > 0 then break end
  taken[#taken + 1] = step
end
return {total, taken}
"""


@dataclass(frozen=True, slots=True)
class StepsRead:
    """Steps (JSON each), and how many there are in all."""

    steps: list[bytes]
    total: int


def jobs(
    *,
    limit: int = 50,
    cursor: str | None = None,
    status: Status | None = None,
    labels: Mapping[str, str] | None = None,
    created_from: int | None = None,
    created_before: int | None = None,
    specs: bool = False,
    most_bytes: int = PAGE_BYTES,
) -> Operation[tuple[list[JobRecord], str | None]]:
    """List jobs, newest first, with the cursor of the next page (`None`: this was the last).

    `created_from` (included) and `created_before` (not included) are in microseconds since 1970. Without `specs` no
    spec is read. A page ends before it has more than `most_bytes`; at most `MOST_SCANNED_JOBS` jobs are read, so with a
    filter a page can be short, even empty, although more follow. Jobs that are created meanwhile do not change the
    following pages. Raises: `ValueError` for a broken cursor.
    """
    count = max(limit, MOST_SCANNED_JOBS) if status is not None or labels else limit
    window = yield from page(keys.JOBS, count, cursor, created_from, created_before)
    if not window:
        return [], None
    fields = FIELDS if specs else SUMMARY
    texts = [_as_stored(name, value) for name, value in (labels or {}).items()]
    asked = (keys.JOB, status or "", limit, most_bytes, len(fields), *fields, len(texts), *texts)
    (reply,) = yield (("EVAL", _JOBS, 0, *asked, *(name for name, _ in window)),)
    looked, gone, found = reply
    if gone:
        yield (("EVAL", scripts.FORGET, 0, *gone),)
    records = [record_of(name.decode(), dict(zip(fields, values, strict=True))) for name, values in found]
    more = looked < len(window) or len(window) == count
    return records, encode_cursor(*window[looked - 1]) if more else None


def _as_stored(name: str, value: str) -> str:
    """A label as it is written in the JSON of all labels. No other text contains it, since quotes are escaped."""
    return json.dumps({name: value})[1:-1]


def steps_within(
    job_id: str,
    after: int,
    most: int,
    *,
    spread: bool = False,
    bare: bool = False,
    most_bytes: int = PAGE_BYTES,
) -> Operation[StepsRead]:
    """Read up to `most` steps but the first `after`, of `most_bytes` at most; a single one always fits.

    `spread`: steps at even distances among all that follow, with the first and the last; fewer than `most` if more
    would not fit. `bare`: without their hyperparameters.
    """
    asked = (
        f"{keys.JOB}{job_id}:steps",
        after,
        most,
        most_bytes,
        int(spread),
        int(bare),
        MOST_SCANNED_PAGES * most_bytes,
    )
    (reply,) = yield (("EVAL", _STEPS, 0, *asked),)
    return StepsRead([bytes(step) for step in reply[1]], int(reply[0]))
