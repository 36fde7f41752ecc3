"""Jobs as their owners see them: through to the result, bad input, cancelling, deadlines, whose they are."""

import asyncio
import time

import nats
import pytest
from google.protobuf import duration_pb2
from mercat.auth.v1 import auth_pb2
from mercat.event.v1 import event_pb2
from mercat.inference.v1 import inference_pb2

from services.common import ids
from services.common.errors import from_status
from tests import graphs
from tests.expect import fails
from tests.integration.inference import many
from tests.integration.inference.many import PRICE, add, error, finished, job, number, outcomes
from tests.platform import USD, Account, Platform

SUCCEEDED, FAILED = inference_pb2.JOB_STATE_SUCCEEDED, inference_pb2.JOB_STATE_FAILED
CANCELLED, EXPIRED = inference_pb2.JOB_STATE_CANCELLED, inference_pb2.JOB_STATE_EXPIRED
RUNNING, QUEUED = inference_pb2.JOB_STATE_RUNNING, inference_pb2.JOB_STATE_QUEUED


@pytest.fixture(scope="module")
def publisher(platform: Platform) -> Account:
    return platform.publisher()


@pytest.fixture(scope="module")
def model(platform: Platform, publisher: Account) -> str:
    return platform.publish(publisher, graphs.addition(), batch=64, price={"requests": PRICE * 1_000_000})


@pytest.fixture(scope="module")
def slow(platform: Platform, publisher: Account) -> str:
    """About 60 ms a call."""
    return platform.publish(publisher, graphs.slow(250_000), price={"requests": PRICE * 1_000_000})


def test_a_job_of_one_request(platform: Platform, model: str) -> None:
    person = platform.sign_up(credit=USD)
    made = person.jobs.CreateJob(inference_pb2.CreateJobRequest(predict=add(model, 2, 3))).job
    assert (made.state, made.model, made.entry_count, made.done_count) == (QUEUED, model, 1, 0)
    assert ids.is_id("job", made.job_id)
    assert made.deadline.ToSeconds() - made.create_time.ToSeconds() == 24 * 3600
    done = finished(person, made.job_id)
    assert (done.state, done.done_count, done.failed_count, done.cost_nanos) == (SUCCEEDED, 1, 0, PRICE)
    assert done.create_time.ToNanoseconds() <= done.start_time.ToNanoseconds() <= done.end_time.ToNanoseconds()
    assert done.expire_time.ToSeconds() - done.end_time.ToSeconds() == 24 * 3600
    (result,) = outcomes(person, made.job_id)
    assert (number(result.response), result.response.cost_nanos) == (5, PRICE)
    (record,) = many.records(person, 1)
    assert (record.request_id, record.key_id) == (result.response.request_id, made.key_id)
    assert person.balance() == USD - PRICE


def test_a_job_of_many_with_failures_in_their_places(platform: Platform, model: str) -> None:
    person = platform.sign_up(credit=USD)
    requests = [add(model, i, 1) if i % 100 else add("no/such", 1, 1) for i in range(500)]
    requests[7] = inference_pb2.PredictRequest()
    done = finished(person, job(person, *requests).job_id)
    assert (done.state, done.done_count, done.failed_count, done.cost_nanos) == (SUCCEEDED, 500, 6, 494 * PRICE)
    assert not done.HasField("error")
    results = outcomes(person, done.job_id)
    assert [r.index for r in results] == list(range(500))
    assert all(number(r.response) == r.index + 1 for r in results if r.HasField("response"))
    assert {error(results[i]).reason for i in range(0, 500, 100)} == {"MODEL_NOT_FOUND"}
    assert error(results[7]).reason == "INVALID_FIELDS"
    made = sorted(r.response.request_id for r in results if r.HasField("response"))
    assert sorted(r.request_id for r in many.records(person, 494)) == made
    assert sorted(many.posted(person)) == made
    assert [r.index for r in outcomes(person, done.job_id, start=498)] == [498, 499]
    assert outcomes(person, done.job_id, start=500) == []


