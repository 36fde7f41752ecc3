"""One job, while this worker runs it.

Its entries run many at a time; their outcomes are kept in order, part by part: first the part is stored, then its row
and the job's progress are written in one transaction that holds only for whoever has the claim. Dying between any two
of these costs work and nothing else: the next worker begins behind the last part, under the same request ids, so that
an entry that ran twice counts once."""

import asyncio
import logging
import random
import time
from collections import deque
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from mercat.auth.v1 import auth_pb2
from mercat.inference.v1 import inference_pb2

from services.common import failpoints, ids
from services.common.clock import Clock
from services.common.db import Database
from services.common.errors import (
    Aborted,
    BudgetExceeded,
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    InsufficientCredit,
    MercatError,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    to_status,
)
from services.common.rpc import tags
from services.common.rpc.context import Call
from services.inference import entries
from services.inference.entries import Outcome, Predict
from services.inference.job_objects import JobObjects
from services.inference.job_store import JobStore, Row
from services.inference.owners import Owners
from services.inference.tickets import TooLate

log = logging.getLogger(__name__)
HELD = timedelta(seconds=6)  # that a claim lives without renewal
_BEAT = 1.5  # seconds between renewals
_OWNER_STALE = 30.0  # seconds that a job goes on while auth cannot be asked
_AHEAD = 32  # entries under way: what those who wait for an answer may have before them
_PART_ENTRIES, _PART_BYTES, _PART_SECONDS = 100, 4 << 20, 0.5  # with any of which a part is stored
_GRACE = 2.0  # seconds that entries under way have when a job ends early
_PATIENCE = 120.0  # seconds that an entry is tried again while the platform has no room for it
_TRIES = 3  # of an entry that does not end in time
_ATTEMPTS = 5  # claims without progress: then it is the job that kills its workers
_REPEATABLE = 3600  # seconds for which an entry may be made again, its worker having died
_METHOD = "/mercat.inference.v1.JobService/CreateJob"


@dataclass(frozen=True)
class Tools:
    """What every run uses. `predict` runs a request behind the calls of those who wait for theirs."""

    database: Database
    store: JobStore
    objects: JobObjects
    owners: Owners
    clock: Clock
    predict: Predict
    retention: timedelta


@dataclass(frozen=True)
class Halt:
    """Why a run stops before its last entry: the state the job ends in, or "" for one that is left to others."""

    state: str
    error: MercatError | None = None
    mine: bool = True  # False: the claim is lost, nothing may be written


RELEASE, LOST = Halt(""), Halt("", mine=False)


