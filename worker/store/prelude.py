"""The beginning of every script: the lifecycle table, the names of the keys, and the functions that scripts share."""

from typing import Final

from worker.store import keys
from worker.store.lifecycle import ILLEGAL_MOVE, lua_tables
from worker.store.records import FIRST_ALGORITHM

NOW: Final = """
local clock = call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1e6
"""
"""The one clock of the scripts: the server's, which may step. What lasts is measured elsewhere, by monotonic clocks."""

PRELUDE: Final = (
    f"""
{lua_tables()}
local JOB, JOBS, ACTIVE, CHANGED = '{keys.JOB}', '{keys.JOBS}', '{keys.ACTIVE}', '{keys.CHANGED}'
local QUEUE, INTERMEDIATE, RQ_JOB = '{keys.QUEUE_LIST}', '{keys.INTERMEDIATE_LIST}', '{keys.RQ_JOB}'
local RQ_WORKERS = '{keys.RQ_WORKERS}'
local LIVE_BYTES, ENDED, ENDED_BYTES = '{keys.LIVE_BYTES}', '{keys.ENDED}', '{keys.ENDED_BYTES}'
local DATASET, DATASETS, DATASETS_USED = '{keys.DATASET}', '{keys.DATASETS}', '{keys.DATASETS_USED}'
local DATASETS_BYTES, DATASETS_DOOMED = '{keys.DATASETS_BYTES}', '{keys.DATASETS_DOOMED}'
local ILLEGAL, FIRST_ALGORITHM = '{ILLEGAL_MOVE}', '{FIRST_ALGORITHM}'
"""
    """
local call = redis.call
"""
    + NOW
    + """
local function text(number) return string.format('%.6f', number) end
local function fields(id, ...) return call('HMGET', JOB .. id, ...) end
local function due(id, seconds) call('ZADD', ACTIVE, text(now + seconds), id) end

-- Looks at jobs that wait are spread over time, 50 a second: a reconciler's pass stays short, and leases come first.
local function look(id, seconds, waiting) due(id, math.max(seconds, waiting / 50)) end

-- A server whose memory is full refuses a script at its first write, if that may need memory. This one needs none, and
-- the writes behind it are not looked at: what lets jobs go on and end, and so makes room, comes through.
local function write_at_any_rate() call('DEL', JOBS .. ':none') end

-- A visible change: a new version for ETags, and the doorbell for those who wait.
local function change(id)
  call('HINCRBY', JOB .. id, 'version', 1)
  call('PUBLISH', CHANGED, id)
end

local function move(id, to)
  local from = call('HGET', JOB .. id, 'status')
  if not (from and MOVES[from] and MOVES[from][to]) then
    error(ILLEGAL .. ': ' .. tostring(from) .. ' -> ' .. to, 0)
  end
  call('HSET', JOB .. id, 'status', to)
end

local function let_go(id)
  local dataset = call('HGET', JOB .. id, 'dataset')
  if not dataset then return end
  call('SREM', DATASET .. dataset .. ':jobs', id)
  call('ZADD', DATASETS_USED, 'XX', text(now), dataset)
end

-- Bytes that are kept of a job that ends: its description, the names of its hyperparameters, its result, its steps (all
-- are about as long as the last).
local function weight(id)
  local last = call('LINDEX', JOB .. id .. ':steps', -1)
  local steps = last and #last * call('LLEN', JOB .. id .. ':steps') or 0
  local described = call('HSTRLEN', JOB .. id, 'spec') + call('HSTRLEN', JOB .. id, 'names')
  return 1024 + described + call('STRLEN', JOB .. id .. ':result') + steps
end

-- Take a member of ENDED away.
local function unlist(member)
  if call('ZREM', ENDED, member) == 0 then return end
  if call('DECRBY', ENDED_BYTES, string.match(member, ' (%d+)$')) <= 0 then call('DEL', ENDED_BYTES) end
end

-- Remove a job that has ended.
local function remove_job(id)
  call('ZREM', JOBS, id)
  for _, suffix in ipairs({'', ':data', ':checkpoint', ':steps', ':result'}) do call('DEL', JOB .. id .. suffix) end
  call('PUBLISH', CHANGED, id)
end

local function close(id, status, retention)
  move(id, status)
  let_go(id)
  local kept, size = string.format('%d', weight(id)), call('HGET', JOB .. id, 'bytes')
  call('HSET', JOB .. id, 'finished_at', text(now), 'kept', kept)
  call('ZADD', ENDED, text(now), id .. ' ' .. kept)
  call('INCRBY', ENDED_BYTES, kept)
  call('HDEL', JOB .. id, 'owner')
  call('DEL', JOB .. id .. ':data', JOB .. id .. ':checkpoint', RQ_JOB .. id)
  call('ZREM', ACTIVE, id)
  -- The sum ends with the last live job, whatever older versions have added or left.
  if size and call('DECRBY', LIVE_BYTES, size) < 0 or call('ZCARD', ACTIVE) == 0 then call('DEL', LIVE_BYTES) end
  local milliseconds = math.max(1, math.floor(retention * 1000))
  for _, suffix in ipairs({'', ':steps', ':result'}) do call('PEXPIRE', JOB .. id .. suffix, milliseconds) end
  change(id)
end

-- End a job whose processes die; nobody holds it.
local function give_up(id, status, lost, retention)
  if status == 'cancelling' then return close(id, 'cancelled', retention) end
  if status == 'queued' then move(id, 'running') end
  call('HSET', JOB .. id, 'error', lost)
  close(id, 'failed', retention)
end

-- Count a delivery that was taken out of the queue and never claimed. True: it was one too many.
local function stranded(id, status, most, lost, retention)
  if call('HINCRBY', JOB .. id, 'stranded', 1) < tonumber(most) then return false end
  give_up(id, status, lost, tonumber(retention))
  return true
end

-- Whether this attempt still holds the job.
local function holds(status, attempt, owner, wanted)
  return (status == 'running' or status == 'cancelling') and owner and attempt == wanted
end

-- ARGV from i: the number of commands, and for each its length and its words.
local function execute(i)
  local count = tonumber(ARGV[i])
  i = i + 1
  for _ = 1, count do
    local length = tonumber(ARGV[i])
    call(unpack(ARGV, i + 1, i + length))
    i = i + 1 + length
  end
end

-- Hand the job to the queue again, once: the commands of ARGV from i replace whatever RQ still has of it. `absent`: the
-- queue need not be searched for it.
local function deliver(id, i, check, absent)
  if not absent then call('LREM', QUEUE, 0, id) end
  call('LREM', INTERMEDIATE, 0, id)
  execute(i)
  look(id, check, call('LLEN', QUEUE))
  change(id)
end

local function take_back(id, status)
  if status == 'running' then move(id, 'queued') end
  call('HDEL', JOB .. id, 'owner')
end

-- ARGV from i: the number of steps before these, the number of these, and these. A step is stored once: those that an
-- earlier sending of the same beat has stored are skipped.
local function append(id, i)
  local before, count = tonumber(ARGV[i]), tonumber(ARGV[i + 1])
  if count == 0 then return end
  local stored = call('LLEN', JOB .. id .. ':steps')
  if stored < before then error('steps ' .. stored .. ' to ' .. before .. ' are missing', 0) end
  for n = math.max(0, stored - before) + 1, count do call('RPUSH', JOB .. id .. ':steps', ARGV[i + 1 + n]) end
end

-- Forget what another version of the algorithm has found; how often and how long it has run stays.
local function begin_again(id, algorithm, fingerprint)
  call('DEL', JOB .. id .. ':checkpoint', JOB .. id .. ':steps')
  call('HDEL', JOB .. id, 'progress', 'names')
  call('HSET', JOB .. id, 'algorithm', algorithm, 'fingerprint', fingerprint)
end

local function handout(id, without_data)
  local reply = fields(id, 'attempt', 'status', 'elapsed', 'seconds', 'created_at', 'started_at', 'fingerprint',
    'request_id', 'traceparent', 'algorithm', 'spec')
  reply[12] = without_data and '' or call('GET', JOB .. id .. ':data')
  reply[13] = call('GET', JOB .. id .. ':checkpoint')
  reply[14] = call('LLEN', JOB .. id .. ':steps')
  return reply
end
"""
)
