"""Jobs whose workers die or leave, whose messages are lost, and whose time has come."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import grpc
import nats
import pytest
from mercat.inference.v1 import inference_pb2

from services.common.errors import from_rpc_error
from tests import graphs
from tests.integration.inference import many
from tests.integration.inference.many import PRICE, add, finished, job, number, outcomes
from tests.platform import USD, Account, Platform

Own = Callable[..., Platform]
SUCCEEDED, CANCELLED = inference_pb2.JOB_STATE_SUCCEEDED, inference_pb2.JOB_STATE_CANCELLED
EXPIRED, QUEUED, RUNNING = (
    inference_pb2.JOB_STATE_EXPIRED, inference_pb2.JOB_STATE_QUEUED, inference_pb2.JOB_STATE_RUNNING,
)  # fmt: skip
PRICES = {"requests": PRICE * 1_000_000}


def charged_once(platform: Platform, person: Account, jobs: list[str], entries: int, credit: int) -> None:
    """Each entry has its result, one record and one posting, and the books agree."""
    made: list[str] = []
    for job_id in jobs:
        made += [r.response.request_id for r in outcomes(person, job_id)]
    assert len(set(made)) == len(made) == entries
    assert sorted(r.request_id for r in many.records(person, entries)) == sorted(made)
    assert sorted(many.posted(person)) == sorted(made)
    assert person.balance() == credit - entries * PRICE
    assert platform.admin().check_ledger().clean


def patient(call: Callable[[], Any]) -> Any:
    """What a call answers once there is a worker again that answers."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return call()
        except grpc.RpcError as e:
            if e.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL) or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def progress(person: Account, job_id: str, done: int, seconds: float = 60) -> inference_pb2.Job:
    """Waits until a job has come so far."""
    deadline = time.monotonic() + seconds
    while True:
        found: inference_pb2.Job
        found = patient(lambda: person.jobs.GetJob(inference_pb2.GetJobRequest(job_id=job_id))).job
        if found.done_count >= done and (found.end_time.seconds or done < found.entry_count):
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def test_workers_that_die_anywhere_in_a_job(own_platform: Own) -> None:
    points = {"jobs.before_part": 2, "jobs.part_stored": 3, "jobs.part_kept": 4, "inference.before_ack": 60}
    env = {"MERCAT_FAILPOINTS": ",".join(f"{name}={passes}" for name, passes in points.items())}
    platform = own_platform(workers=2, env=env)
    model = platform.publish(platform.publisher(), graphs.addition(), batch=8, price=PRICES)
    person = platform.sign_up(credit=USD * 100)
    jobs: list[str] = []

    def died() -> set[str]:
        return {name for name in points if (platform.home / "run" / f"failpoint.{name}").exists()}

    while died() != set(points):
        assert len(jobs) < 12, f"no worker died at {set(points) - died()}"
        jobs.append(patient(lambda: job(person, *(add(model, i, 1) for i in range(300)))).job_id)
        done = progress(person, jobs[-1], 300)
        assert (done.state, done.done_count, done.failed_count) == (SUCCEEDED, 300, 0)
        assert done.cost_nanos == 300 * PRICE
        assert [number(r.response) for r in patient(lambda: outcomes(person, jobs[-1]))] == [i + 1 for i in range(300)]
    charged_once(platform, person, jobs, 300 * len(jobs), USD * 100)


def test_all_workers_killed_and_one_asked_to_leave(own_platform: Own) -> None:
    platform = own_platform(workers=2)
    slow = platform.publish(platform.publisher(), graphs.slow(120_000), price=PRICES)
    person = platform.sign_up(credit=USD * 100)
    jobs = [job(person, *[many.predict(slow, x=1)] * 100).job_id for _ in range(2)]
    for job_id in jobs:
        progress(person, job_id, 10)
    for worker in ("worker-0", "worker-1"):
        platform.kill(worker)
    progress(person, jobs[0], 40)
    os.kill(platform.pids()["worker-0"], signal.SIGTERM)
    for job_id in jobs:
        done = progress(person, job_id, 100)
        assert (done.state, done.done_count, done.failed_count) == (SUCCEEDED, 100, 0)
    charged_once(platform, person, jobs, 200, USD * 100)


@pytest.fixture
def narrow(own_platform: Own) -> tuple[Platform, Account, str]:
    """One job runs at a time, three may be unfinished, and what has ended is kept for four seconds."""
    env = {"MERCAT_JOB_SLOTS": "1", "MERCAT_JOBS_UNFINISHED": "3", "MERCAT_JOB_RETENTION": "4"}
    platform = own_platform(env=env)
    slow = platform.publish(platform.publisher(), graphs.slow(250_000), price=PRICES)
    return platform, platform.sign_up(credit=USD * 100), slow


def state(person: Account, job_id: str) -> int:
    found: inference_pb2.Job = person.jobs.GetJob(inference_pb2.GetJobRequest(job_id=job_id)).job
    return found.state


def reason(call: Callable[[], Any]) -> str:
    with pytest.raises(grpc.RpcError) as e:
        call()
    return from_rpc_error(e.value).reason


def test_the_queue(narrow: tuple[Platform, Account, str]) -> None:
    platform, person, slow = narrow
    first = job(person, *[many.predict(slow, x=1)] * 200).job_id
    progress(person, first, 1)
    second, third = job(person, many.predict(slow, x=2)).job_id, job(person, many.predict(slow, x=3), timeout=1).job_id
    assert (state(person, first), state(person, second)) == (RUNNING, QUEUED)
    assert reason(lambda: job(person, many.predict(slow, x=4))) == "TOO_MANY_JOBS"
    other = platform.sign_up(credit=USD)
    assert job(other, many.predict(slow, x=4)).state == QUEUED  # the limit is each organisation's own
    # One that nobody runs is cancelled at once, and expires without being run.
    cancelled = person.jobs.CancelJob(inference_pb2.CancelJobRequest(job_id=second)).job
    assert (cancelled.state, cancelled.done_count) == (CANCELLED, 0)
    last = finished(person, third)
    assert (last.state, last.done_count) == (EXPIRED, 0)
    assert outcomes(person, third) == []
    # What has ended is forgotten, with all that was stored of it.
    folder = platform.home / "artifacts" / "objects" / "jobs"
    assert (folder / third).exists()
    deadline = time.monotonic() + 15
    while (folder / third).exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not (folder / third).exists()
    for gone in (second, third):
        assert reason(lambda job_id=gone: state(person, job_id)) == "JOB_NOT_FOUND"  # type: ignore[misc]
    assert [j.job_id for j in person.jobs.ListJobs(inference_pb2.ListJobsRequest()).jobs] == [first]
    person.jobs.CancelJob(inference_pb2.CancelJobRequest(job_id=first))
    assert finished(person, first).state == CANCELLED


async def test_a_lost_message_loses_no_job(narrow: tuple[Platform, Account, str]) -> None:
    platform, person, slow = narrow

    def two() -> tuple[str, str]:
        first = job(person, *[many.predict(slow, x=1)] * 100).job_id
        progress(person, first, 1)
        return first, job(person, many.predict(slow, x=2)).job_id

    first, second = await asyncio.to_thread(two)
    client = await nats.connect(platform.nats_url())
    try:
        await asyncio.sleep(1)
        await client.jetstream().purge_stream("JOBS")
        assert (await client.jetstream().stream_info("JOBS")).state.messages == 0
    finally:
        await client.close()
    for job_id in (first, second):
        assert (await asyncio.to_thread(finished, person, job_id)).state == SUCCEEDED
