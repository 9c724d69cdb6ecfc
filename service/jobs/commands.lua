-- Everything that changes job records. One call is one command, so it happens wholly or not at all.
-- ARGV[1] is the command's name, the rest are its arguments.
--
-- Every command checks the job's status, and its fence where a worker calls it. The broker's answer may be lost after the
-- command was done, and the client then sends it once more: done twice, a command leaves what it leaves done once.
-- (A heartbeat alone counts twice, which says twice that the worker lives.)

local EVENTS_KEPT = 10000
local LOOKED_AT = 100 -- so many of a queue are looked at with one call
local IDEMPOTENT_S = 24 * 3600
local LEAVING_S = 3600
local REMEMBERED_S = 30 * 24 * 3600  -- for which a record says that its artifacts are gone
-- What an expired job's record loses: most of its size.
local LOST_ON_EXPIRY = {'params', 'metrics', 'provenance', 'files', 'checkpoint', 'source', 'data'}
local STORY_S = 7 * 24 * 3600  -- for which the events of an ended job are kept

local function job(id) return 'sdfsrn:job:' .. id end
local function queue(name) return 'sdfsrn:queue:' .. name end
local function owned(kind, owner) return owner == '' and kind or kind .. ':' .. owner end
local function index(owner) return owned('sdfsrn:jobs', owner) end
local function unfinished(owner) return owned('sdfsrn:unfinished', owner) end
local function expired(owner) return owned('sdfsrn:expired', owner) end -- those of the index that expired, by when
local function publishing(owner) return owned('sdfsrn:publishing', owner) end -- unfinished jobs that each are to be a version
local function owner_of(id) return redis.call('HGET', job(id), 'owner') or '' end
local function status_of(id) return redis.call('HGET', job(id), 'status') end

-- What an owner has of all that is limited. `sdfsrn:used:OWNER` has the bytes in the store and the versions of models.
local QUOTAS = {'unfinished', 'jobs', 'bytes', 'versions'}
local function used(owner) return 'sdfsrn:used:' .. owner end

-- The first quota that has no room for what is asked, and what the owner has of it; nothing if all have.
local function exceeded(owner, asked, quotas)
  local stored = redis.call('HMGET', used(owner), 'bytes', 'versions')
  local has = {
    unfinished = redis.call('SCARD', unfinished(owner)),
    jobs = redis.call('ZCARD', index(owner)) - redis.call('ZCARD', expired(owner)),
    bytes = tonumber(stored[1] or 0),
    versions = tonumber(stored[2] or 0) + redis.call('SCARD', publishing(owner)),
  }
  asked, quotas = cjson.decode(asked), cjson.decode(quotas)
  for _, name in ipairs(QUOTAS) do
    local more = asked[name] and math.max(asked[name], 1) -- a job without an input makes files, too
    if more and has[name] + more > (quotas[name] or math.huge) then return {'full', name, has[name]} end
  end
end

-- From now on a job keeps so many bytes in the store.
local function keep(id, bytes)
  local more = tonumber(bytes) - tonumber(redis.call('HGET', job(id), 'bytes') or 0)
  if more == 0 then return end
  redis.call('HSET', job(id), 'bytes', bytes)
  redis.call('HINCRBY', used(owner_of(id)), 'bytes', more)
end

local RUNS = {running = true, cancelling = true, pausing = true}
local ENDED = {succeeded = true, failed = true, cancelled = true}

local function holds(id, fence)
  local at = redis.call('HMGET', job(id), 'fence', 'status')
  return at[1] == fence and RUNS[at[2]]
end

local function event(id, kind, data)
  redis.call('XADD', 'sdfsrn:events:' .. id, 'MAXLEN', '~', EVENTS_KEPT, '*', 'kind', kind, 'data', data)
  redis.call('PUBLISH', 'sdfsrn:events', id .. ' ' .. kind)
end

local function turn(id, status)
  redis.call('HSET', job(id), 'status', status)
  event(id, 'status', cjson.encode({status = status}))
