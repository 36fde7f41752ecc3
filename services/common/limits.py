"""Token buckets, exact across processes: kept in Redis, asked for in one script for all calls that came while the
previous one was under way. A call takes one token of each of its buckets (its account's, its key's, its model's) or of
none. A caller far from all of them gets a slice of tokens ahead, so that most calls ask nobody; what is left of a slice
goes back with the next question.

Without Redis each process keeps buckets of its own, which begin at the level that was last seen and get the process's
share of the rate: 1 where it is alone, else 1.5 divided by how many there are, so that uneven loads fare well and a
caller gets at most 1.5 times the limit. Limits that protect credentials are refused instead."""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from mercat.common.v1 import policy_pb2
from redis.asyncio import Redis
from redis.exceptions import RedisError

from services.common.errors import RateLimited, Unavailable

log = logging.getLogger(__name__)

# Each of KEYS is a bucket: its level and the time it had it. ARGV tells of one question after the other: how many
# buckets it has, calls wanted now, calls wanted ahead, calls given back, then rate and burst of each bucket. Answered
# are for each question how many calls were given now and how many ahead, and then the level of each of its buckets.
# Ahead there is a 16th of what is left at most: a caller near the limit is counted call by call, in whichever process
# it comes.
_SCRIPT = """
local t = redis.call('TIME')
local now = t[1] + t[2] / 1e6
local answers = {}
local key, a = 1, 1
while a <= #ARGV do
  local n, given, back = tonumber(ARGV[a]), tonumber(ARGV[a + 1]), tonumber(ARGV[a + 3])
  local ahead, levels = tonumber(ARGV[a + 2]), {}
  for i = 1, n do
    local rate, burst = tonumber(ARGV[a + 2 + 2 * i]), tonumber(ARGV[a + 3 + 2 * i])
    local b = redis.call('HMGET', KEYS[key + i - 1], 'l', 't')
    local level = (tonumber(b[1]) or burst) + (now - (tonumber(b[2]) or now)) * rate + back
    levels[i] = math.min(burst, level)
    given = math.max(0, math.min(given, math.floor(levels[i])))
  end
  for i = 1, n do ahead = math.min(ahead, math.floor((levels[i] - given) / 16)) end
  if given < tonumber(ARGV[a + 1]) then ahead = 0 end
  answers[#answers + 1] = given
  answers[#answers + 1] = ahead
  for i = 1, n do
    local rate, burst = tonumber(ARGV[a + 2 + 2 * i]), tonumber(ARGV[a + 3 + 2 * i])
    local level = levels[i] - given - ahead
    answers[#answers + 1] = tostring(level)
    redis.call('HSET', KEYS[key + i - 1], 'l', level, 't', now)
    redis.call('PEXPIRE', KEYS[key + i - 1], math.ceil(burst / rate * 1000) + 1000)
  end
  key, a = key + n, a + 4 + 2 * n
end
return answers
"""
_SLICE = 0.1  # seconds that a slice is for
_MOST = 100_000  # callers whose slices and levels are remembered
_PATIENCE, _AGAIN = 0.5, 0.5  # seconds that Redis may take, and until it is tried again once it is gone
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
}


class Bucket(NamedTuple):
    """A limit, and whom or what it is of."""

    limit: Limit
    subject: str

    @property
    def key(self) -> str:
        return f"limit:{self.limit.name}:{self.subject}"


@dataclass(slots=True)
class _Slice:
    """Tokens taken ahead, to be used until a time (monotonic seconds)."""

    tokens: int
    until: float


@dataclass(slots=True)
class _Question:
    """Calls that take of the same buckets. `key` names them together."""

    key: object
    buckets: Sequence[Bucket]
    calls: "list[asyncio.Future[float]]"