def test_a_job_without_a_response_has_failed(platform: Platform, model: str) -> None:
    person = platform.sign_up()
    done = finished(person, job(person, add("no/such", 1, 2), many.predict(model, a=1)).job_id)
    assert (done.state, done.done_count, done.failed_count, done.cost_nanos) == (FAILED, 2, 2, 0)
    assert from_status(done.error).reason == "MODEL_NOT_FOUND"
    assert [error(r).reason for r in outcomes(person, done.job_id)] == ["MODEL_NOT_FOUND", "TENSOR_INVALID"]


def test_a_watcher_sees_it_go_on(platform: Platform, slow: str) -> None:
    person = platform.sign_up(credit=USD)
    made = job(person, *[many.predict(slow, x=1)] * 40)
    seen = [w.job for w in person.jobs.WatchJob(inference_pb2.WatchJobRequest(job_id=made.job_id), timeout=180)]
    assert seen[-1].state == SUCCEEDED
    counts = [j.done_count for j in seen]
    assert counts == sorted(counts)
    assert len(set(counts)) > 2


def test_what_cannot_be_a_job(platform: Platform, model: str) -> None:
    person = platform.sign_up()
    request = inference_pb2.CreateJobRequest

    def fields(asked: inference_pb2.CreateJobRequest) -> set[str]:
        e = fails(person.jobs.CreateJob, asked)
        assert e.reason == "INVALID_FIELDS"
        return {v.field for v in e.violations}

    assert fields(request()) == {"work"}
    assert fields(request(batch=inference_pb2.BatchPredictRequest())) == {"batch.requests"}
    assert fields(request(predict=inference_pb2.PredictRequest(model=model))) == {"predict.inputs"}
    for seconds in (0, -5, 8 * 24 * 3600):
        assert fields(request(predict=add(model, 1, 2), timeout=duration_pb2.Duration(seconds=seconds))) == {"timeout"}
    assert fails(person.jobs.ListJobs, inference_pb2.ListJobsRequest(state=77)).reason == "INVALID_FIELDS"
    assert fails(person.jobs.ListJobs, inference_pb2.ListJobsRequest(page_token="?")).reason == "INVALID_FIELDS"
    assert not person.jobs.ListJobs(inference_pb2.ListJobsRequest()).jobs


def test_an_idempotency_key_makes_one_job(platform: Platform, model: str) -> None:
    person = platform.sign_up(credit=USD)
    asked, key = inference_pb2.CreateJobRequest(predict=add(model, 1, 2)), [("idempotency-key", "once")]
    first = person.jobs.CreateJob(asked, metadata=key).job
    assert person.jobs.CreateJob(asked, metadata=key).job.job_id == first.job_id
    finished(person, first.job_id)
    other = inference_pb2.CreateJobRequest(predict=add(model, 1, 3))
    assert fails(person.jobs.CreateJob, other, metadata=key).reason == "IDEMPOTENCY_KEY_REUSED"
    assert len(person.jobs.ListJobs(inference_pb2.ListJobsRequest()).jobs) == 1
    assert len(many.records(person, 1)) == 1


def test_lists_have_pages_and_states(platform: Platform, model: str) -> None:
    person = platform.sign_up(credit=USD)
    made = [job(person, add(model, 1, 2)).job_id for _ in range(5)]
    failed = job(person, add("no/such", 1, 2)).job_id
    for job_id in (*made, failed):
        finished(person, job_id)
    seen: list[str] = []
    token = ""
    while True:
        page = person.jobs.ListJobs(inference_pb2.ListJobsRequest(page_size=4, page_token=token))
        seen += [j.job_id for j in page.jobs]
        if not (token := page.next_page_token):
            break
    assert seen == sorted((*made, failed), reverse=True)
    only = person.jobs.ListJobs(inference_pb2.ListJobsRequest(state=FAILED)).jobs
    assert [j.job_id for j in only] == [failed]
    assert not person.jobs.ListJobs(inference_pb2.ListJobsRequest(state=RUNNING)).jobs