end

-- Nobody works on the job from now on.
local function release(id)
  redis.call('HDEL', job(id), 'worker')
  redis.call('SREM', 'sdfsrn:running', id)
end

-- `epoch` is the present in seconds: an ended job's artifacts are kept for `expires_after` more; without it for ever, but
-- nobody needs for ever what came to nothing.
local function finish(id, status, at, epoch, bytes)
  local facts = redis.call('HMGET', job(id), 'expires_after', 'webhook', 'type', 'expires_if_failed')
  redis.call('HSET', job(id), 'finished_at', at)
  keep(id, bytes or 0)
  local kept_for = facts[1] or status ~= 'succeeded' and facts[4]
  if kept_for then
    local expires = tonumber(epoch) + tonumber(kept_for)
    redis.call('HSET', job(id), 'expires_at', string.format('%.3f', expires))
    redis.call('ZADD', 'sdfsrn:expiring', expires, id)
  end
  if facts[2] then redis.call('ZADD', 'sdfsrn:webhooks', epoch, id) end
  redis.call('HINCRBY', 'sdfsrn:ended', (facts[3] or '') .. ' ' .. status, 1)
  redis.call('SREM', unfinished(owner_of(id)), id)
  redis.call('SREM', publishing(owner_of(id)), id)
  release(id)
  turn(id, status)
  event(id, 'end', cjson.encode({status = status}))
  redis.call('EXPIRE', 'sdfsrn:events:' .. id, STORY_S)
end

-- Owners take turns. What waits in a queue is ordered by its round: of each owner's jobs the first belongs to the present
-- round, the next to the one after it, and so on; within a round the older goes first. A `line` is what one owner has
-- waiting. So far as its jobs leave the middle of a line, an owner has empty rounds, which `leave_queue` skips.
local function line(name, owner) return 'sdfsrn:line:' .. name .. ':' .. owner end

-- The head of a queue belongs to the present round, unless no worker can run it: it then stays while others have their turns.
local function claimed_round(name) return 'sdfsrn:round:' .. name end
local function head_round(name) return tonumber(redis.call('ZRANGE', queue(name), 0, 0, 'WITHSCORES')[2] or 0) end
local function present_round(name) return math.max(head_round(name), tonumber(redis.call('GET', claimed_round(name)) or 0)) end

local function wait(id, name, owner, round)
  redis.call('ZADD', queue(name), round, id)
  redis.call('ZADD', line(name, owner), round, id)
  turn(id, 'queued')
end

local function enqueue(id)
  local name, owner = redis.call('HGET', job(id), 'queue'), owner_of(id)
  local last = redis.call('ZREVRANGE', line(name, owner), 0, 0, 'WITHSCORES')[2]
  wait(id, name, owner, math.max(present_round(name), last and last + 1 or 0))
end

-- `turns` is 1 if the job had its turn, so that the next one of its owner is due a round later, and 0 if it gave it up.
local function leave_queue(id, name, turns)
  local own = line(name, owner_of(id))
  local round = redis.call('ZSCORE', queue(name), id)
  redis.call('ZREM', queue(name), id)
  redis.call('ZREM', own, id)
  local follower = redis.call('ZRANGE', own, 0, 0, 'WITHSCORES')
  if round and follower[1] and tonumber(follower[2]) > round + turns then
    redis.call('ZADD', queue(name), round + turns, follower[1])
    redis.call('ZADD', own, round + turns, follower[1])
  end
end

-- What was begun already goes on before the present round.
local function requeue(id)
  redis.call('HINCRBY', job(id), 'fence', 1)
  release(id)
  local name = redis.call('HGET', job(id), 'queue')
  wait(id, name, owner_of(id), head_round(name) - 1)
end

local function park(id)
  redis.call('HINCRBY', job(id), 'fence', 1)
  release(id)
  turn(id, 'paused')
end

