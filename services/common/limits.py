"""Token buckets, exact across processes: kept in Redis, asked for all calls of one turn of the event loop in one
script.

Without Redis each process keeps buckets of its own, of the same size: callers then get at most the limit times the
number of processes. Limits that protect credentials are refused instead."""

import asyncio
import logging
import time
from dataclasses import dataclass

from mercat.common.v1 import policy_pb2
from redis.asyncio import Redis
from redis.exceptions import RedisError

from services.common.errors import RateLimited, Unavailable

log = logging.getLogger(__name__)

# A bucket is its level and the time it had it. One call of the script serves many: KEYS[i] with its rate and burst.
_SCRIPT = """
local t = redis.call('TIME')
local now = t[1] + t[2] / 1e6
local answers = {}
for i, key in ipairs(KEYS) do
  local rate, burst = tonumber(ARGV[i * 2 - 1]), tonumber(ARGV[i * 2])
  local b = redis.call('HMGET', key, 'l', 't')
  local level = tonumber(b[1]) or burst
  level = math.min(burst, level + (now - (tonumber(b[2]) or now)) * rate)
  if level >= 1 then
    level = level - 1
    answers[i] = tostring(level)
  else
    answers[i] = tostring((level - 1) / rate)
  end
  redis.call('HSET', key, 'l', level, 't', now)
  redis.call('PEXPIRE', key, math.ceil(burst / rate * 1000) + 1000)
end
return answers
"""


@dataclass(frozen=True)
class Limit:
    """Calls a second, and how many at once after a rest."""

    name: str
    rate: float
    burst: int
    fail_closed: bool = False


CLASSES = {
    policy_pb2.RATE_CLASS_READ: Limit("read", 100, 200),
    policy_pb2.RATE_CLASS_WRITE: Limit("write", 20, 60),
    policy_pb2.RATE_CLASS_SIGN_IN: Limit("sign-in", 1, 10, fail_closed=True),
    policy_pb2.RATE_CLASS_INFERENCE: Limit("inference", 5_000, 20_000),
}


class Limiter:
    """Asks the buckets. `scale` multiplies every rate and burst (tests and big installations)."""

    def __init__(self, redis: "Redis", scale: float = 1.0) -> None:
        self._script = redis.register_script(_SCRIPT)
        self._scale = scale
        self._waiting: list[tuple[str, Limit, asyncio.Future[float]]] = []
        self._local: dict[str, tuple[float, float]] = {}
        self._redis_back_at = 0.0

    async def take(self, limit: Limit, subject: str) -> float:
        """Takes one call from the subject's bucket.

        Returns:
            Calls left.

        Raises:
            RateLimited: none was left; comes with a retry hint.
            Unavailable: the limit fails closed and Redis is gone.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[float] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._flush)
        self._waiting.append((f"limit:{limit.name}:{subject}", limit, future))
        left = await future
        if left < 0:
            raise RateLimited(
                f"over the {limit.name} limit of {limit.rate * self._scale:g} calls a second; wait {-left:.2f} s",
                metadata={"limit": limit.name}, retry_after=-left,
            )  # fmt: skip
        return left

    def _flush(self) -> None:
        asyncio.get_running_loop().create_task(self._ask())

    async def _ask(self) -> None:
        asked, self._waiting = self._waiting, []
        answers: list[float] | None = None
        if time.monotonic() >= self._redis_back_at:
            args: list[float] = []
            for _, limit, _ in asked:
                args += (limit.rate * self._scale, limit.burst * self._scale)
            try:
                async with asyncio.timeout(0.5):
                    answers = [float(a) for a in await self._script([key for key, _, _ in asked], args)]
            except (RedisError, OSError, TimeoutError) as e:
                log.warning("limits are kept locally: Redis is gone: %s", e)
                self._redis_back_at = time.monotonic() + 1.0
        for i, (key, limit, future) in enumerate(asked):
            if future.done():
                continue
            if answers is not None:
                future.set_result(answers[i])
            elif limit.fail_closed:
                future.set_exception(
                    Unavailable("sign-in is not possible just now", reason="LIMITER_UNAVAILABLE", retry_after=2)
                )
            else:
                future.set_result(self._take_locally(key, limit))

    def _take_locally(self, key: str, limit: Limit) -> float:
        now = time.monotonic()
        rate, burst = limit.rate * self._scale, limit.burst * self._scale
        level, at = self._local.get(key, (burst, now))
        level = min(burst, level + (now - at) * rate)
        if len(self._local) > 100_000:
            self._local.clear()
        left = level - 1 if level >= 1 else (level - 1) / rate
        self._local[key] = (max(left, 0) if level >= 1 else level, now)
        return left