def test_other_people_s_jobs_are_not_there(platform: Platform, model: str) -> None:
    owner, other = platform.sign_up(credit=USD), platform.sign_up(credit=USD)
    job_id = job(owner, add(model, 1, 2)).job_id
    finished(owner, job_id)
    reader = owner.auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name="reader", scopes=["usage:read"]))
    for method, request in (
        ("GetJob", inference_pb2.GetJobRequest(job_id=job_id)),
        ("WatchJob", inference_pb2.WatchJobRequest(job_id=job_id)),
        ("GetJobResult", inference_pb2.GetJobResultRequest(job_id=job_id)),
        ("CancelJob", inference_pb2.CancelJobRequest(job_id=job_id)),
        ("DeleteJob", inference_pb2.DeleteJobRequest(job_id=job_id)),
    ):
        assert fails(getattr(other.jobs, method), request).reason == "JOB_NOT_FOUND", method
        unknown = type(request)(job_id="job_01m84ky4fefa79kq54gr8e7vjm")
        assert fails(getattr(other.jobs, method), unknown).reason == "JOB_NOT_FOUND", method
        assert fails(getattr(platform.anonymous.jobs, method), request).reason == "CREDENTIAL_MISSING", method
        assert fails(getattr(Account(platform, reader.secret).jobs, method), request).reason == "SCOPE_MISSING"
    assert not other.jobs.ListJobs(inference_pb2.ListJobsRequest()).jobs
    assert outcomes(owner, job_id)


def test_a_running_job_is_cancelled(platform: Platform, slow: str) -> None:
    person = platform.sign_up(credit=USD)
    made = job(person, *[many.predict(slow, x=1)] * 300)
    while person.jobs.GetJob(inference_pb2.GetJobRequest(job_id=made.job_id)).job.done_count < 5:
        time.sleep(0.05)
    assert fails(person.jobs.GetJobResult, inference_pb2.GetJobResultRequest(job_id=made.job_id)).reason == (
        "JOB_UNFINISHED"
    )
    assert fails(person.jobs.DeleteJob, inference_pb2.DeleteJobRequest(job_id=made.job_id)).reason == "JOB_UNFINISHED"
    asked = person.jobs.CancelJob(inference_pb2.CancelJobRequest(job_id=made.job_id)).job
    assert asked.HasField("cancel_time")
    began = time.monotonic()
    done = finished(person, made.job_id)
    assert time.monotonic() - began < 6
    assert done.state == CANCELLED
    assert 5 <= done.done_count < 200
    results = outcomes(person, made.job_id)
    assert len(results) == done.done_count
    charged = many.records(person, done.done_count)
    assert {r.request_id for r in charged} == {r.response.request_id for r in results}
    again = person.jobs.CancelJob(inference_pb2.CancelJobRequest(job_id=made.job_id)).job
    assert again == done


def test_a_job_past_its_deadline_is_expired(platform: Platform, slow: str) -> None:
    person = platform.sign_up(credit=USD)
    made = job(person, *[many.predict(slow, x=1)] * 300, timeout=2)
    done = finished(person, made.job_id)
    assert done.state == EXPIRED
    assert done.end_time.ToSeconds() - done.deadline.ToSeconds() <= 4
    results = outcomes(person, made.job_id)
    assert 0 < len(results) == done.done_count < 200
    assert {r.request_id for r in many.records(person, done.done_count)} == {r.response.request_id for r in results}


def test_a_revoked_key_ends_its_jobs(platform: Platform, slow: str) -> None:
    person = platform.sign_up(credit=USD)
    key = person.auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name="jobs"))
    made = job(Account(platform, key.secret), *[many.predict(slow, x=1)] * 300)
    while person.jobs.GetJob(inference_pb2.GetJobRequest(job_id=made.job_id)).job.done_count < 1:
        time.sleep(0.05)
    person.auth.RevokeApiKey(auth_pb2.RevokeApiKeyRequest(key_id=key.api_key.key_id))
    began = time.monotonic()
    done = finished(person, made.job_id)
    assert time.monotonic() - began < 8
    assert (done.state, from_status(done.error).reason) == (FAILED, "CREDENTIAL_INVALID")
    assert len(outcomes(person, made.job_id)) == done.done_count