class JobRun:
    """Runs a claimed job. `work` answers the job's last row, or None when it is left to others."""

    def __init__(self, tools: Tools, job: Row) -> None:
        self._tools = tools
        self._job = job
        self._who = (job["user_id"], job["key_id"], job["org_id"])
        self._principal = auth_pb2.Principal()
        self._tags = tags.read([job["tags"]]) if job["tags"] else ()
        self._halt: asyncio.Future[Halt] = asyncio.get_running_loop().create_future()
        self._nudged = asyncio.Event()
        self._kept: list[inference_pb2.PredictResult] = []  # in order, not stored yet
        self._kept_bytes = 0
        self._next = int(job["done"])  # the first entry that is not stored
        self._stored_at = time.monotonic()

    def halt(self, why: Halt) -> None:
        if not self._halt.done():
            self._halt.set_result(why)

    def nudge(self) -> None:
        """Has the job's row looked at now: it may have been cancelled."""
        self._nudged.set()

    async def work(self) -> Row | None:
        """Raises MercatError when the platform's own parts are away."""
        left = (self._job["deadline"] - self._tools.clock.now()).total_seconds()
        deadline = asyncio.get_running_loop().call_later(max(left, 0), self.halt, Halt("expired"))
        keeper = asyncio.create_task(self._keep())
        try:
            if self._job["attempts"] > _ATTEMPTS:
                text = f"the job was begun {_ATTEMPTS} times and each time its worker died"
                self.halt(Halt("failed", FailedPrecondition(text, reason="JOB_ATTEMPTS_EXHAUSTED")))
            elif self._job["cancelled_at"] is not None:
                self.halt(Halt("cancelled"))
            elif left <= 0:
                self.halt(Halt("expired"))
            else:
                await self._run_entries()
            return await self._end()
        except MercatError:
            await self._release()
            raise
        finally:
            deadline.cancel()
            keeper.cancel()

    # Entries

    async def _run_entries(self) -> None:
        try:
            self._principal = await self._tools.owners.get(*self._who)
            requests = (await self._tools.objects.request(self._job["body"])).requests
        except (Unauthenticated, PermissionDenied) as e:
            self.halt(Halt("failed", e))
            return
        except NotFound:
            self.halt(Halt("failed", DataLoss("the job's request is not in storage any more", reason="JOB_LOST")))
            return
        under_way: deque[asyncio.Task[Outcome]] = deque()
        following = self._next
        try:
            while not self._halt.done():
                while following < len(requests) and len(under_way) < _AHEAD:
                    under_way.append(asyncio.create_task(self._entry(following, requests[following])))
                    following += 1
                if not under_way:
                    break
                either: set[asyncio.Future[Any]] = {under_way[0], self._halt}
                patience = _PART_SECONDS if self._kept else None
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED, timeout=patience)
                self._take(under_way)
                if self._full():
                    await self._store_part()
            if self._halt.done() and self._halt.result().mine and under_way:
                await asyncio.wait(under_way, timeout=_GRACE)
                self._take(under_way)
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)
        await self._store_part()

    def _take(self, under_way: "deque[asyncio.Task[Outcome]]") -> None:
        while under_way and under_way[0].done():
            found = under_way.popleft().result()
            result = entries.result(self._next + len(self._kept), found)
            self._kept.append(result)
            self._kept_bytes += result.ByteSize()

    async def _entry(self, index: int, request: inference_pb2.PredictRequest) -> Outcome:
        """Runs an entry; while the platform has no room for it, again and again."""
        identifier = entries.request_id(self._job["id"], index)
        began, wait, tries = time.monotonic(), 0.1, 0
        while True:
            tries += 1
            call = Call(
                identifier, _METHOD, ids.milliseconds(identifier), self._principal, repeatable=_REPEATABLE,
                tags=self._tags,
            )  # fmt: skip
            try:
                return await entries.run(self._tools.predict, call, request)
            except MercatError as e:
                if not _passes(e, tries) or time.monotonic() - began > _PATIENCE:
                    return to_status(e, identifier)
                await asyncio.sleep(max(wait, min(e.retry_after or 0.0, 5.0)) * random.uniform(0.8, 1.2))  # noqa: S311
                wait = min(wait * 2, 5.0)

    def _full(self) -> bool:
        return bool(self._kept) and (
            len(self._kept) >= _PART_ENTRIES
            or self._kept_bytes >= _PART_BYTES
            or time.monotonic() - self._stored_at >= _PART_SECONDS
        )

    async def _store_part(self) -> None:
        if not self._kept or (self._halt.done() and not self._halt.result().mine):
            return
        tools, job = self._tools, self._job
        part, self._kept, self._kept_bytes = self._kept, [], 0
        failures = [r.error for r in part if r.HasField("error")]
        failpoints.passing("jobs.before_part")
        name = await tools.objects.put(
            job["id"], f"{job['claim']}-{self._next}", inference_pb2.BatchPredictResponse(results=part)
        )
        failpoints.passing("jobs.part_stored")
        async with tools.database.transaction() as connection:
            row = await tools.store.save_part(
                connection, job["id"], job["claim"], first=self._next, last=self._next + len(part) - 1,
                object_name=name, failed=len(failures), cost=sum(r.response.cost_nanos for r in part),
                error=failures[0].SerializeToString() if failures else None,
            )  # fmt: skip
        if row is None:
            self.halt(LOST)
            return
        failpoints.passing("jobs.part_kept")
        self._job, self._next, self._stored_at = row, row["done"], time.monotonic()

    # The claim

    async def _keep(self) -> None:
        """Renews the claim, and looks who the owner is now, until the run ends."""
        tools, loop = self._tools, asyncio.get_running_loop()
        held = known = loop.time()
        while not self._halt.done():
            try:
                async with tools.database.connection() as connection:
                    until = tools.clock.now() + HELD
                    row = await tools.store.hold_job(connection, self._job["id"], self._job["claim"], until)
                if row is None:
                    self.halt(LOST)
                elif row["cancelled_at"] is not None:
                    self.halt(Halt("cancelled"))
                held = loop.time()
            except MercatError as e:
                log.warning("%s is not renewed: %s", self._job["id"], e)
                if loop.time() - held > HELD.total_seconds() - _BEAT:
                    self.halt(LOST)
            try:
                self._principal = await tools.owners.get(*self._who)
                known = loop.time()
            except (Unauthenticated, PermissionDenied) as e:
                self.halt(Halt("failed", e))
            except MercatError as e:
                log.warning("the owner of %s cannot be asked for: %s", self._job["id"], e)
                if loop.time() - known > _OWNER_STALE:
                    self.halt(RELEASE)
            self._nudged.clear()
            try:
                async with asyncio.timeout(_BEAT):
                    await self._nudged.wait()
            except TimeoutError:
                pass

    async def _release(self) -> None:
        async with self._tools.database.transaction() as connection:
            await self._tools.store.release_job(
                connection, self._job["id"], self._job["claim"], self._tools.clock.now()
            )

    async def _end(self) -> Row | None:
        tools, job, now = self._tools, self._job, self._tools.clock.now()
        halt = self._halt.result() if self._halt.done() else None
        if halt is not None and not halt.mine:
            return None
        if halt is None or self._next == job["entries"]:  # what has all run has ended, whatever came meanwhile
            failed = job["failed"] == job["entries"]
            halt = Halt("failed" if failed else "succeeded")
        if not halt.state:
            await self._release()
            return None
        error = to_status(halt.error).SerializeToString() if halt.error is not None else job["error"]
        async with tools.database.transaction() as connection:
            return await tools.store.end_job(
                connection, job["id"], job["claim"], state=halt.state, error=error, now=now,
                expires_at=now + tools.retention,
            )  # fmt: skip


def _passes(error: MercatError, tries: int) -> bool:
    """Whether the entry may well run in a while: nothing is wrong with it, or one cannot know."""
    if isinstance(error, InsufficientCredit | BudgetExceeded):
        return False
    if isinstance(error, Unavailable | ResourceExhausted | Aborted | TooLate):
        return True
    return isinstance(error, DeadlineExceeded) and tries < _TRIES
