"""The tables of jobs, one typed method per named query, and a job's row as its message."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from google.rpc import status_pb2
from mercat.event.v1 import event_pb2
from mercat.inference.v1 import inference_pb2

from services.common import outbox
from services.common.db import Connection, load_queries

Row = Mapping[str, Any]
_TIMES = {
    "created_at": "create_time", "started_at": "start_time", "ended_at": "end_time", "deadline": "deadline",
    "cancelled_at": "cancel_time", "expires_at": "expire_time",
}  # fmt: skip
ENDED = frozenset({"succeeded", "failed", "cancelled", "expired"})


def message(row: Row) -> inference_pb2.Job:
    """A job as its owner sees it."""
    job = inference_pb2.Job(
        job_id=row["id"], state=inference_pb2.JobState.Value(f"JOB_STATE_{row['state'].upper()}"), model=row["model"],
        entry_count=row["entries"], done_count=row["done"], failed_count=row["failed"], cost_nanos=row["cost"],
        user_id=row["user_id"], key_id=row["key_id"],
    )  # fmt: skip
    for column, field in _TIMES.items():
        if row[column] is not None:
            getattr(job, field).FromDatetime(row[column])
    if row["state"] == "failed" and row["error"] is not None:
        job.error.CopyFrom(status_pb2.Status.FromString(bytes(row["error"])))
    return job


class JobStore:
    """Reads and writes within the transaction of the connection given."""

    def __init__(self) -> None:
        self._q = load_queries("services.inference")

    async def count_unfinished(self, c: Connection, org_id: str) -> int:
        """Unfinished jobs of an organisation, of which no other can be made until the transaction ends."""
        await self._q.lock_org(c, org_id=org_id)
        return int(await self._q.count_unfinished(c, org_id=org_id))

    async def add_job(
        self, c: Connection, *, job_id: str, org_id: str, user_id: str, key_id: str, model: str, entries: int,
        tags: str, now: datetime, deadline: datetime, expires_at: datetime,
    ) -> None:  # fmt: skip
        """A job that is being made; nothing when there is one of this id."""
        await self._q.add_job(
            c, id=job_id, org_id=org_id, user_id=user_id, key_id=key_id, model=model, entries=entries, tags=tags,
            now=now, deadline=deadline, expires_at=expires_at,
        )  # fmt: skip

    async def queue_job(self, c: Connection, job_id: str, body: str) -> Row | None:
        """None when it is not being made any more."""
        row: Row | None = await self._q.queue_job(c, id=job_id, body=body)
        return row

    async def get_job(self, c: Connection, job_id: str, org_id: str, now: datetime) -> Row | None:
        row: Row | None = await self._q.get_job(c, id=job_id, org_id=org_id, now=now)
        return row

    async def list_jobs(
        self, c: Connection, org_id: str, *, state: str, before: str | None, now: datetime, most: int
    ) -> list[Row]:
        return [r async for r in self._q.list_jobs(c, org_id=org_id, state=state, before=before, now=now, most=most)]

    async def claim_job(self, c: Connection, job_id: str, claim: str, now: datetime, until: datetime) -> Row | None:
        """None when it has ended, or a worker that lives has it."""
        row: Row | None = await self._q.claim_job(c, id=job_id, claim=claim, now=now, until=until)
        return row

    async def has_ended(self, c: Connection, job_id: str) -> bool:
        """Also of one that is forgotten."""
        return (await self._q.has_ended(c, id=job_id)) is not False

    async def find_stray(self, c: Connection, now: datetime, queued_before: datetime) -> str | None:
        """A job that no message will bring to a worker."""
        row: Row | None = await self._q.find_stray(c, now=now, queued_before=queued_before)
        return row["id"] if row is not None else None

    async def hold_job(self, c: Connection, job_id: str, claim: str, until: datetime) -> Row | None:
        """Its `cancelled_at`; None when the claim is lost."""
        row: Row | None = await self._q.hold_job(c, id=job_id, claim=claim, until=until)
        return row

    async def save_part(
        self, c: Connection, job_id: str, claim: str, *, first: int, last: int, object_name: str, failed: int,
        cost: int, error: bytes | None,
    ) -> Row | None:  # fmt: skip
        """Keeps the outcomes of entries `first` to `last`; None when the claim is lost."""
        row: Row | None = await self._q.save_part(
            c, id=job_id, claim=claim, done=last + 1, failed=failed, cost=cost, error=error
        )
        if row is not None:
            await self._q.add_part(c, job_id=job_id, first=first, last=last, object=object_name)
        return row

    async def list_parts(self, c: Connection, job_id: str, start: int) -> list[Row]:
        """Where the outcomes from entry `start` on are, in order."""
        return [r async for r in self._q.list_parts(c, job_id=job_id, start=start)]

    async def release_job(self, c: Connection, job_id: str, claim: str, now: datetime) -> None:
        await self._q.release_job(c, id=job_id, claim=claim, now=now)

    async def end_job(
        self, c: Connection, job_id: str, claim: str, *, state: str, error: bytes | None, now: datetime,
        expires_at: datetime,
    ) -> Row | None:  # fmt: skip
        """Ends a claimed job and tells of it; None when the claim is lost."""
        row: Row | None = await self._q.end_job(
            c, id=job_id, claim=claim, state=state, error=error, now=now, expires_at=expires_at
        )
        if row is not None:
            await _tell(c, row)
        return row

    async def cancel_job(
        self, c: Connection, job_id: str, org_id: str, now: datetime, expires_at: datetime
    ) -> Row | None:
        """Ends a queued job, and asks for the end of a running one; None when it is neither."""
        row: Row | None = await self._q.cancel_job(c, id=job_id, org_id=org_id, now=now, expires_at=expires_at)
        if row is not None and row["state"] in ENDED:
            await _tell(c, row)
        return row

    async def expire_queued(self, c: Connection, now: datetime, expires_at: datetime, most: int) -> Sequence[Row]:
        """Ends queued jobs past their deadline."""
        rows = [r async for r in self._q.expire_queued(c, now=now, expires_at=expires_at, most=most)]
        for row in rows:
            await _tell(c, row)
        return rows

    async def forget_at(self, c: Connection, job_id: str, now: datetime) -> None:
        """From now on nobody sees the job any more."""
        await self._q.forget_at(c, id=job_id, now=now)

    async def list_expired(self, c: Connection, now: datetime, most: int) -> list[str]:
        return [r["id"] async for r in self._q.list_expired(c, now=now, most=most)]

    async def delete_job(self, c: Connection, job_id: str, now: datetime) -> None:
        await self._q.delete_job(c, id=job_id, now=now)


async def _tell(c: Connection, row: Row) -> None:
    job = message(row)
    event = event_pb2.JobFinished(
        job_id=job.job_id, org_id=row["org_id"], user_id=job.user_id, state=job.state, entry_count=job.entry_count,
        done_count=job.done_count, failed_count=job.failed_count, cost_nanos=job.cost_nanos, end_time=job.end_time,
    )  # fmt: skip
    await outbox.add(c, event)