def test_a_session_s_job_and_a_test_key_s(platform: Platform, model: str) -> None:
    person = platform.sign_up(credit=USD)
    key = person.auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name="sandbox", test=True))
    done = finished(person, job(Account(platform, key.secret), add(model, 1, 2)).job_id)
    assert (done.state, done.cost_nanos) == (SUCCEEDED, 0)
    admin = platform.admin()  # signed in, without a key
    admin.top_up(PRICE)
    done = finished(admin, job(admin, add(model, 1, 2)).job_id)
    assert (done.state, done.key_id, done.cost_nanos) == (SUCCEEDED, "", PRICE)


def test_the_calls_of_a_job_have_its_submitters_tags(platform: Platform, model: str) -> None:
    person = platform.sign_up(credit=USD)
    asked = inference_pb2.CreateJobRequest(
        batch=inference_pb2.BatchPredictRequest(requests=[add(model, 1, n) for n in range(3)])
    )
    metadata = [("mercat-tag", "team=research"), ("mercat-tag", "env=prod")]
    made = person.jobs.CreateJob(asked, metadata=metadata).job
    finished(person, made.job_id)
    records = many.records(person, 3)
    assert [dict(r.tags) for r in records] == [{"team": "research", "env": "prod"}] * 3
    wrong = fails(person.jobs.CreateJob, asked, metadata=[("mercat-tag", "TEAM")])
    assert [v.field for v in wrong.violations] == ["mercat-tag"]
    finished(person, job(person, add(model, 1, 2)).job_id)
    assert sum(not r.tags for r in many.records(person, 4)) == 1


def test_a_job_that_is_deleted_is_gone(platform: Platform, model: str) -> None:
    person = platform.sign_up(credit=USD)
    job_id = job(person, add(model, 1, 2)).job_id
    finished(person, job_id)
    folder = platform.home / "artifacts" / "objects" / "jobs" / job_id
    assert len(list(folder.iterdir())) == 2  # its request and its result
    person.jobs.DeleteJob(inference_pb2.DeleteJobRequest(job_id=job_id))
    assert not folder.exists() or not list(folder.iterdir())
    assert fails(person.jobs.GetJob, inference_pb2.GetJobRequest(job_id=job_id)).reason == "JOB_NOT_FOUND"
    assert len(many.records(person, 1)) == 1


async def test_the_end_of_a_job_is_an_event(platform: Platform, model: str) -> None:
    person = platform.sign_up(credit=USD)
    client = await nats.connect(platform.nats_url())
    try:
        heard = await client.subscribe("mercat.event.JobFinished")
        await client.flush()
        made = await asyncio.to_thread(job, person, add(model, 1, 2), add("no/such", 1, 2))
        event = event_pb2.JobFinished()
        while event.job_id != made.job_id:
            event = event_pb2.JobFinished.FromString((await heard.next_msg(timeout=10)).data)
    finally:
        await client.close()
    assert (event.state, event.entry_count, event.done_count, event.failed_count) == (SUCCEEDED, 2, 2, 1)
    assert (event.org_id, event.cost_nanos) == (person.profile.org_id, PRICE)


def test_jobs_over_rest(platform: Platform, model: str) -> None:
    person = platform.sign_up(credit=USD)
    for door in (platform.rest, "http://" + platform.addresses()["gateway"]):
        body = {"predict": {"model": model, "inputs": [{"name": n, "data": [2]} for n in ("a", "b")]}, "timeout": "60s"}
        made = many.rest(person, "POST", f"{door}/v1/jobs", body)[0]
        assert made["state"] == "JOB_STATE_QUEUED"
        at = f"{door}/v1/jobs/{made['jobId']}"
        assert many.rest(person, "GET", at + ":watch")[-1]["job"]["state"] == "JOB_STATE_SUCCEEDED"
        assert many.rest(person, "GET", at)[0]["doneCount"] == 1
        (result,) = many.rest(person, "GET", at + "/result")
        assert result["result"]["response"]["outputs"][0]["data"] == [4]
        assert many.rest(person, "POST", at + ":cancel", {})[0]["state"] == "JOB_STATE_SUCCEEDED"
        listed = many.rest(person, "GET", f"{door}/v1/jobs?state=JOB_STATE_SUCCEEDED")[0]
        assert made["jobId"] in [j["jobId"] for j in listed["jobs"]]
        assert many.rest(person, "DELETE", at) == [{}]
