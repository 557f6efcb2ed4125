"""The atomic moves as Lua scripts. Each is the prelude and a body. `ARGV[1]` is the id of the job, if there is one.

Scripts read the server's clock only, check before they write (Redis does not roll back), and give the same answer when
they are sent twice because the first reply was lost. They compute the names of keys, so they need one server (or a
replicated pair), not a cluster.
"""

from typing import Final

from worker.store.prelude import PRELUDE

# id, nonce, most queued ('' = no limit), check period, data, dataset ('' = none), most bytes of all live jobs ('' = no
# limit), bytes of this one, number of fields and values, these, delivery
SUBMIT: Final = (
    PRELUDE
    + """
-- The sum is made again where it would refuse somebody, at most once a second: it holds too much after an older version
-- has ended jobs. Those that an older version has made are counted then.
local function count_again()
  if not call('SET', LIVE_BYTES .. ':counted', 1, 'PX', 1000, 'NX') then return end
  local sum = 0
  for _, job in ipairs(call('ZRANGE', ACTIVE, 0, -1)) do
    local size = call('HGET', JOB .. job, 'bytes')
    if not size then
      size = call('HSTRLEN', JOB .. job, 'spec') + call('STRLEN', JOB .. job .. ':data')
      if size > 0 then call('HSET', JOB .. job, 'bytes', size) end
    end
    sum = sum + tonumber(size)
  end
  call('SET', LIVE_BYTES, string.format('%d', sum))
end

local id, nonce, most, room = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[7])
local function crowded() return tonumber(call('GET', LIVE_BYTES) or 0) + tonumber(ARGV[8]) > room end
local known = call('HGET', JOB .. id, 'nonce')
if known then return known == nonce and 'created' or 'exists' end
if most and call('LLEN', QUEUE) >= most then return 'full' end
if room and crowded() then
  count_again()
  if crowded() then return 'crowded' end
end
local last, dataset = 9 + tonumber(ARGV[9]), ARGV[6]
if dataset ~= '' then
  if not call('ZSCORE', DATASETS, dataset) then return 'unknown_dataset' end
  call('SADD', DATASET .. dataset .. ':jobs', id)
  call('ZADD', DATASETS_USED, text(now), dataset)
  call('HSET', JOB .. id, 'dataset', dataset)
end
call('HSET', JOB .. id, 'status', 'queued', 'nonce', nonce, 'created_at', text(now), 'bytes', ARGV[8],
  unpack(ARGV, 10, last))
call('INCRBY', LIVE_BYTES, ARGV[8])
call('SET', JOB .. id .. ':data', ARGV[5])
call('ZADD', JOBS, string.format('%.0f', now * 1e6), id)
execute(last + 1)
look(id, tonumber(ARGV[4]), call('LLEN', QUEUE))
change(id)
return 'created'
"""
)

