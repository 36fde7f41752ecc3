-- Each of KEYS holds who has how many slots of something: by worker "slots:until", seconds since 1970. ARGV: the worker,
-- the seconds for which it may be silent; then of each key the slots it has, those it wants now, those it wants ahead, and how many there are
-- in all. Answered are for each key how many were given now, and how many ahead: a 16th of what is left at most.
local t = redis.call('TIME')
local now = t[1] + t[2] / 1e6
local me, silent = ARGV[1], tonumber(ARGV[2])
local answers = {}
for i, k in ipairs(KEYS) do
  local mine, need = tonumber(ARGV[4 * i - 1]), tonumber(ARGV[4 * i])
  local ahead, left = tonumber(ARGV[4 * i + 1]), tonumber(ARGV[4 * i + 2]) - mine
  local all = redis.call('HGETALL', k)
  for j = 1, #all, 2 do
    local slots, till = string.match(all[j + 1], '(%d+):(.+)')
    if all[j] ~= me then
      if tonumber(till) > now then left = left - tonumber(slots) else redis.call('HDEL', k, all[j]) end
    end
  end
  local given = math.max(0, math.min(need, left))
  ahead = math.max(0, math.min(ahead, math.floor((left - given) / 16)))
  mine = mine + given + ahead
  if mine > 0 then
    redis.call('HSET', k, me, string.format('%d:%.3f', mine, now + silent))
    redis.call('PEXPIRE', k, math.ceil(silent * 1000))
  else
    redis.call('HDEL', k, me)
  end
  answers[#answers + 1] = given
  answers[#answers + 1] = ahead
end
return answers
