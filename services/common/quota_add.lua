-- Adds calls to a quota: with ARGV 2 those recorded before it was counted, once; without, those counted elsewhere while
-- Redis was gone, unless Redis forgot the quota: then those are recorded, too.
local s = redis.call('HGET', KEYS[1], 's')
if ARGV[2] then
  if s then return 0 end
  redis.call('HSET', KEYS[1], 's', 1)
elseif not s then return 0 end
redis.call('HINCRBYFLOAT', KEYS[1], 'l', ARGV[1])
return 1