# id, owner, lease, most claims without progress, retention, error of a lost job, newest contract that the claimer
# knows, its version of the algorithm ('' = any), fingerprint of the job under that version ('' = not computed yet)
CLAIM: Final = (
    PRELUDE
    + """
local id, owner, lease, most, retention = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local job = fields(id, 'status', 'owner', 'claims', 'elapsed', 'started_at', 'contract', 'algorithm')
local status, holder, known, algorithm = job[1], job[2], tonumber(ARGV[7]), ARGV[8]
local newer = tonumber(job[6] or 1) > known
local other = algorithm ~= '' and (job[7] or FIRST_ALGORITHM) ~= algorithm and status ~= 'cancelling'
if other and ARGV[9] == '' and status and not TERMINAL[status] and not newer then
  return call('HGET', JOB .. id, 'spec')  -- what the fingerprint is of; nothing is done yet
end
call('LREM', INTERMEDIATE, 1, id)
if not status or TERMINAL[status] then
  call('DEL', RQ_JOB .. id)
  return false
end
if holder == owner then return handout(id) end
if holder and tonumber(call('ZSCORE', ACTIVE, id) or 0) > now then return false end
if status == 'cancelling' and call('EXISTS', JOB .. id .. ':checkpoint') == 0 then
  close(id, 'cancelled', retention)
  return false
end
take_back(id, status)
if newer then
  -- Left for a newer worker, at no cost to the job; looked at ever later, so that old workers do not spin.
  local times = call('HINCRBY', JOB .. id, 'deferred', 1)
  look(id, math.min(2 ^ times, 60), call('ZCARD', ACTIVE))
  return false
end
if status ~= 'cancelling' then move(id, 'running') end
if tonumber(job[3] or 0) >= most then
  give_up(id, status == 'cancelling' and status or 'running', ARGV[6], retention)
  return false
end
if other then begin_again(id, algorithm, ARGV[9]) end
call('HINCRBY', JOB .. id, 'attempt', 1)
call('HINCRBY', JOB .. id, 'claims', 1)
call('HSET', JOB .. id, 'owner', owner, 'lease', ARGV[3], 'elapsed', job[4] or '0',
  'elapsed_before', job[4] or '0', 'started_at', job[5] or text(now), 'contract', known, 'deferred', 0, 'stranded', 0)
if call('EXISTS', RQ_JOB .. id) == 1 then call('HSET', RQ_JOB .. id, 'status', 'started') end
due(id, lease)
change(id)
return handout(id)
"""
)

# id, attempt
HELD: Final = (
    PRELUDE
    + """
local job = fields(ARGV[1], 'status', 'attempt', 'owner')
if not holds(job[1], job[2], job[3], ARGV[2]) then return false end
return handout(ARGV[1], true)
"""
)

# id, attempt, elapsed, progress ('' = as it was), 1 if there is a checkpoint, checkpoint, steps before, number of
# steps, steps
BEAT: Final = (
    PRELUDE
    + """
local id = ARGV[1]
local job = fields(id, 'status', 'attempt', 'owner', 'lease')
if not holds(job[1], job[2], job[3], ARGV[2]) then return 'fenced' end
write_at_any_rate()
append(id, 7)
call('HSET', JOB .. id, 'elapsed', ARGV[3])
if ARGV[4] ~= '' then
  call('HSET', JOB .. id, 'progress', ARGV[4])
  change(id)
end
if ARGV[5] == '1' then
  call('SET', JOB .. id .. ':checkpoint', ARGV[6])
  call('HSET', JOB .. id, 'claims', 0)
end
due(id, tonumber(job[4]))
return job[1] == 'cancelling' and 'cancel' or 'ok'
"""
)

# id, owner, attempt before the claim, lease, elapsed ('' = not known yet)
WATCH: Final = (
    PRELUDE
    + """
local id, lease = ARGV[1], tonumber(ARGV[4])
local job = fields(id, 'status', 'owner', 'attempt', 'elapsed', 'elapsed_before', 'seconds')
local status, attempt = job[1], tonumber(job[3] or 0)
local hold
if not status or TERMINAL[status] then
  hold = 'done'
elseif job[2] == ARGV[2] then
  hold = 'held'
elseif attempt > tonumber(ARGV[3]) then
  hold = 'fenced'
else
  hold = 'waiting'
end
if hold == 'held' then
  -- A watch is frequent: leave the append-only file alone while most of the lease is left, and no more than all of it.
  local left = tonumber(call('ZSCORE', ACTIVE, id) or 0) - now
  if left < lease * 0.8 or left > lease then
    write_at_any_rate()
    due(id, lease)
    if ARGV[5] ~= '' and tonumber(ARGV[5]) > tonumber(job[4] or 0) then call('HSET', JOB .. id, 'elapsed', ARGV[5]) end
  end
end
local before = tonumber(job[5] or 0)
return {hold, attempt, status == 'cancelling' and 1 or 0, text(before), text(math.max(before, tonumber(job[6] or 0)))}
"""
)

