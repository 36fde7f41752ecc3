"""Token buckets and quotas, exact across processes: kept in Redis, asked for in one script for all calls that came
while the previous one was under way. A call takes one token of each of its buckets (its account's, its key's, its
model's) or of none. A caller far from all of them gets a slice of tokens ahead, so that most calls ask nobody; what is
left of a slice goes back with the next question.

A quota is a bucket that does not fill up again before its period ends. One that Redis did not know is told what was
recorded of its period before.

Without Redis each process keeps buckets of its own, which begin at the level that was last seen and get the process's
share of the rate: 1 where it is alone, else 1.5 divided by how many there are, so that uneven loads fare well and a
caller gets at most 1.5 times the limit. Limits that protect credentials are refused instead."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from mercat.common.v1 import policy_pb2
from redis.asyncio import Redis
from redis.exceptions import RedisError

from services.common import clock
from services.common.errors import MercatError, QuotaExceeded, RateLimited, ResourceExhausted, Unavailable
from services.common.scripts import Script, source

log = logging.getLogger(__name__)

_SLICE = 0.1  # seconds that a slice is for
_MOST = 100_000  # callers whose slices and levels are remembered
_GATHER = 0.002  # seconds that calls gather before a script call, while they come several at a time
_PATIENCE, _AGAIN = 2.0, 5.0  # seconds that usage may take to count calls, and until it is asked again when it did not
_KEPT = 60.0  # seconds for which a quota is kept after its period, for processes whose clocks differ
ENDLESS = 10**13  # calls: more than any quota, few enough to be exact in 14 digits

Trailers = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Limit:
    """Calls a second, and how many at once after a rest; or with a rate of 0 a quota of `burst` calls in all, `soft`
    of them without a warning."""

    name: str
    rate: float
    burst: int
    fail_closed: bool = False
    soft: int = 0


CLASSES = {
    policy_pb2.RATE_CLASS_READ: Limit("read", 100, 200),
    policy_pb2.RATE_CLASS_WRITE: Limit("write", 20, 60),
    policy_pb2.RATE_CLASS_SIGN_IN: Limit("sign-in", 1, 10, fail_closed=True),
}


class Bucket(NamedTuple):
    """A limit, and whom or what it is of; of a quota also when its period ends, seconds since 1970, which organisation
    hears that it is used up, and of which model it is, if it is of one."""

    limit: Limit
    subject: str
    until: float = 0.0
    org_id: str = ""
    model: str = ""

    @property
    def key(self) -> str:
        return f"limit:{self.limit.name}:{self.subject}"


@dataclass(slots=True)
class _Slice:
    """Tokens taken ahead, to be used until a time (monotonic seconds), what is said of them, and since when they are
    held (seconds since 1970)."""

    tokens: int
    until: float
    trailers: Trailers
    since: float = field(default_factory=time.time)


@dataclass(slots=True)
class _Question:
    """Calls that take of the same buckets. `key` names them together."""

    key: object
    buckets: Sequence[Bucket]
    calls: "list[asyncio.Future[Trailers]]"


class Limiter:
    """Asks the buckets. `scale` multiplies every rate and burst (tests and big installations); `share` is what this
    process gets of them while Redis is gone. `count`, where it is set, tells how many calls of a quota were recorded
    before a time, seconds since 1970; `reached`, where it is set, hears of quotas at their soft end, and of those at
    their hard end at which a call was refused."""

    def __init__(self, redis: "Redis", scale: float = 1.0, share: float = 1.0) -> None:
        self._script = Script(redis, "services.common", "buckets.lua", self._settle)
        self._add = redis.register_script(source("services.common", "quota_add.lua"))
        self._scale = scale
        self._share = share
        self._waiting: dict[object, _Question] = {}
        self._slices: dict[object, _Slice] = {}
        self._local: dict[str, tuple[float, float]] = {}  # level and its time, of one process's share
        self._owed: dict[str, int] = {}  # calls of quotas, counted here while Redis is gone
        self._asking: asyncio.Task[None] | None = None
        self._counting: set[asyncio.Task[None]] = set()
        self._uncounted: dict[str, float] = {}  # quotas that could not be counted, and when to try again
        self.count: Callable[[Bucket, float], Awaitable[int]] | None = None
        self.reached: Callable[[Bucket, bool], None] | None = None

    def take_now(self, key: object) -> Trailers | None:
        """Takes one call from the slice that is held under a key, without waiting; None: `take` must be asked."""
        s = self._slices.get(key)
        if s is None or s.tokens < 1 or time.monotonic() > s.until:
            return None
        s.tokens -= 1
        return s.trailers

    async def take(self, key: object, buckets: Sequence[Bucket]) -> Trailers:
        """Takes one call from each bucket, or from none. `key` stands for these buckets together.

        Returns:
            What the caller is told: calls left in the bucket that has the fewest, and which soft quotas are used up.

        Raises:
            RateLimited, QuotaExceeded: there was none in one of them; names it, and comes with a retry hint.
            Unavailable: a limit fails closed and Redis is gone.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Trailers] = loop.create_future()
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
            told = [float(x) for x in answers[at + 2 : at + 2 + 2 * len(buckets)]]
            levels, since = told[::2], told[1::2]
            at += 2 + 2 * len(buckets)
            for bucket, level in zip(buckets, levels, strict=True):
                self._local[bucket.key] = (level * self._share, now)
            uncounted = [(b, start) for b, start in zip(buckets, since, strict=True) if start and self._counts(b, now)]
            if uncounted:
                self._slices[question.key] = _Slice(given + ahead, 0.0, ())  # goes back with the next question
                task = asyncio.get_running_loop().create_task(self._count_before(question, uncounted))
                self._counting.add(task)
                task.add_done_callback(self._counting.discard)
                continue
            trailers = self._said(buckets, [level + ahead for level in levels])
            if ahead:
                self._slices[question.key] = _Slice(ahead, now + 2 * _SLICE, trailers)
            if given < len(calls):
                self._tell(b for b, level in zip(buckets, levels, strict=True) if level < 1 and not b.limit.rate)
            for n, call in enumerate(calls):
                if call.done():
                    if n < given and not buckets[0].limit.fail_closed:  # a caller who left took none
                        self._slices.setdefault(question.key, _Slice(0, now + _SLICE, trailers)).tokens += 1
                elif n < given:
                    call.set_result(trailers)
                else:
                    call.set_exception(self._refusal(buckets, levels))
        if len(self._slices) > _MOST or len(self._local) > _MOST:
            self._slices.clear()
            self._local.clear()

    async def _ask_redis(self, asked: list[_Question]) -> list[Any] | None:
        """None while Redis is gone."""
        keys: list[str] = []
        args: list[float] = []
        for question in asked:
            old = self._slices.pop(question.key, None)
            rate = min((self._rate(b) for b in question.buckets if b.limit.rate), default=1 / _SLICE)
            back, since = (old.tokens, old.since) if old else (0, 0.0)
            args += (len(question.buckets), len(question.calls), int(rate * _SLICE), back, since)
            for bucket in question.buckets:
                keys.append(bucket.key)
                kept = max(0.0, bucket.until - clock.time_ns() / 1e9) + _KEPT
                args += (self._rate(bucket), self._size(bucket), kept * 1000, bucket.limit.soft)
        return await self._script.run(keys, args)

    def _rate(self, bucket: Bucket) -> float:
        return bucket.limit.rate * self._scale

    def _size(self, bucket: Bucket) -> float:
        return bucket.limit.burst * self._scale if bucket.limit.rate else bucket.limit.burst

    def _said(self, buckets: Sequence[Bucket], levels: Sequence[float], *, exact: bool = True) -> Trailers:
        least = min(levels)
        trailers = [("ratelimit", f'"{buckets[levels.index(least)].limit.name}";r={max(0, int(least))}')]
        for bucket, level in zip(buckets, levels, strict=True):
            limit = bucket.limit
            if exact and limit.soft and (used := int(limit.burst - level)) >= limit.soft:
                end = f"; hard={limit.burst}" if limit.burst < ENDLESS else ""
                trailers.append(("mercat-quota-warning", f"{limit.name}; used={used}; soft={limit.soft}{end}"))
                self._tell([bucket], hard=False)
        return tuple(trailers)

    def _tell(self, quotas: Iterable[Bucket], *, hard: bool = True) -> None:
        if self.reached is not None:
            for bucket in quotas:
                self.reached(bucket, hard)

    def _refusal(self, buckets: Sequence[Bucket], levels: Sequence[float]) -> ResourceExhausted:
        """For the bucket that takes longest to have a call again."""
        waits = [
            (1 - level) / self._rate(b) if b.limit.rate else (b.until - clock.time_ns() / 1e9) * (level < 1)
            for b, level in zip(buckets, levels, strict=True)
        ]
        wait = max(waits)
        bucket = buckets[waits.index(wait)]
        metadata = {"limit": bucket.limit.name}
        if bucket.limit.rate:
            text = f"over the {bucket.limit.name} limit of {self._rate(bucket):g} calls a second; wait {wait:.2f} s"
            return RateLimited(text, metadata=metadata, retry_after=max(wait, 0.0))
        again = datetime.fromtimestamp(bucket.until, UTC)
        text = (
            f"the quota {bucket.limit.name} of {bucket.limit.burst:,} calls is used up until {again:%Y-%m-%d %H:%M} UTC"
        )
        return QuotaExceeded(text, metadata=metadata, retry_after=max(wait, 0.0))

    def _counts(self, bucket: Bucket, now: float) -> bool:
        return self.count is not None and now >= self._uncounted.get(bucket.key, 0.0)

    async def _count_before(self, question: _Question, uncounted: Sequence[tuple[Bucket, float]]) -> None:
        """Adds to quotas what was recorded of their period before they were counted in Redis, and asks again. While
        usage does not answer, calls go on."""
        assert self.count is not None
        for bucket, since in uncounted:
            try:
                async with asyncio.timeout(_PATIENCE):
                    await self._add([bucket.key], [await self.count(bucket, since), "before"])
                self._uncounted.pop(bucket.key, None)
            except (MercatError, RedisError, OSError, TimeoutError) as e:
                log.warning("what was used of %s is not known yet: %r", bucket.key, e)
                self._uncounted[bucket.key] = time.monotonic() + _AGAIN
        waiting = self._waiting.setdefault(question.key, question)
        if waiting is not question:
            waiting.calls += question.calls
        if self._asking is None:
            self._asking = asyncio.get_running_loop().create_task(self._ask_all())

    async def _settle(self) -> None:
        """Adds to the quotas what was counted here while Redis was gone."""
        for key, calls in list(self._owed.items()):
            await self._add([key], [calls])
            self._owed[key] -= calls
        self._owed = {key: calls for key, calls in self._owed.items() if calls}

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
            levels = [level - 1 for level in levels]
            for bucket, level in zip(question.buckets, levels, strict=True):
                self._local[bucket.key] = (level, now)
                if not bucket.limit.rate:
                    self._owed[bucket.key] = self._owed.get(bucket.key, 0) + 1
            call.set_result(self._said(question.buckets, levels, exact=False))

    def _level(self, bucket: Bucket, now: float) -> float:
        """Of this process's share of a bucket."""
        size = self._size(bucket) * self._share
        level, at = self._local.get(bucket.key, (size, now))
        return min(size, level + (now - at) * self._rate(bucket) * self._share)
