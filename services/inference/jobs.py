"""The workers' side of jobs: takes them from the queue, looks for those that nobody brings, ends and forgets them in
their time.

JetStream carries job ids; rows are the truth. A message is acknowledged when its job has ended, and a job whose message
is lost, or whose worker died, is found by its row."""

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from datetime import timedelta

import nats
from nats.aio.msg import Msg

from services.common import ids
from services.common.errors import MercatError
from services.common.events import JOB_STREAM, JOB_SUBJECT, Events, broadcast, listen
from services.inference.job_run import HELD, RELEASE, JobRun, Tools

log = logging.getLogger(__name__)
CHANGED = "mercat.live.job."  # and the job's id: look at its row again
DURABLE = "jobs"
_ACK_WAIT = 6.0  # seconds until a dead worker's message comes back
_LOOK = 2.0  # seconds between looks for what nobody brings
_BROUGHT = timedelta(seconds=5)  # in which a queued job's message should have come
_SWEPT_AT_ONCE = 100


class Jobs:
    """Runs up to `slots` jobs at a time."""

    def __init__(self, tools: Tools, events: Events, slots: int) -> None:
        self._tools = tools
        self._events = events
        self._slots = asyncio.Semaphore(slots)
        self._runs: dict[str, JobRun] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False

    async def listen(self) -> None:
        """Hears of jobs that were cancelled."""

        async def changed(message: Msg) -> None:
            if (run := self._runs.get(message.subject.removeprefix(CHANGED))) is not None:
                run.nudge()

        await listen(self._events, CHANGED + "*", changed)

    async def work(self) -> None:
        """Takes jobs from the queue, for ever; a message only when there is a slot for it."""
        async for messages in self._events.pull(JOB_STREAM, DURABLE, [JOB_SUBJECT], batch=1, ack_wait=_ACK_WAIT):
            for message in messages:
                await self._slots.acquire()
                self._start(self._bring(message))
            async with self._slots:
                pass

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: self._slots.release())

    async def _bring(self, message: Msg) -> None:
        job_id = message.data.decode(errors="replace")
        holding = asyncio.create_task(_hold(message))
        try:
            ended = await self._run(job_id)
        except Exception:
            log.exception("%s could not be run", job_id)
            ended = False
        finally:
            holding.cancel()
        with contextlib.suppress(nats.errors.Error):
            await (message.ack() if ended else message.nak(delay=0.1 if self._stopping else _ACK_WAIT))

    async def _run(self, job_id: str) -> bool:
        """Claims a job and runs it. Answers whether there is nothing left to do."""
        tools, now = self._tools, self._tools.clock.now()
        if self._stopping or job_id in self._runs:
            return False
        async with tools.database.connection() as connection:
            job = await tools.store.claim_job(connection, job_id, ids.new("clm"), now, now + HELD)
            if job is None:
                return await tools.store.has_ended(connection, job_id)
        run = self._runs[job_id] = JobRun(tools, job)
        if self._stopping:
            run.halt(RELEASE)
        try:
            await self._tell(job_id)
            last = await run.work()
        except MercatError as e:
            log.warning("%s is left to others: %s", job_id, e)
            return False
        finally:
            del self._runs[job_id]
        await self._tell(job_id)
        return last is not None

    async def _tell(self, job_id: str) -> None:
        with contextlib.suppress(nats.errors.Error):  # watchers look again by themselves
            await broadcast(self._events, CHANGED + job_id, b"")

    async def look(self) -> None:
        """Takes up jobs that no message brings, and ends and forgets those whose time has come, for ever."""
        while True:
            await asyncio.sleep(_LOOK)
            try:
                await self._sweep()
                await self._find_strays()
            except MercatError as e:
                log.warning("jobs are not looked after: %s", e)

    async def _find_strays(self) -> None:
        tools = self._tools
        while not self._slots.locked() and not self._stopping:
            now = tools.clock.now()
            async with tools.database.connection() as connection:
                job_id = await tools.store.find_stray(connection, now, now - _BROUGHT)
            if job_id is None:
                return
            await self._slots.acquire()
            self._start(self._take_up(job_id))
            await asyncio.sleep(0.05)  # for its claim, so that the next look finds another

    async def _take_up(self, job_id: str) -> None:
        try:
            await self._run(job_id)
        except Exception:
            log.exception("%s could not be run", job_id)

    async def _sweep(self) -> None:
        tools, now = self._tools, self._tools.clock.now()
        async with tools.database.transaction() as connection:
            rows = await tools.store.expire_queued(connection, now, now + tools.retention, _SWEPT_AT_ONCE)
        for row in rows:
            await self._tell(row["id"])
        async with tools.database.connection() as connection:
            expired = await tools.store.list_expired(connection, now, _SWEPT_AT_ONCE)
        for job_id in expired:
            await forget(tools, job_id)

    async def stop(self) -> None:
        """Leaves its jobs to the other workers: what has run is kept."""
        self._stopping = True
        for run in self._runs.values():
            run.halt(RELEASE)
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=10)


async def forget(tools: Tools, job_id: str) -> None:
    """Removes what an expired job keeps, then its row: a death in between leaves the row, and so the rest of the
    work, to the next sweep."""
    await tools.objects.delete(job_id)
    async with tools.database.connection() as connection:
        await tools.store.delete_job(connection, job_id, tools.clock.now())


async def _hold(message: Msg) -> None:
    """Tells the stream that the message is being worked on."""
    while True:
        await asyncio.sleep(_ACK_WAIT / 3)
        with contextlib.suppress(nats.errors.Error):
            await message.in_progress()
