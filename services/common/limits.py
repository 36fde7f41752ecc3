"""Token buckets, exact across processes: kept in Redis, asked for in one script for all calls that came
while the previous one was under way.

Without Redis each process keeps buckets of its own, of the same size: callers then get at most the limit times the
number of processes. Limits that protect credentials are refused instead."""

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Any

from mercat.common.v1 import policy_pb2
from redis.asyncio import Redis
from redis.exceptions import RedisError

from services.common.errors import RateLimited, Unavailable

log = logging.getLogger(__name__)

# A bucket is its level and the time it had it. KEYS[i] is asked for ARGV[3i] calls at its rate and burst; the answers
# are how many of them it gave, and what is left, or below zero how many seconds until there is a whole one again.
_SCRIPT = """
local t = redis.call('TIME')
local now = t[1] + t[2] / 1e6
local answers = {}
for i, key in ipairs(KEYS) do
  local rate, burst, wanted = tonumber(ARGV[i * 3 - 2]), tonumber(ARGV[i * 3 - 1]), tonumber(ARGV[i * 3])
  local b = redis.call('HMGET', key, 'l', 't')
  local level = tonumber(b[1]) or burst
  level = math.min(burst, level + (now - (tonumber(b[2]) or now)) * rate)
  local given = math.min(wanted, math.floor(level))
  level = level - given
  answers[i * 2 - 1] = given
  answers[i * 2] = tostring(given < wanted and (level - 1) / rate or level)
  redis.call('HSET', key, 'l', level, 't', now)
  redis.call('PEXPIRE', key, math.ceil(burst / rate * 1000) + 1000)
end
return answers
"""
_GATHER = 0.002  # seconds that calls gather before a script call, while they come several at a time


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


_Waiting = tuple[str, Limit, "asyncio.Future[float]"]


class Limiter:
    """Asks the buckets. `scale` multiplies every rate and burst (tests and big installations)."""

    def __init__(self, redis: "Redis", scale: float = 1.0) -> None:
        self._script = redis.register_script(_SCRIPT)
        self._scale = scale
        self._waiting: list[_Waiting] = []
        self._local: dict[str, tuple[float, float]] = {}
        self._redis_back_at = 0.0
        self._asking: asyncio.Task[None] | None = None

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
        self._waiting.append((f"limit:{limit.name}:{subject}", limit, future))
        if self._asking is None:
            self._asking = loop.create_task(self._ask_all())
        left = await future
        if left < 0:
            raise RateLimited(
                f"over the {limit.name} limit of {limit.rate * self._scale:g} calls a second; wait {-left:.2f} s",
                metadata={"limit": limit.name}, retry_after=-left,
            )  # fmt: skip
        return left

    async def _ask_all(self) -> None:
        try:
            crowded = False
            while self._waiting:
                if crowded:
                    await asyncio.sleep(_GATHER)
                asked, self._waiting = self._waiting, []
                crowded = len(asked) > 1
                await self._ask(asked)
        finally:
            self._asking = None

    async def _ask(self, asked: list[_Waiting]) -> None:
        by_key: dict[str, list[_Waiting]] = {}
        for waiting in asked:
            by_key.setdefault(waiting[0], []).append(waiting)
        answers = await self._ask_redis(by_key)
        for i, group in enumerate(by_key.values()):
            for n, (key, limit, future) in enumerate(group):
                if future.done():
                    continue
                if answers is not None:
                    given, left = int(answers[2 * i]), float(answers[2 * i + 1])
                    future.set_result(left if n >= given else max(left, 0.0) + given - 1 - n)
                elif limit.fail_closed:
                    future.set_exception(
                        Unavailable("sign-in is not possible just now", reason="LIMITER_UNAVAILABLE", retry_after=2)
                    )
                else:
                    future.set_result(self._take_locally(key, limit))

    async def _ask_redis(self, by_key: dict[str, list[_Waiting]]) -> list[Any] | None:
        """None while Redis is gone."""
        if time.monotonic() < self._redis_back_at:
            return None
        args: list[float] = []
        for group in by_key.values():
            limit = group[0][1]
            args += (limit.rate * self._scale, limit.burst * self._scale, len(group))
        try:
            async with asyncio.timeout(0.5):
                answers: list[Any] = await self._script(list(by_key), args)
                return answers
        except (RedisError, OSError, TimeoutError) as e:
            log.warning("limits are kept locally: Redis is gone: %s", e)
            self._redis_back_at = time.monotonic() + 1.0
            return None

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
