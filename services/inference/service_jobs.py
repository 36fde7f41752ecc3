"""The callers' side of jobs.

Making one takes three steps: its row, its request in storage, and then, in one transaction, its place in the queue. A
death after the first leaves a row that nobody sees and the sweep removes; the same call, made again, completes it."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from datetime import timedelta

import nats
from mercat.inference.v1 import inference_pb2, inference_pb2_grpc

from services.common import ids, outbox, pages
from services.common.errors import (
    DataLoss,
    FailedPrecondition,
    InvalidFields,
    NotFound,
    ResourceExhausted,
    Unavailable,
    Violation,
)
from services.common.events import JOB_SUBJECT, Events, broadcast, listen
from services.common.rpc import tags
from services.common.rpc.context import Context, caller, current
from services.inference.job_run import Tools
from services.inference.job_store import ENDED, Row, message
from services.inference.jobs import CHANGED, forget

log = logging.getLogger(__name__)
_TIMEOUT, _LONGEST = timedelta(hours=24), timedelta(days=7)
_MAKING = timedelta(minutes=10)  # in which a job's request must have been stored
_LOOK = 1.0  # seconds after which a watcher looks again by itself


class JobNotFound(NotFound, reason="JOB_NOT_FOUND"): ...


class JobUnfinished(FailedPrecondition, reason="JOB_UNFINISHED"): ...


class TooManyJobs(ResourceExhausted, reason="TOO_MANY_JOBS"): ...


class JobServicer(inference_pb2_grpc.JobServiceServicer):
    """Serves `mercat.inference.v1.JobService`."""

    def __init__(self, tools: Tools, events: Events, most_unfinished: int) -> None:
        self._tools = tools
        self._events = events
        self._most_unfinished = most_unfinished

    async def CreateJob(
        self, request: inference_pb2.CreateJobRequest, context: Context
    ) -> inference_pb2.CreateJobResponse:
        kind = request.WhichOneof("work")
        if kind is None:
            raise InvalidFields(violations=[Violation("work", "give `predict` or `batch`")])
        timeout = _timeout(request)
        work = request.batch if kind == "batch" else inference_pb2.BatchPredictRequest(requests=[request.predict])
        # The id of the call is the same when it is made again with its idempotency key, and so is the job's.
        job_id = ids.sibling("job", current().request_id)
        if not await self._add(job_id, work, timeout):
            return inference_pb2.CreateJobResponse(job=message(await self._get(job_id)))
        tools = self._tools
        body = await tools.objects.put(job_id, ids.new("bdy"), work)
        async with tools.database.transaction() as connection:
            row = await tools.store.queue_job(connection, job_id, body)
            if row is not None:
                await outbox.add_message(connection, JOB_SUBJECT, job_id.encode())
        return inference_pb2.CreateJobResponse(job=message(row or await self._get(job_id)))

    async def _add(self, job_id: str, work: inference_pb2.BatchPredictRequest, timeout: timedelta) -> bool:
        """The row of a job that is being made; False when it was made before."""
        principal, tools, now = caller(), self._tools, self._tools.clock.now()
        async with tools.database.transaction() as connection:
            unfinished = await tools.store.count_unfinished(connection, principal.org_id)
            if await tools.store.get_job(connection, job_id, principal.org_id, now) is not None:
                return False
            if unfinished >= self._most_unfinished:
                raise TooManyJobs(
                    f"you have {unfinished} unfinished jobs, and may have {self._most_unfinished}; wait until one has"
                    " ended, or cancel one", retry_after=5,
                )  # fmt: skip
            await tools.store.add_job(
                connection, job_id=job_id, org_id=principal.org_id, user_id=principal.user_id, key_id=principal.key_id,
                model=work.requests[0].model, entries=len(work.requests), tags=tags.show(current().tags), now=now,
                deadline=now + timeout, expires_at=now + _MAKING,
            )  # fmt: skip
        return True

    async def GetJob(self, request: inference_pb2.GetJobRequest, context: Context) -> inference_pb2.GetJobResponse:
        return inference_pb2.GetJobResponse(job=message(await self._get(request.job_id)))

    async def _get(self, job_id: str) -> Row:
        tools = self._tools
        async with tools.database.connection() as connection:
            row = await tools.store.get_job(connection, job_id, caller().org_id, tools.clock.now())
        if row is None:
            raise JobNotFound("you have no such job; one that has ended is kept for a while only")
        return row

    async def ListJobs(
        self, request: inference_pb2.ListJobsRequest, context: Context
    ) -> inference_pb2.ListJobsResponse:
        tools = self._tools
        key, most = pages.decode(request.page_token, str), pages.size(request.page_size)
        async with tools.database.connection() as connection:
            rows = await tools.store.list_jobs(
                connection, caller().org_id, state=_state(request.state), before=str(key[0]) if key else None,
                now=tools.clock.now(), most=most + 1,
            )  # fmt: skip
        token = pages.encode([rows[most - 1]["id"]]) if len(rows) > most else ""
        return inference_pb2.ListJobsResponse(jobs=[message(r) for r in rows[:most]], next_page_token=token)

    async def WatchJob(
        self, request: inference_pb2.WatchJobRequest, context: Context
    ) -> AsyncIterator[inference_pb2.WatchJobResponse]:
        changed = asyncio.Event()

        async def heard(_: object) -> None:
            changed.set()

        row = await self._get(request.job_id)  # nobody else's changes are heard of
        stop = await listen(self._events, CHANGED + request.job_id, heard)
        shown: inference_pb2.Job | None = None
        try:
            while True:
                job = message(row)
                if job != shown:
                    shown = job
                    yield inference_pb2.WatchJobResponse(job=job)
                if row["state"] in ENDED:
                    return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK):
                        await changed.wait()
                changed.clear()
                row = await self._get(request.job_id)
        finally:
            await stop()

    async def GetJobResult(
        self, request: inference_pb2.GetJobResultRequest, context: Context
    ) -> AsyncIterator[inference_pb2.GetJobResultResponse]:
        row, tools = await self._get(request.job_id), self._tools
        if row["state"] not in ENDED:
            raise JobUnfinished("the job has not ended; watch it, and ask again then", retry_after=1)
        async with tools.database.connection() as connection:
            parts = await tools.store.list_parts(connection, row["id"], request.start)
        for part in parts:
            try:
                results = (await tools.objects.outcomes(part["object"])).results
            except NotFound:
                await self._get(row["id"])  # it may have been forgotten just now
                raise DataLoss("this result is not in storage any more", reason="JOB_LOST") from None
            for result in results:
                if result.index >= request.start:
                    yield inference_pb2.GetJobResultResponse(result=result)

    async def CancelJob(
        self, request: inference_pb2.CancelJobRequest, context: Context
    ) -> inference_pb2.CancelJobResponse:
        tools, now = self._tools, self._tools.clock.now()
        async with tools.database.transaction() as connection:
            row = await tools.store.cancel_job(connection, request.job_id, caller().org_id, now, now + tools.retention)
        if row is not None:
            await self._tell(request.job_id)
        return inference_pb2.CancelJobResponse(job=message(row or await self._get(request.job_id)))

    async def DeleteJob(
        self, request: inference_pb2.DeleteJobRequest, context: Context
    ) -> inference_pb2.DeleteJobResponse:
        row, tools = await self._get(request.job_id), self._tools
        if row["state"] not in ENDED:
            raise JobUnfinished("the job has not ended; cancel it first")
        async with tools.database.transaction() as connection:
            await tools.store.forget_at(connection, row["id"], tools.clock.now())
        with contextlib.suppress(Unavailable):  # then the sweep removes it
            await forget(tools, row["id"])
        return inference_pb2.DeleteJobResponse()

    async def _tell(self, job_id: str) -> None:
        with contextlib.suppress(nats.errors.Error):  # whoever runs it looks again by itself
            await broadcast(self._events, CHANGED + job_id, b"")


def _timeout(request: inference_pb2.CreateJobRequest) -> timedelta:
    """Raises InvalidFields."""
    if not request.HasField("timeout"):
        return _TIMEOUT
    seconds = request.timeout.seconds
    if not 0 < seconds <= _LONGEST.total_seconds():
        raise InvalidFields(violations=[Violation("timeout", "from one second to seven days")])
    return timedelta(seconds=seconds, microseconds=request.timeout.nanos // 1000)


def _state(state: int) -> str:
    """The state as rows have it; empty for any. Raises InvalidFields."""
    if not state:
        return ""
    if state not in inference_pb2.JobState.values():
        raise InvalidFields(violations=[Violation("state", "is not a state of jobs")])
    return inference_pb2.JobState.Name(state).removeprefix("JOB_STATE_").lower()  # type: ignore[arg-type]