local function model(owner, name) return 'sdfsrn:model:' .. owner .. ':' .. name end

-- What the same source was published as before, it is again. `first` is the lowest number that is free.
-- 'bytes N' is what a version counts for in its owner's quota, until it is withdrawn.
local function publish(owner, name, first, source, card)
  local had = redis.call('HGET', model(owner, name), 'of ' .. source)
  if had then return tonumber(had) end
  local number = math.max(tonumber(redis.call('HGET', model(owner, name), 'last') or 0) + 1, tonumber(first))
  redis.call('HSET', model(owner, name), 'last', number, 'of ' .. source, number, 'version ' .. number, card)
  local bytes = cjson.decode(card).bytes
  redis.call('HSET', model(owner, name), 'bytes ' .. number, bytes)
  redis.call('HINCRBY', used(owner), 'bytes', bytes)
  redis.call('HINCRBY', used(owner), 'versions', 1)
  redis.call('SADD', owned('sdfsrn:models', owner), name)
  return number
end

local commands = {}

-- What was asked under an idempotency key before: the same, something else, or nothing.
local function reservation(owner, key) return 'sdfsrn:idempotent:' .. owner .. ':' .. key end

function commands.asked_before(owner, key, digest)
  if key == '' then return {'no', ''} end
  local first_digest, first = string.match(redis.call('GET', reservation(owner, key)) or '', '^(%S+) (%S+)$')
  if not first or redis.call('EXISTS', job(first)) == 0 then return {'no', ''} end
  return {first_digest == digest and 'repeated' or 'conflict', first}
end

-- The same id twice is a retry after a lost answer: the first one stands.
function commands.create(id, queue_name, owner, key, digest, asked, quotas, ...)
  if redis.call('EXISTS', job(id)) == 1 then return {'created', id} end
  local before = commands.asked_before(owner, key, digest)
  if before[1] ~= 'no' then return before end
  local full = exceeded(owner, asked, quotas)
  if full then return full end
  if key ~= '' then redis.call('SET', reservation(owner, key), digest .. ' ' .. id, 'EX', IDEMPOTENT_S) end
  redis.call('HSET', job(id), 'queue', queue_name, ...)
  if owner ~= '' then redis.call('HSET', job(id), 'owner', owner) end
  redis.call('ZADD', index(owner), 0, id)
  redis.call('SADD', unfinished(owner), id)
  asked = cjson.decode(asked)
  if asked.versions then redis.call('SADD', publishing(owner), id) end
  keep(id, asked.bytes)
  enqueue(id)
  return {'created', id}
end

function commands.full(owner, asked, quotas) return exceeded(owner, asked, quotas) or false end

-- What a job makes is known at its end only, so it is not begun while its owner keeps more than `max_bytes`: it fails. If it
-- waited, so would all behind it, or each claim would look for others; and what was begun already is not thrown away.
local function affordable(id, max_bytes)
  if redis.call('HEXISTS', job(id), 'attempt') == 1 then return true end
  return tonumber(redis.call('HGET', used(owner_of(id)), 'bytes') or 0) <= (tonumber(max_bytes) or math.huge)
end

-- The first of a queue that the worker can run: of a type in `types` and with parameters written by `schema` or an older one.
local function first_runnable(queue_name, types, schema)
  local from = 0
  while true do
    local ids = redis.call('ZRANGE', queue(queue_name), from, from + LOOKED_AT - 1)
    for _, id in ipairs(ids) do
      local facts = redis.call('HMGET', job(id), 'type', 'schema', 'status')
      if facts[3] == 'queued' and types[facts[1]] and tonumber(facts[2] or 0) <= schema then return id end
    end
    if #ids < LOOKED_AT then return nil end
    from = from + LOOKED_AT
  end
end

