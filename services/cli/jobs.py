"""`mercat jobs`: calls that nobody waits for."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from mercat.inference.v1 import inference_pb2

from services.cli import output
from services.cli.batch import ENTRIES, Bar, File, Model, lines, read_requests
from services.cli.client import Unreachable
from services.cli.command import Session, command
from services.cli.paging import Limit, gather
from services.cli.session import Refusal
from services.cli.times import parse_span
from services.common import money
from services.common.errors import Internal, Unavailable, from_status

_ENDED = {
    inference_pb2.JOB_STATE_SUCCEEDED, inference_pb2.JOB_STATE_FAILED, inference_pb2.JOB_STATE_CANCELLED,
    inference_pb2.JOB_STATE_EXPIRED,
}  # fmt: skip
_STATES = [name.removeprefix("JOB_STATE_").lower() for name in inference_pb2.JobState.keys()[1:]]
_TRIES = 10  # of watching, while the worker that answers is away

JobId = Annotated[str, typer.Argument(metavar="JOB", help="Its id, job_….")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until it has ended.")]


def register(app: typer.Typer) -> None:
    jobs = typer.Typer(help="Calls that nobody waits for.", no_args_is_help=True, rich_markup_mode="rich")
    jobs.command("create")(command(create))
    jobs.command("list")(command(list_jobs))
    jobs.command("get")(command(get))
    jobs.command("result")(command(result))
    jobs.command("cancel")(command(cancel))
    jobs.command("delete")(command(delete))
    app.add_typer(jobs, name="jobs")


def create(
    session: Session,
    file: File,
    model: Model = "",
    timeout: Annotated[str, typer.Option(metavar="SPAN", help="How long it may take: 30m, 12h; 7d at most.")] = "24h",
    tag: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Tells its calls apart in usage. Repeatable.")
    ] = None,
    wait: Wait = False,
) -> int | None:
    """Makes a job of every line of a file, a thousand at most.

    Examples:

      mercat jobs create requests.jsonl --model ada/embedder --wait

      mercat jobs result $(mercat jobs create requests.jsonl --json | jq -r .jobId) --wait
    """
    requests = read_requests(file, model)
    if len(requests) > ENTRIES:
        raise typer.BadParameter(f"{file} holds {len(requests):,} requests and a job {ENTRIES:,} at most; split it")
    asked = inference_pb2.CreateJobRequest(batch=inference_pb2.BatchPredictRequest(requests=requests))
    asked.timeout.seconds = parse_span(timeout)
    metadata = tuple(("mercat-tag", one) for one in tag or ())
    job = session.client.jobs.CreateJob(asked, timeout=120, metadata=metadata).job
    if wait:
        if not session.json:
            output.console(error=True).print(job.job_id)
        job = _until_ended(session, job.job_id)
    _show(session, job)
    return _status(job) if wait else None


def list_jobs(
    session: Session,
    state: Annotated[str, typer.Option(help=f"Only these: {', '.join(_STATES)}.")] = "",
    limit: Limit = 50,
) -> None:
    """Lists your jobs, newest first.

    Example: mercat jobs list --state running
    """
    if state and state not in _STATES:
        raise typer.BadParameter(f"{state!r} is no state; jobs are {', '.join(_STATES)}")
    request = inference_pb2.ListJobsRequest()
    if state:
        request.state = inference_pb2.JobState.Value(f"JOB_STATE_{state.upper()}")
    answer = gather(session.client.jobs.ListJobs, request, "jobs", limit)
    if session.json:
        output.say_json(answer)
        return
    output.table(
        ["job", "state", "done", "failed", "cost", "model", "made (UTC)"],
        [
            (
                job.job_id, _name(job), f"{job.done_count:,}/{job.entry_count:,}", f"{job.failed_count:,}",
                money.show(job.cost_nanos), job.model, output.when(job.create_time),
            )
            for job in answer.jobs
        ],
        empty="No jobs; make one with `mercat jobs create FILE.jsonl`.", right=["done", "failed", "cost"],
    )  # fmt: skip


def get(session: Session, job: JobId, wait: Wait = False) -> int | None:
    """Shows how far a job is.

    Example: mercat jobs get job_01m84… --wait
    """
    if wait:
        found = _until_ended(session, job)
    else:
        found = session.client.jobs.GetJob(inference_pb2.GetJobRequest(job_id=job)).job
    _show(session, found)
    return _status(found) if wait else None


def result(
    session: Session,
    job: JobId,
    to: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file.")] = None,
    wait: Wait = False,
) -> None:
    """Prints what each line of a job gave, a line of JSON for each, in order.

    Example: mercat jobs result job_01m84… --output out.jsonl
    """
    if wait:
        _until_ended(session, job)
    answers = session.client.jobs.GetJobResult(inference_pb2.GetJobResultRequest(job_id=job))
    found = lines(answer.result for answer in answers)
    if to is None:
        for line in found:
            typer.echo(line, nl=False)
        return
    count = 0
    try:
        with to.open("w", encoding="utf-8") as file:
            for line in found:
                file.write(line)
                count += 1
    except OSError as error:
        raise Refusal(f"{to} cannot be written ({error.strerror}).", "the result is kept; write it elsewhere") from None
    if not session.json:
        output.say(f"{count:,} lines written to {to}.")


def cancel(session: Session, job: JobId) -> None:
    """Ends a job. What has run is kept and charged.

    Example: mercat jobs cancel job_01m84…
    """
    _show(session, session.client.jobs.CancelJob(inference_pb2.CancelJobRequest(job_id=job)).job)


def delete(session: Session, job: JobId) -> None:
    """Forgets a job that has ended, with all that is kept of it.

    Example: mercat jobs delete job_01m84…
    """
    answer = session.client.jobs.DeleteJob(inference_pb2.DeleteJobRequest(job_id=job))
    if session.json:
        output.say_json(answer)
    else:
        output.say(f"{job} is forgotten.")


def _until_ended(session: Session, job_id: str) -> inference_pb2.Job:
    job = session.client.jobs.GetJob(inference_pb2.GetJobRequest(job_id=job_id)).job
    with Bar(job_id, job.entry_count, done=job.done_count, quiet=session.json) as (bars, task):
        for now in _watched(session, job):
            bars.update(task, completed=now.done_count)
            job = now
    return job


def _watched(session: Session, job: inference_pb2.Job) -> Iterator[inference_pb2.Job]:
    """The job whenever it goes on, until it has ended, also when the worker that tells of it goes away."""
    tries = 0
    while job.state not in _ENDED:
        try:
            for answer in session.client.jobs.WatchJob(inference_pb2.WatchJobRequest(job_id=job.job_id)):
                job, tries = answer.job, 0
                yield job
        except (Unavailable, Unreachable, Internal):
            tries += 1
            if tries == _TRIES:
                raise
            time.sleep(0.5)


def _name(job: inference_pb2.Job) -> str:
    return inference_pb2.JobState.Name(job.state).removeprefix("JOB_STATE_").lower()


def _status(job: inference_pb2.Job) -> int:
    return 0 if job.state == inference_pb2.JOB_STATE_SUCCEEDED else output.REFUSED


def _show(session: Session, job: inference_pb2.Job) -> None:
    if session.json:
        output.say_json(job)
        return
    failed = f", {job.failed_count:,} of them failed" if job.failed_count else ""
    output.facts([
        ("job", job.job_id), ("state", _name(job)), ("done", f"{job.done_count:,} of {job.entry_count:,}{failed}"),
        ("cost", money.show(job.cost_nanos)), ("model", job.model), ("made", output.when(job.create_time)),
        ("began", output.when(job.start_time)), ("ended", output.when(job.end_time)),
        ("deadline", "" if job.HasField("end_time") else output.when(job.deadline)),
        ("kept until", output.when(job.expire_time)),
        ("error", from_status(job.error).message if job.HasField("error") else ""),
    ])  # fmt: skip