class Limiter:
    """Asks the buckets. `scale` multiplies every rate and burst (tests and big installations); `share` is what this
    process gets of them while Redis is gone."""

    def __init__(self, redis: "Redis", scale: float = 1.0, share: float = 1.0) -> None:
        self._script = redis.register_script(_SCRIPT)
        self._scale = scale
        self._share = share
        self._waiting: dict[object, _Question] = {}
        self._slices: dict[object, _Slice] = {}
        self._local: dict[str, tuple[float, float]] = {}  # level and its time, of one process's share
        self._redis = redis
        self._return: asyncio.Task[None] | None = None  # waits for Redis while it is gone
        self._asking: asyncio.Task[None] | None = None

    def take_now(self, key: object) -> bool:
        """Takes one call from the slice that is held under a key, without waiting; False: `take` must be asked."""
        s = self._slices.get(key)
        if s is None or s.tokens < 1 or time.monotonic() > s.until:
            return False
        s.tokens -= 1
        return True

    async def take(self, key: object, buckets: Sequence[Bucket]) -> float:
        """Takes one call from each bucket, or from none. `key` stands for these buckets together.

        Returns:
            Calls left in the bucket that has the fewest.

        Raises:
            RateLimited: there was none in one of them; names it, and comes with a retry hint.
            Unavailable: a limit fails closed and Redis is gone.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[float] = loop.create_future()
        question = self._waiting.get(key)
        if question is None:
            question = self._waiting[key] = _Question(key, buckets, [])
        question.calls.append(future)
        if self._asking is None:
            self._asking = loop.create_task(self._ask_all())
        return await future

    async def _ask_all(self) -> None:
        try:
            crowded = False
            while self._waiting:
                if crowded:
                    await asyncio.sleep(_GATHER)
                asked, self._waiting = list(self._waiting.values()), {}
                crowded = len(asked) > 1 or len(asked[0].calls) > 1
                await self._ask(asked)
        finally:
            self._asking = None

    async def _ask(self, asked: list[_Question]) -> None:
        answers = await self._ask_redis(asked)
        now = time.monotonic()
        at = 0
        for question in asked:
            buckets, calls = question.buckets, question.calls
            if answers is None:
                self._answer_locally(question, now)
                continue
            given, ahead = int(answers[at]), int(answers[at + 1])
            levels = [float(level) for level in answers[at + 2 : at + 2 + len(buckets)]]
            at += 2 + len(buckets)
            if ahead:
                self._slices[question.key] = _Slice(ahead, now + 2 * _SLICE)
            for bucket, level in zip(buckets, levels, strict=True):
                self._local[bucket.key] = (level * self._share, now)
            least = min(levels)
            for n, call in enumerate(calls):
                if call.done():
                    if n < given and not buckets[0].limit.fail_closed:  # a caller who left took none
                        self._slices.setdefault(question.key, _Slice(0, now + _SLICE)).tokens += 1
                elif n < given:
                    call.set_result(least + given - 1 - n)
                else:
                    call.set_exception(self._refusal(buckets, levels))
        if len(self._slices) > _MOST or len(self._local) > _MOST:
            self._slices.clear()
            self._local.clear()

    def _refusal(self, buckets: Sequence[Bucket], levels: Sequence[float]) -> RateLimited:
        """For the bucket that takes longest to have a call again."""
        waits = [(1 - level) / (b.limit.rate * self._scale) for b, level in zip(buckets, levels, strict=True)]
        wait = max(waits)
        limit = buckets[waits.index(wait)].limit
        text = f"over the {limit.name} limit of {limit.rate * self._scale:g} calls a second; wait {wait:.2f} s"
        return RateLimited(text, metadata={"limit": limit.name}, retry_after=max(wait, 0.0))

    async def _ask_redis(self, asked: list[_Question]) -> list[Any] | None:
        """None while Redis is gone."""
        if self._return is not None:
            return None
        keys: list[str] = []
        args: list[float] = []
        for question in asked:
            old = self._slices.pop(question.key, None)
            rate = min(b.limit.rate for b in question.buckets) * self._scale
            args += (len(question.buckets), len(question.calls), int(rate * _SLICE), old.tokens if old else 0)
            for bucket in question.buckets:
                keys.append(bucket.key)
                args += (bucket.limit.rate * self._scale, bucket.limit.burst * self._scale)
        try:
            async with asyncio.timeout(_PATIENCE):
                answers: list[Any] = await self._script(keys, args)
                return answers
        except (RedisError, OSError, TimeoutError) as e:
            log.warning("limits are kept locally: Redis is gone: %r", e)
            self._return = asyncio.get_running_loop().create_task(self._until_back())
            return None

    async def _until_back(self) -> None:
        """Asks beside the calls, so that none waits for a Redis that says nothing."""
        while True:
            await asyncio.sleep(_AGAIN)
            try:
                async with asyncio.timeout(_PATIENCE):
                    await self._redis.ping()
            except (RedisError, OSError, TimeoutError):
                continue
            log.info("Redis is back")
            self._return = None
            return

    def _answer_locally(self, question: _Question, now: float) -> None:
        for call in question.calls:
            if call.done():
                continue
            if any(bucket.limit.fail_closed for bucket in question.buckets):
                text = "sign-in is not possible just now"
                call.set_exception(Unavailable(text, reason="LIMITER_UNAVAILABLE", retry_after=2))
                continue
            levels = [self._level(bucket, now) for bucket in question.buckets]
            if min(levels) < 1:
                call.set_exception(self._refusal(question.buckets, levels))
                continue
            for bucket, level in zip(question.buckets, levels, strict=True):
                self._local[bucket.key] = (level - 1, now)
            call.set_result(min(levels) - 1)

    def _level(self, bucket: Bucket, now: float) -> float:
        """Of this process's share of a bucket."""
        size = self._scale * self._share
        burst = bucket.limit.burst * size
        level, at = self._local.get(bucket.key, (burst, now))
        return min(burst, level + (now - at) * bucket.limit.rate * size)