-- The job's id and its fence, which nobody else gets; a job that fails at once has none. A repetition of the same call,
-- after a lost answer, finds what the first one did. What the worker cannot run it leaves to another one.
function commands.claim(queue_name, worker, call, at, epoch, max_bytes, problem, types, schema)
  local claimed = 'sdfsrn:claim:' .. worker
  local last_call, last, last_fence = string.match(redis.call('GET', claimed) or '', '^(%S+) (%S+) (%S+)$')
  if last_call == call then return {last, tonumber(last_fence)} end
  if redis.call('EXISTS', 'sdfsrn:leaving:' .. worker) == 1 then return false end
  local known = {}
  for _, name in ipairs(cjson.decode(types)) do known[name] = true end
  local id = first_runnable(queue_name, known, tonumber(schema))
  if not id then return false end
  local round = redis.call('ZSCORE', queue(queue_name), id)
  if tonumber(round) > tonumber(redis.call('GET', claimed_round(queue_name)) or 0) then
    redis.call('SET', claimed_round(queue_name), round)
  end
  leave_queue(id, queue_name, 1)
  local fence = 0
  if affordable(id, max_bytes) then
    fence = redis.call('HINCRBY', job(id), 'fence', 1)
    redis.call('HINCRBY', job(id), 'attempt', 1)
    redis.call('HSET', job(id), 'worker', worker, 'step_at_claim', redis.call('HGET', job(id), 'checkpoint_step') or -1)
    redis.call('HSETNX', job(id), 'started_at', at)
    redis.call('SADD', 'sdfsrn:running', id)
    turn(id, 'running')
  else
    redis.call('HSET', job(id), 'error', problem)
    finish(id, 'failed', at, epoch)
  end
  redis.call('SET', claimed, call .. ' ' .. id .. ' ' .. fence, 'EX', LEAVING_S)
  return {id, fence}
end

function commands.heartbeat(id, fence)
  if not holds(id, fence) then return 'lost' end
  redis.call('HINCRBY', job(id), 'beat', 1)
  local at = redis.call('HMGET', job(id), 'status', 'worker')
  if at[1] == 'cancelling' then return 'cancel' end
  if at[1] == 'pausing' then return 'pause' end
  if redis.call('EXISTS', 'sdfsrn:leaving:' .. (at[2] or '')) == 1 then return 'release' end
  return 'ok'
end

function commands.progress(id, fence, progress, metrics)
  if not holds(id, fence) then return 0 end
  local said = redis.call('HMGET', job(id), 'progress', 'metrics')
  redis.call('HSET', job(id), 'progress', progress, 'metrics', metrics)
  if said[2] ~= metrics then event(id, 'metric', metrics) end
  if said[1] ~= progress then event(id, 'progress', progress) end
  return 1
end

-- The same line twice in a row is a repetition of the same call.
function commands.log(id, fence, line)
  if not holds(id, fence) then return 0 end
  local last = redis.call('XREVRANGE', 'sdfsrn:events:' .. id, '+', '-', 'COUNT', 1)[1]
  if not (last and last[2][2] == 'log' and last[2][4] == line) then event(id, 'log', line) end
  return 1
end

function commands.checkpoint(id, fence, checkpoint, step)
  if not holds(id, fence) then return 0 end
  redis.call('HSET', job(id), 'checkpoint', checkpoint, 'checkpoint_step', step)
  keep(id, cjson.decode(checkpoint).bytes or 0)
  return 1
end

-- What a cancelled job still finished is not published: its caller was told that it ends.
function commands.finish(id, fence, status, at, epoch, bytes, publication, ...)
  if not holds(id, fence) then return 0 end
  if status_of(id) == 'cancelling' then
    status, bytes = 'cancelled', 0
  else
    if select('#', ...) > 0 then redis.call('HSET', job(id), ...) end
    if publication ~= '' then
      local told = cjson.decode(publication)
      local number = publish(owner_of(id), told.name, told.first, 'job ' .. id, told.card)
      redis.call('HSET', job(id), 'published', cjson.encode({name = told.name, version = number}))
    end
  end
  finish(id, status, at, epoch, bytes)
  return 1
