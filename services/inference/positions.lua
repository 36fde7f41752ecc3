-- Takes units of a month. KEYS: since when counters are kept here; then of each question its counter, a hash by meter, and
-- where its answer is remembered. ARGV of each question: how many meters, the milliseconds to keep the counter and to
-- remember the answer (0: not), then of each meter its name and units. Answered are since when counters are kept, seconds
-- since 1970, and for each meter of each question the units before, or -1 for all of them where the counter does not know
-- one: then nothing was taken. Numbers stay text, for Lua's are exact to 53 bits only.
local since = redis.call('GET', KEYS[1])
if not since then
  local t = redis.call('TIME')
  since = string.format('%s.%06d', t[1], t[2])
  redis.call('SET', KEYS[1], since)
end

local function all(found, n)
  for i = 1, n do
    if not found[i] then return false end
  end
  return true
end

local answers = {since}
local a = 1
for k = 2, #KEYS, 2 do
  local counter, memory = KEYS[k], KEYS[k + 1]
  local n, kept, remembered = tonumber(ARGV[a]), ARGV[a + 1], tonumber(ARGV[a + 2])
  local meters = {}
  for i = 1, n do meters[i] = ARGV[a + 1 + 2 * i] end
  a = a + 3
  local found = remembered > 0 and redis.call('HMGET', memory, unpack(meters)) or {}
  if not all(found, n) then
    found = redis.call('HMGET', counter, unpack(meters))
    if all(found, n) then
      for i = 1, n do
        if ARGV[a + 2 * i - 1] ~= '0' then redis.call('HINCRBY', counter, meters[i], ARGV[a + 2 * i - 1]) end
        if remembered > 0 then redis.call('HSET', memory, meters[i], found[i]) end
      end
      redis.call('PEXPIRE', counter, kept)
      if remembered > 0 then redis.call('PEXPIRE', memory, remembered) end
    else
      for i = 1, n do found[i] = '-1' end
    end
  end
  for i = 1, n do answers[#answers + 1] = found[i] end
  a = a + 2 * n
end
return answers
