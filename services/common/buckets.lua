-- Each of KEYS is a bucket: its level `l` and the time `t` it had it; or where the rate is 0 a quota: the calls used `l`,
-- the time `t` since which they are counted, and whether those before it were added, `s`. ARGV tells of one question
-- after the other: how many buckets it has, calls wanted now, calls wanted ahead, calls given back and since when they
-- were held; then of each bucket rate and size, and of a quota the milliseconds to keep it and the soft quota. Answered
-- are for each question how many calls were given now and how many ahead, and then of each of its buckets the level and
-- since when a quota is counted whose earlier calls were not added; else 0. Ahead there is a 16th of what is left at
-- most: a caller near the limit is counted call by call, in whichever process it comes. Of a quota it is a 16th of what is
-- left up to its soft or its hard end, and of what was used, which is said to callers. What is given back is not of a
-- quota that began after it was taken: then Redis had forgotten it.

local t = redis.call('TIME')
local now = t[1] + t[2] / 1e6
local answers = {}
local key, a = 1, 1
while a <= #ARGV do
  local n, given, ahead = tonumber(ARGV[a]), tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2])
  local back, held, levels, since = tonumber(ARGV[a + 3]), tonumber(ARGV[a + 4]), {}, {}
  for i = 1, n do
    local rate, size = tonumber(ARGV[a + 1 + 4 * i]), tonumber(ARGV[a + 2 + 4 * i])
    local b = redis.call('HMGET', KEYS[key + i - 1], 'l', 't', 's')
    local level, at = tonumber(b[1]), tonumber(b[2]) or now
    if rate > 0 then
      level = (level or size) + (now - at) * rate + back
      since[i] = 0
    else
      level = size - (level or 0) + (at <= held and back or 0)
      since[i] = b[3] and 0 or at
    end
    levels[i] = math.min(size, level)
    given = math.max(0, math.min(given, math.floor(levels[i])))
  end
  for i = 1, n do
    local rate, size = tonumber(ARGV[a + 1 + 4 * i]), tonumber(ARGV[a + 2 + 4 * i])
    local left = levels[i] - given
    if rate == 0 then
      local to_soft = left - (size - tonumber(ARGV[a + 4 + 4 * i]))
      left = math.min(to_soft > 0 and to_soft or left, size - left)
    end
    ahead = math.max(0, math.min(ahead, math.floor(left / 16)))
  end
  if given < tonumber(ARGV[a + 1]) then ahead = 0 end
  answers[#answers + 1] = given
  answers[#answers + 1] = ahead
  for i = 1, n do
    local rate, size = tonumber(ARGV[a + 1 + 4 * i]), tonumber(ARGV[a + 2 + 4 * i])
    local level, k = levels[i] - given - ahead, KEYS[key + i - 1]
    answers[#answers + 1] = tostring(level)
    answers[#answers + 1] = tostring(since[i])
    if rate > 0 then
      redis.call('HSET', k, 'l', level, 't', now)
      redis.call('PEXPIRE', k, math.ceil(size / rate * 1000) + 1000)
    else
      redis.call('HSET', k, 'l', size - level)
      redis.call('HSETNX', k, 't', now)
      redis.call('PEXPIRE', k, math.ceil(tonumber(ARGV[a + 3 + 4 * i])))
    end
  end
  key, a = key + n, a + 5 + 4 * n
end
return answers
