"""Which units of a month a call's are, for prices that depend on it: counters in Redis of organisation, model and
month, by meter, asked for in one script for all calls of the moment. They are advanced when a call has run, so that one
that fails takes none.

A counter that Redis does not know is counted from usage, once all is stored there that was recorded before Redis lost
it. Without Redis each worker counts for itself, on what usage has recorded, which it asks again every two seconds: a
call's position is then too low by at most what other workers ran since, about three seconds' worth."""

import asyncio
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from mercat.usage.v1 import usage_pb2, usage_pb2_grpc
from redis.asyncio import Redis

from services.common.errors import Unavailable
from services.common.rpc.channels import InternalChannel
from services.common.scripts import Script, source
from services.inference.allowance import span

log = logging.getLogger(__name__)
_SINCE = "positions"  # the key that says since when Redis has the counters
_KEPT = 2 * 86_400  # seconds that a counter outlives its month and its last call, for calls that began in it
_FRESH = 1.0  # seconds for which what was seen is good enough to hold money by
_UNDER_WAY = 1.0  # seconds from taking a position until the record is in the stream, and more
_PATIENCE, _AGAIN = 5.0, 2.0  # seconds that counting may take, and until usage is asked again without Redis
_POLL = 0.05  # seconds
_MOST = 100_000  # counters remembered

Units = Mapping[str, int]
_NONE: Units = {}


class Key(NamedTuple):
    """Whose units, of which model, and in which month (`2026-11`, UTC)."""

    org_id: str
    model_id: str
    month: str

    @property
    def name(self) -> str:
        return f"position:{self.org_id}:{self.model_id}:{self.month}"

    def span(self) -> tuple[datetime, datetime]:
        return span("monthly", datetime.fromisoformat(f"{self.month}-01").replace(tzinfo=UTC))


def key_of(org_id: str, model_id: str, arrived_ms: int) -> Key:
    """Of a call that arrived so many milliseconds after 1970."""
    t = time.gmtime(arrived_ms / 1000)
    return Key(org_id, model_id, f"{t.tm_year}-{t.tm_mon:02}")


@dataclass(slots=True)
class _Known:
    """What this worker knows of a counter. Times are monotonic seconds."""

    units: dict[str, int] = field(default_factory=dict)  # as last seen
    seen: float = -math.inf
    counted: float = -math.inf  # when usage was last asked
    under_way: dict[str, int] = field(default_factory=dict)  # by calls of this worker
    owed: dict[str, int] = field(default_factory=dict)  # taken here while Redis was gone

    def add(self, units: Units) -> None:
        for meter, count in units.items():
            self.units[meter] = self.units.get(meter, 0) + count

    def raise_to(self, units: Units) -> None:
        for meter, count in units.items():
            self.units[meter] = max(self.units.get(meter, 0), count)


@dataclass(slots=True)
class _Question:
    """Units to take, none to look only. `since`: when the price began that asks, seconds since 1970. `again`: the id of
    a call that may be made again, and for how many seconds. `expected`: what `expect` began of it, until it ends."""

    key: Key
    units: Units
    since: float
    again: tuple[str, int] | None
    expected: Units
    answer: "asyncio.Future[dict[str, int]]"