end

-- A worker stopped in the middle, in good order, because it was asked to: by whom says the status.
function commands.release(id, fence, at, epoch)
  if not holds(id, fence) then return 'lost' end
  local status = status_of(id)
  if status == 'cancelling' then
    finish(id, 'cancelled', at, epoch)
  elseif status == 'pausing' then
    park(id)
  else
    requeue(id)
  end
  return status_of(id)
end

function commands.cancel(id, at, epoch)
  local status = status_of(id)
  if status == 'queued' or status == 'paused' then
    leave_queue(id, redis.call('HGET', job(id), 'queue'), 0)
    finish(id, 'cancelled', at, epoch)
  elseif status == 'running' or status == 'pausing' then
    turn(id, 'cancelling')
  end
  return status
end

function commands.pause(id)
  local status = status_of(id)
  if status == 'queued' then
    leave_queue(id, redis.call('HGET', job(id), 'queue'), 0)
    turn(id, 'paused')
  elseif status == 'running' then
    turn(id, 'pausing')
  end
  return status
end

-- A job that is still pausing goes on as soon as its worker has released it: release finds it running and queues it.
function commands.resume(id)
  local status = status_of(id)
  if status == 'paused' then enqueue(id) elseif status == 'pausing' then turn(id, 'running') end
  return status
end

-- The keeper looked, waited, and now says what it saw; if anything moved since, nothing happens.
function commands.lose(id, fence, beat, at, epoch, limit, problem)
  local seen = redis.call('HMGET', job(id), 'fence', 'beat', 'status', 'checkpoint_step', 'step_at_claim', 'losses')
  if not RUNS[seen[3]] then redis.call('SREM', 'sdfsrn:running', id) return seen[3] or 'gone' end
  if seen[1] ~= fence or (seen[2] or '') ~= beat then return 'alive' end
  if seen[3] == 'cancelling' then finish(id, 'cancelled', at, epoch) return 'cancelled' end
  if seen[3] == 'pausing' then
    park(id)
    return 'paused'
  end
  local losses = tonumber(seen[6] or 0)
  if tonumber(seen[4] or -1) <= tonumber(seen[5]) then losses = redis.call('HINCRBY', job(id), 'losses', 1) end
  if losses >= tonumber(limit) then
    redis.call('HSET', job(id), 'error', problem)
    finish(id, 'failed', at, epoch)
    return 'failed'
  end
  requeue(id)
  return 'queued'
end

-- From now on the worker claims nothing more, and what it holds is asked back at its next heartbeat.
function commands.leave(worker)
  redis.call('SET', 'sdfsrn:leaving:' .. worker, 1, 'EX', LEAVING_S)
  return 1
end

-- The artifacts are gone; a short record stays, to say so (all of it while a webhook is still to be told), of the `most`
-- that expired last of one owner.
function commands.expire(id, epoch, most)
  local facts = redis.call('HMGET', job(id), 'status', 'expired')
  redis.call('ZREM', 'sdfsrn:expiring', id)
  if not ENDED[facts[1]] or facts[2] then return 0 end
  redis.call('HSET', job(id), 'expired', 1)
  keep(id, 0)
  if not redis.call('ZSCORE', 'sdfsrn:webhooks', id) then redis.call('HDEL', job(id), unpack(LOST_ON_EXPIRY)) end
  redis.call('DEL', 'sdfsrn:events:' .. id)
  redis.call('ZADD', 'sdfsrn:forgetting', tonumber(epoch) + REMEMBERED_S, id)
  local remembered = expired(owner_of(id))
  redis.call('ZADD', remembered, epoch, id)
  if redis.call('ZCARD', remembered) > tonumber(most) then commands.delete(redis.call('ZPOPMIN', remembered)[1]) end
  return 1
end