# id, owner, 1 if the attempt is not to be counted against the job, check period, most unclaimed deliveries, error of a
# lost job, retention, delivery (may be empty)
RELEASE: Final = (
    PRELUDE
    + """
local id, blameless = ARGV[1], ARGV[3] == '1'
local job = fields(id, 'status', 'owner', 'claims')
if not job[1] or TERMINAL[job[1]] then return 0 end
local unclaimed = not job[2] and call('LREM', INTERMEDIATE, 1, id) == 1
if job[2] ~= ARGV[2] and not unclaimed then return 0 end
write_at_any_rate()
if unclaimed and not blameless and stranded(id, job[1], ARGV[5], ARGV[6], ARGV[7]) then return 1 end
take_back(id, job[1])
if blameless and not unclaimed and tonumber(job[3]) > 0 then call('HINCRBY', JOB .. id, 'claims', -1) end
if tonumber(ARGV[8]) > 0 then
  deliver(id, 8, tonumber(ARGV[4]))
else
  due(id, 0)
  change(id)
end
return 1
"""
)

# id, attempt, status, retention, elapsed ('' = as of the last beat), number of fields and values, these,
# 1 if there is a result, result, steps before, number of steps, steps
FINISH: Final = (
    PRELUDE
    + """
local id, status = ARGV[1], ARGV[3]
local job = fields(id, 'status', 'attempt', 'owner')
if not holds(job[1], job[2], job[3], ARGV[2]) then
  return job[1] == status and TERMINAL[status] and job[2] == ARGV[2] and 1 or 0
end
if not MOVES[job[1]][status] then error(ILLEGAL .. ': ' .. job[1] .. ' -> ' .. status, 0) end
local last = 6 + tonumber(ARGV[6])
write_at_any_rate()
append(id, last + 3)
if last > 6 then call('HSET', JOB .. id, unpack(ARGV, 7, last)) end
if ARGV[5] ~= '' then call('HSET', JOB .. id, 'elapsed', ARGV[5]) end
if ARGV[last + 1] == '1' then call('SET', JOB .. id .. ':result', ARGV[last + 2]) end
close(id, status, tonumber(ARGV[4]))
return 1
"""
)

# id, retention
CANCEL: Final = (
    PRELUDE
    + """
local id = ARGV[1]
local status = call('HGET', JOB .. id, 'status')
if not status or TERMINAL[status] or status == 'cancelling' then return status end
write_at_any_rate()
call('HSET', JOB .. id, 'cancelled_at', text(now))
if status == 'queued' and call('EXISTS', JOB .. id .. ':checkpoint') == 0 then
  call('LREM', QUEUE, 0, id)
  close(id, 'cancelled', tonumber(ARGV[2]))
  return 'cancelled'
end
move(id, 'cancelling')
change(id)
return 'cancelling'
"""
)

# id
DELETE: Final = (
    PRELUDE
    + """
local id = ARGV[1]
local job = fields(id, 'status', 'kept')
if job[1] and not TERMINAL[job[1]] then return 'live' end
call('ZREM', JOBS, id)
if not job[1] then return 'unknown' end
if job[2] then unlist(id .. ' ' .. job[2]) end
remove_job(id)
return 'deleted'
"""
)

