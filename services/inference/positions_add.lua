-- Of a counter by meter: ARGV the milliseconds to keep it, 1 to begin meters that it does not know and leave the others, 0
-- to add to those that it knows and leave the others; then each meter and units.
for i = 3, #ARGV, 2 do
  if ARGV[2] == '1' then
    redis.call('HSETNX', KEYS[1], ARGV[i], ARGV[i + 1])
  elseif redis.call('HEXISTS', KEYS[1], ARGV[i]) == 1 then
    redis.call('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1])
  end
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