class Positions:
    """Gives out positions."""

    def __init__(self, redis: "Redis", channel: InternalChannel) -> None:
        self._script = Script(redis, "services.inference", "positions.lua", self._settle)
        self._add = redis.register_script(source("services.inference", "positions_add.lua"))
        self._usage = usage_pb2_grpc.SettlementServiceStub(channel)
        self._known: dict[Key, _Known] = {}
        self._waiting: list[_Question] = []
        self._missing: dict[Key, list[_Question]] = {}  # those that wait until their counter is counted
        self._asking: asyncio.Task[None] | None = None
        self._counting: set[asyncio.Task[None]] = set()

    async def expect(self, key: Key, units: Units, since: float) -> dict[str, int]:
        """About where a call will be that may take so many units, for the money that it holds: as last seen, behind the
        calls that are under way in this worker. Ends with `forget`. Raises as `take`."""
        known = self._known.get(key)
        if known is None or time.monotonic() - known.seen > _FRESH or not units.keys() <= known.units.keys():
            await self.take(key, dict.fromkeys(units, 0), since)
            known = self._of(key)
        about: dict[str, int] = {}
        for meter, count in units.items():
            before = known.under_way.get(meter, 0)
            about[meter] = known.units.get(meter, 0) + before
            known.under_way[meter] = before + count
        return about

    def forget(self, key: Key, units: Units) -> None:
        """Ends what `expect` began."""
        under_way = self._of(key).under_way
        for meter, count in units.items():
            if left := under_way.get(meter, 0) - count:
                under_way[meter] = left
            else:
                under_way.pop(meter, None)

    async def take(
        self, key: Key, units: Units, since: float, again: tuple[str, int] | None = None, expected: Units = _NONE
    ) -> dict[str, int]:  # fmt: skip
        """Takes units of a month; answers how many there were before them, by meter. `since`: when the price began that
        asks, seconds since 1970. `again`: the id of a call that may be made again, and for how many seconds: then it
        gets the same answer, and nothing is taken twice. `expected`: what `expect` began of it, which ends when the
        units are taken, or with the error: no other call may count them twice meanwhile.

        Raises:
            Unavailable: neither Redis nor usage can be asked, and nothing is known here.
        """
        loop = asyncio.get_running_loop()
        question = _Question(key, units, since, again, expected, loop.create_future())
        self._waiting.append(question)
        self._ask()
        try:
            return await question.answer
        finally:
            self._end(question)

    def _end(self, q: _Question) -> None:
        expected, q.expected = q.expected, _NONE
        self.forget(q.key, expected)

    def _of(self, key: Key) -> _Known:
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= _MOST:
                self._known = {k: v for k, v in self._known.items() if v.under_way or v.owed}
            known = self._known[key] = _Known()
        return known

    def _ask(self) -> None:
        if self._asking is None:
            self._asking = asyncio.get_running_loop().create_task(self._ask_all())

    async def _ask_all(self) -> None:
        try:
            while self._waiting:
                asked, self._waiting = self._waiting, []
                keys: list[str] = [_SINCE]
                args: list[float | str] = []
                for q in asked:
                    request_id, seconds = q.again or ("", 0)
                    keys += (q.key.name, f"position:{request_id}")
                    args += (len(q.units), _kept_ms(q.key), seconds * 1000)
                    for meter, count in q.units.items():
                        args += (meter, count)
                answers = await self._script.run(keys, args)
                if answers is None:
                    for q in asked:
                        self._answer_without(q)
                    continue
                lost, at, now = float(answers[0]), 1, time.monotonic()
                for q in asked:
                    found = dict(zip(q.units, map(int, answers[at : at + len(q.units)]), strict=True))
                    at += len(q.units)
                    if -1 in found.values():
                        self._count(q, max(lost, q.since) + _UNDER_WAY)
                        continue
                    known = self._of(q.key)
                    known.raise_to({meter: before + q.units[meter] for meter, before in found.items()})
                    known.seen = now
                    self._end(q)
                    _answer(q, found)
        finally:
            self._asking = None

    def _answer_without(self, q: _Question) -> None:
        """While Redis is gone."""
        if time.monotonic() - self._of(q.key).counted > _AGAIN:
            self._count(q, None)
        else:
            self._answer_here(q, owed=True)

    def _answer_here(self, q: _Question, *, owed: bool) -> None:
        known = self._of(q.key)
        if known.seen == known.counted == -math.inf:
            text = "what was used of this month is not known just now"
            if not q.answer.done():
                q.answer.set_exception(Unavailable(text, reason="METERING_UNAVAILABLE", retry_after=1))
            return
        before = {meter: known.units.get(meter, 0) for meter in q.units}
        known.add(q.units)
        self._end(q)
        if owed:
            for meter, count in q.units.items():
                known.owed[meter] = known.owed.get(meter, 0) + count
        _answer(q, before)

    def _count(self, q: _Question, after: float | None) -> None:
        """Counts from usage, and answers then."""
        if (waiting := self._missing.get(q.key)) is not None:
            waiting.append(q)
            return
        self._missing[q.key] = [q]
        task = asyncio.get_running_loop().create_task(self._count_all(q.key, after))
        self._counting.add(task)
        task.add_done_callback(self._counting.discard)

    async def _count_all(self, key: Key, after: float | None) -> None:
        """`after`: what was recorded until then must be stored, seconds since 1970; None: Redis is gone, and what is
        stored will do."""
        counted = False
        try:
            async with asyncio.timeout(_PATIENCE):
                if after is not None:
                    await self._settled(after)
                used = await self._sum(key)
                for q in self._missing[key]:
                    for meter in q.units:
                        used.setdefault(meter, 0)
                if after is not None:
                    begun = [x for meter, units in used.items() for x in (meter, units)]
                    await self._add([key.name], [_kept_ms(key), 1, *begun])
            known = self._of(key)
            known.raise_to(used)
            known.counted = time.monotonic()
            counted = True
        except Exception as e:  # whatever it is, those who wait are answered
            log.warning("what was used of %s is not known yet: %r", key.name, e)
        questions = self._missing.pop(key)
        if counted and after is not None:
            self._waiting += questions
            self._ask()
            return
        for q in questions:
            self._answer_here(q, owed=after is None)

    async def _settled(self, after: float) -> None:
        while True:
            answer: usage_pb2.GetWatermarkResponse = await self._usage.GetWatermark(usage_pb2.GetWatermarkRequest())
            if answer.settled_through.ToNanoseconds() >= after * 1e9:
                return
            await asyncio.sleep(_POLL)

    async def _sum(self, key: Key) -> dict[str, int]:
        request = usage_pb2.SumUnitsRequest(org_id=key.org_id, model_id=key.model_id)
        start, end = key.span()
        request.start_time.FromDatetime(start)
        request.end_time.FromDatetime(end)
        return dict((await self._usage.SumUnits(request)).units)

    async def _settle(self) -> None:
        """Adds to the counters what was taken here while Redis was gone; one that it forgot is counted from usage."""
        for key, known in list(self._known.items()):
            if known.owed:
                owed, known.owed = known.owed, {}
                try:
                    await self._add([key.name], [_kept_ms(key), 0, *(x for pair in owed.items() for x in pair)])
                except BaseException:
                    known.owed = {meter: owed.get(meter, 0) + known.owed.get(meter, 0) for meter in owed | known.owed}
                    raise


def _answer(q: _Question, before: dict[str, int]) -> None:
    if not q.answer.done():
        q.answer.set_result(before)


def _kept_ms(key: Key) -> int:
    return int((max(key.span()[1].timestamp() - time.time(), 0.0) + _KEPT) * 1000)