function commands.delete(id)
  local name = redis.call('HGET', job(id), 'queue')
  if not name then return 0 end
  local owner = owner_of(id)
  keep(id, 0)
  leave_queue(id, name, 0)
  redis.call('SREM', 'sdfsrn:running', id)
  redis.call('ZREM', index(owner), id)
  redis.call('SREM', unfinished(owner), id)
  redis.call('SREM', publishing(owner), id)
  redis.call('ZREM', expired(owner), id)
  redis.call('ZREM', 'sdfsrn:expiring', id)
  redis.call('ZREM', 'sdfsrn:webhooks', id)
  redis.call('HDEL', 'sdfsrn:webhook_tries', id)
  redis.call('ZREM', 'sdfsrn:forgetting', id)
  redis.call('DEL', job(id), 'sdfsrn:events:' .. id)
  redis.call('PUBLISH', 'sdfsrn:events', id .. ' end')
  return 1
end

-- An attempt to tell the webhook of an ended job begins: how many there were with it, or 0 if none is due, as when another
-- keeper has begun one. The next one is planned for `again`, in case this one is not heard of any more. A repetition of the
-- same `call` is the same attempt.
function commands.webhook_begin(id, call, epoch, again)
  local due = redis.call('ZSCORE', 'sdfsrn:webhooks', id)
  if not due then return 0 end
  local tries, last_call = string.match(redis.call('HGET', 'sdfsrn:webhook_tries', id) or '0', '^(%d+) ?(%S*)$')
  if last_call == call then return tonumber(tries) end
  if tonumber(due) > tonumber(epoch) then return 0 end
  tries = tonumber(tries) + 1
  redis.call('ZADD', 'sdfsrn:webhooks', again, id)
  redis.call('HSET', 'sdfsrn:webhook_tries', id, tries .. ' ' .. call)
  return tries
end

-- Not before `at`; nothing is planned for what was told already.
function commands.webhook_at(id, at)
  redis.call('ZADD', 'sdfsrn:webhooks', 'XX', at, id)
  return 1
end

-- Told, or given up. What the message needed of an expired job's record is needed no more.
function commands.webhook_done(id)
  redis.call('HDEL', 'sdfsrn:webhook_tries', id)
  if redis.call('ZREM', 'sdfsrn:webhooks', id) == 0 then return 0 end
  if redis.call('HEXISTS', job(id), 'expired') == 1 then redis.call('HDEL', job(id), unpack(LOST_ON_EXPIRY)) end
  return 1
end

function commands.publish(owner, name, first, source, card, asked, quotas)
  local known = redis.call('HEXISTS', model(owner, name), 'of ' .. source) == 1
  return not known and exceeded(owner, asked, quotas) or publish(owner, name, first, source, card)
end

function commands.alias(owner, name, alias, number, first)
  if tonumber(number) >= tonumber(first) and redis.call('HEXISTS', model(owner, name), 'version ' .. number) == 0 then return 0 end
  redis.call('HSET', model(owner, name), 'alias ' .. alias, number)
  redis.call('SADD', owned('sdfsrn:models', owner), name)
  return 1
end

-- One version with its aliases, or, with number '', all of them; numbers are never given again.
function commands.withdraw(owner, name, number)
  local fields = redis.call('HGETALL', model(owner, name))
  local removed = 0
  for i = 1, #fields, 2 do
    local kind = string.match(fields[i], '^%S+')
    local of = (kind == 'version' or kind == 'bytes') and string.match(fields[i], '%d+') or fields[i + 1]
    if kind ~= 'last' and (number == '' or of == number) then
      if kind == 'bytes' then
        redis.call('HINCRBY', used(owner), 'bytes', -fields[i + 1])
        redis.call('HINCRBY', used(owner), 'versions', -1)
      end
      removed = removed + redis.call('HDEL', model(owner, name), fields[i])
    end
  end
  if redis.call('HLEN', model(owner, name)) <= 1 then redis.call('SREM', owned('sdfsrn:models', owner), name) end
  return removed
end

return commands[ARGV[1]](unpack(ARGV, 2))
