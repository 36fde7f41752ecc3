"""Calls under way at a time, of an account, a key or a model: exact across workers.

Each worker holds slots of those it serves, written down in Redis with the time until which it holds them, so that those
of a worker that died come free by themselves. It asks for more when all it has are taken, gets a 16th of what is left
ahead, and gives back what it does not need, so that a refused call could at most have had one of a 16th of the slots.
Without Redis each worker gives out its share of the limit: 1.5 divided by how many there are."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from redis.asyncio import Redis

from services.common.errors import ResourceExhausted
from services.common.scripts import Script

_SILENT = 10.0  # seconds for which a worker's slots are its own without its saying so
_RENEW = 2.0  # seconds between its saying so
_GATHER = 0.005  # seconds that slots to give back gather
_AT_ONCE = 500  # keys of one script call


class ConcurrencyLimited(ResourceExhausted, reason="CONCURRENCY_LIMITED"):
    """As many calls are under way as may be."""


@dataclass(slots=True, eq=False)
class Held:
    """What this worker has of somebody's slots."""

    name: str
    key: str
    limit: int = 0
    leased: int = 0
    used: int = 0
    lately: bool = True  # used since it was last renewed
    waiting: "list[asyncio.Future[None]]" = field(default_factory=list)

    @property
    def surplus(self) -> int:
        """Slots to give back: those beyond a few for the calls that come next."""
        return max(0, self.leased - self.used - (self.limit >> 4))


class Slots:
    """Gives out slots. `scale` and `share` as for `Limiter`."""

    def __init__(self, redis: "Redis", worker_id: str, scale: float = 1.0, share: float = 1.0) -> None:
        self._script = Script(redis, "services.inference", "slots.lua")
        self._worker_id = worker_id
        self._scale = scale
        self._share = share
        self._held: dict[str, Held] = {}
        self._wanted: set[Held] = set()  # those with calls that wait, or slots to give back
        self._asking: asyncio.Task[None] | None = None

    async def enter(self, wanted: Sequence[tuple[str, str, int]]) -> list[Held]:
        """Takes a slot of each of them (name, subject, limit), or of none.

        Raises:
            ConcurrencyLimited: names the limit.
        """
        entered: list[Held] = []
        try:
            for name, subject, limit in wanted:
                held = self._held.get(subject)
                if held is None:
                    held = self._held[subject] = Held(name, f"slots:{name}:{subject}")
                held.limit = int(limit * self._scale)
                if held.used < held.leased:
                    held.used += 1
                else:
                    await self._wait(held)
                entered.append(held)
        except BaseException:
            self.leave(entered)
            raise
        return entered

    def leave(self, entered: Sequence[Held]) -> None:
        """Gives the slots back that `enter` took."""
        for held in entered:
            held.used -= 1
            held.lately = True
            if held.leased - held.used > held.limit >> 4:
                self._ask(held)

    async def _wait(self, held: Held) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        held.waiting.append(future)
        self._ask(held)
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self.leave([held])
            raise

    def _ask(self, held: Held) -> None:
        self._wanted.add(held)
        if self._asking is None:
            self._asking = asyncio.get_running_loop().create_task(self._ask_all())

    async def _ask_all(self) -> None:
        try:
            while self._wanted:
                if not any(held.waiting for held in self._wanted):
                    await asyncio.sleep(_GATHER)
                asked, self._wanted = list(self._wanted), set()
                await self._settle(asked)
        finally:
            self._asking = None

    async def _settle(self, asked: list[Held]) -> None:
        """One question for several. Only this changes what is leased, one question at a time."""
        args: list[float | str] = [self._worker_id, _SILENT]
        calls: list[list[asyncio.Future[None]]] = []
        for held in asked:
            held.leased -= held.surplus
            waiting, held.waiting = [call for call in held.waiting if not call.done()], []
            calls.append(waiting)
            args += (held.leased, len(waiting), held.limit if waiting else 0, held.limit)
        answers = await self._script.run([held.key for held in asked], args)
        for n, (held, waiting) in enumerate(zip(asked, calls, strict=True)):
            if answers is not None:
                given, ahead = int(answers[2 * n]), int(answers[2 * n + 1])
            else:
                given, ahead = max(0, min(len(waiting), max(1, int(held.limit * self._share)) - held.leased)), 0
            held.leased += given + ahead
            for call in waiting:
                if call.done():
                    continue
                if held.used < held.leased:
                    held.used += 1
                    call.set_result(None)
                else:
                    text = f"{held.limit:,} calls of this {held.name} are under way, as many as may be at a time"
                    call.set_exception(ConcurrencyLimited(text, metadata={"limit": held.name}, retry_after=0.1))
            if held.surplus:
                self._wanted.add(held)  # a caller who left, or calls that ended meanwhile

    async def keep(self) -> None:
        """Says what this worker holds, again and again."""
        while True:
            await asyncio.sleep(_RENEW)
            for held in list(self._held.values()):
                if not held.lately and not held.used and not held.waiting:
                    held.limit = 0  # nothing is kept for calls to come
                    if not held.leased:
                        del self._held[held.key.split(":", 2)[2]]
                        continue
                held.lately = False
                self._wanted.add(held)
                if len(self._wanted) >= _AT_ONCE:
                    await self._flushed()
            await self._flushed()

    async def _flushed(self) -> None:
        if self._wanted and self._asking is None:
            self._asking = asyncio.get_running_loop().create_task(self._ask_all())
        if self._asking is not None:
            await asyncio.shield(self._asking)
