-- Whether a nonce was never seen before, from now on for so many milliseconds.
return {redis.call('SET', KEYS[1], '1', 'NX', 'PX', ARGV[1]) and 1 or 0}
