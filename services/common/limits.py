"""Token buckets, exact across processes: kept in Redis, asked for in one script for all calls that came while the
previous one was under way. A caller far from their limit gets a slice of tokens ahead, so that most calls ask nobody;
what is left of a slice goes back with the next question.

Without Redis each process keeps buckets of its own, which begin at the level that was last seen and get the process's
share of the rate: 1 where it is alone, else 1.5 divided by how many there are, so that uneven loads fare well and a
caller gets at most 1.5 times the limit. Limits that protect credentials are refused instead."""

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

# A bucket is its level and the time it had it. For KEYS[i] the arguments are rate, burst, calls wanted now, calls
# wanted ahead and calls given back; the answers are how many it gave now, how many ahead, and what is left, or below
# zero how many seconds until there is a whole one again. Ahead there is a 16th of what is left at most: a caller near
# the limit is counted call by call, in whichever process it comes.
_SCRIPT = """
local t = redis.call('TIME')
local now = t[1] + t[2] / 1e6
local answers = {}
for i, key in ipairs(KEYS) do
  local a = i * 5 - 4
  local rate, burst, wanted = tonumber(ARGV[a]), tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2])
  local b = redis.call('HMGET', key, 'l', 't')
  local level = tonumber(b[1]) or burst
  level = math.min(burst, level + (now - (tonumber(b[2]) or now)) * rate + tonumber(ARGV[a + 4]))
  local given = math.min(wanted, math.floor(level))
  level = level - given
  local ahead = 0
  if given == wanted then ahead = math.min(tonumber(ARGV[a + 3]), math.floor(level / 16)) end
  level = level - ahead
  answers[i * 3 - 2] = given
  answers[i * 3 - 1] = ahead
  answers[i * 3] = tostring(given < wanted and (level - 1) / rate or level)
  redis.call('HSET', key, 'l', level, 't', now)
  redis.call('PEXPIRE', key, math.ceil(burst / rate * 1000) + 1000)
end
return answers
"""
_SLICE = 0.1  # seconds that a slice is for
_MOST = 100_000  # callers whose slices and levels are remembered
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


@dataclass(slots=True)
class _Slice:
    """Tokens taken ahead, to be used until a time (monotonic seconds)."""

    tokens: int
    until: float


_Waiting = tuple[str, Limit, "asyncio.Future[float]"]


class Limiter:
    """Asks the buckets. `scale` multiplies every rate and burst (tests and big installations); `share` is what this
    process gets of them while Redis is gone."""

    def __init__(self, redis: "Redis", scale: float = 1.0, share: float = 1.0) -> None:
        self._script = redis.register_script(_SCRIPT)
        self._scale = scale
        self._share = share
        self._waiting: list[_Waiting] = []
        self._slices: dict[str, _Slice] = {}
        self._local: dict[str, tuple[float, float]] = {}  # level and its time, of one process's share
        self._redis_back_at = 0.0
        self._asking: asyncio.Task[None] | None = None

    def take_now(self, limit: Limit, subject: str) -> bool:
        """Takes one call from the slice that is held, without waiting; False: `take` must be asked."""
        s = self._slices.get(f"limit:{limit.name}:{subject}")
        if s is None or s.tokens < 1 or time.monotonic() > s.until:
            return False
        s.tokens -= 1
        return True

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
        now = time.monotonic()
        for i, (key, group) in enumerate(by_key.items()):
            limit = group[0][1]
            if answers is None:
                self._answer_locally(group)
                continue
            given, ahead, left = int(answers[3 * i]), int(answers[3 * i + 1]), float(answers[3 * i + 2])
            if ahead:
                self._slices[key] = _Slice(ahead, now + 2 * _SLICE)
            self._local[key] = (max(left, 0.0) * self._share, now)
            for n, (_, _, future) in enumerate(group):
                if not future.done():
                    future.set_result(left if n >= given else max(left, 0.0) + given - 1 - n)
                elif n < given and not limit.fail_closed:
                    self._slices.setdefault(key, _Slice(0, 0.0)).tokens += 1  # a caller who left took none
        if len(self._slices) > _MOST or len(self._local) > _MOST:
            self._slices.clear()
            self._local.clear()

    async def _ask_redis(self, by_key: dict[str, list[_Waiting]]) -> list[Any] | None:
        """None while Redis is gone."""
        if time.monotonic() < self._redis_back_at:
            return None
        args: list[float] = []
        for key, group in by_key.items():
            limit = group[0][1]
            rate, burst = limit.rate * self._scale, limit.burst * self._scale
            old = self._slices.pop(key, None)
            args += (rate, burst, len(group), int(rate * _SLICE), old.tokens if old else 0)
        try:
            async with asyncio.timeout(0.5):
                answers: list[Any] = await self._script(list(by_key), args)
                return answers
        except (RedisError, OSError, TimeoutError) as e:
            log.warning("limits are kept locally: Redis is gone: %s", e)
            self._redis_back_at = time.monotonic() + 1.0
            return None

    def _answer_locally(self, group: list[_Waiting]) -> None:
        for key, limit, future in group:
            if future.done():
                continue
            if limit.fail_closed:
                future.set_exception(
                    Unavailable("sign-in is not possible just now", reason="LIMITER_UNAVAILABLE", retry_after=2)
                )
            else:
                future.set_result(self._take_locally(key, limit))

    def _take_locally(self, key: str, limit: Limit) -> float:
        now = time.monotonic()
        rate, burst = limit.rate * self._scale * self._share, limit.burst * self._scale * self._share
        level, at = self._local.get(key, (burst, now))
        level = min(burst, level + (now - at) * rate)
        left = level - 1 if level >= 1 else (level - 1) / rate
        self._local[key] = (max(left, 0) if level >= 1 else level, now)
        return left