# most ids, least uptime, check period, time that a popped id may take to be claimed, time of the pass before
# ('' = unknown), seconds since then by another clock, most by which these may differ
OVERDUE: Final = (
    PRELUDE
    + """
-- After a restart every lease looks old until the workers are back. (Not every server lets itself be asked, and after a
-- step backwards it says a negative number.)
local info = redis.pcall('INFO', 'server')
local uptime = type(info) == 'string' and tonumber(string.match(info, 'uptime_in_seconds:(%d+)')) or math.huge
if uptime < tonumber(ARGV[2]) then return {text(now)} end
local check, patience = tonumber(ARGV[3]), tonumber(ARGV[4])
write_at_any_rate()

-- By how much the server's clock has stepped since the pass before.
local step = ARGV[5] == '' and 0 or now - tonumber(ARGV[5]) - tonumber(ARGV[6])
local stepped = math.abs(step) > tonumber(ARGV[7])

-- Nothing can be due later than this, but for a clock that was set back: a lease is a few seconds, a look see `look`.
-- Where a step is seen, all jobs are gone through: also what its jump forward has made due begins again, since the
-- worker of such a job most likely lives.
local furthest = 60 + call('ZCARD', ACTIVE) / 50
local from, looks = stepped and '-inf' or text(now + furthest), 0
local members = call('ZRANGEBYSCORE', ACTIVE, from, '+inf', 'WITHSCORES')
for i = 1, #members, 2 do
  local id, ahead = members[i], tonumber(members[i + 1]) - now
  local job = fields(id, 'owner', 'lease')
  if ahead > tonumber(job[1] and job[2] or furthest) or (stepped and step > 0 and ahead <= 0) then
    if not job[1] then looks = looks + 1 end
    due(id, job[1] and tonumber(job[2]) or patience + looks / 50)
  end
end

-- Nor does a worker's sign of life last longer.
for _, worker in ipairs(call('SMEMBERS', RQ_WORKERS)) do
  if call('TTL', worker) > 60 then call('EXPIRE', worker, 60) end
end

-- A popped id that nobody claims is lost with its worker: look after it soon.
for _, id in ipairs(call('LRANGE', INTERMEDIATE, 0, -1)) do
  local job = fields(id, 'status', 'owner')
  if not job[1] or TERMINAL[job[1]] or job[2] then
    call('LREM', INTERMEDIATE, 0, id)
  elseif tonumber(call('ZSCORE', ACTIVE, id) or 0) > now + patience then
    due(id, patience)
  end
end

-- Jobs past their retention leave the list: some at random, and more while many of these are gone.
for _ = 1, 10 do
  local gone = 0
  for _, id in ipairs(call('ZRANDMEMBER', JOBS, 50)) do
    if call('EXISTS', JOB .. id) == 0 then gone = gone + call('ZREM', JOBS, id) end
  end
  if gone < 10 then break end
end

local overdue, waiting, queued = {text(now)}, nil, call('LLEN', QUEUE)
for _, id in ipairs(call('ZRANGEBYSCORE', ACTIVE, '-inf', text(now), 'LIMIT', 0, ARGV[1])) do
  local job = fields(id, 'status', 'owner')
  if not job[1] or TERMINAL[job[1]] then
    call('ZREM', ACTIVE, id)
  elseif job[2] then
    overdue[#overdue + 1] = id
  else
    if not waiting then
      waiting = {}
      for _, member in ipairs(call('LRANGE', QUEUE, 0, -1)) do waiting[member] = true end
    end
    if waiting[id] then look(id, check, queued) else overdue[#overdue + 1] = id end
  end
end
return overdue
"""
)

# id, check period, most unclaimed deliveries, error of a lost job, retention, delivery
REDELIVER: Final = (
    PRELUDE
    + """
local id = ARGV[1]
local job = fields(id, 'status', 'owner')
local score = call('ZSCORE', ACTIVE, id)
if not job[1] or TERMINAL[job[1]] or not score or tonumber(score) > now then return 0 end
write_at_any_rate()
local unclaimed = not job[2] and call('LREM', INTERMEDIATE, 1, id) == 1
if unclaimed and stranded(id, job[1], ARGV[3], ARGV[4], ARGV[5]) then return 0 end
take_back(id, job[1])
deliver(id, 6, tonumber(ARGV[2]), not job[2])
return 1
"""
)

# ids
FORGET: Final = (
    PRELUDE
    + """
for _, id in ipairs(ARGV) do
  if call('EXISTS', JOB .. id) == 0 then call('ZREM', JOBS, id) end
end
return 0
"""
)

HEALTH: Final = (
    PRELUDE
    + """
local workers = 0
for _, worker in ipairs(call('SMEMBERS', RQ_WORKERS)) do workers = workers + call('EXISTS', worker) end
return {workers, call('LLEN', QUEUE), call('ZCARD', ACTIVE)}
"""
)

TRIAL: Final = (
    PRELUDE
    + """
for _, key in ipairs({ACTIVE, QUEUE}) do call('LPUSHX', key .. ':trial', '') end
call('PUBLISH', CHANGED, '')
return 1
"""
)
