"""`mercat batch`, and files of requests."""

import json
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import typer
from mercat.inference.v1 import inference_pb2
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from services.cli import output
from services.cli.command import Session, command
from services.cli.inputs import parse_request, read
from services.common import money

ENTRIES = 1000  # of one message
_BYTES = 32 << 20  # of the requests of one message: answers may be larger than requests

File = Annotated[
    str,
    typer.Argument(metavar="FILE.jsonl", help="A Predict request as REST takes it on each line; - is standard input."),
]
Model = Annotated[str, typer.Option(help="publisher/name, for lines that name no model.")]


def register(app: typer.Typer) -> None:
    app.command()(command(batch))


def batch(
    session: Session,
    file: File,
    model: Model = "",
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds to wait for each thousand.")] = 60.0,
) -> int | None:
    """Calls models with every line of a file. Prints a line of JSON for each, in order; the exit status is 1 when any
    of them failed.

    Examples:

      mercat batch requests.jsonl --model ada/adder

      jq -c '{inputs: [{name: "text", data: [.title]}]}' books.json | mercat batch - --model ada/embedder > out.jsonl
    """
    requests = read_requests(file, model)
    failed = cost = 0
    with Bar("calling", len(requests), quiet=session.json) as (bars, task):
        for start, part in parts(requests):
            asked = inference_pb2.BatchPredictRequest(requests=part)
            answer = session.client.inference.BatchPredict(asked, timeout=timeout)
            for result in answer.results:
                result.index += start
                output.say_json(result, line=True)
            failed, cost = failed + answer.failed_count, cost + answer.cost_nanos
            bars.update(task, advance=len(part))
    summary(len(requests), failed, cost, quiet=session.json)
    return output.REFUSED if failed else None


def read_requests(path: str, model: str) -> list[inference_pb2.PredictRequest]:
    """The requests in a file's lines; `model` for those that name none. Raises BadParameter naming the line."""
    requests: list[inference_pb2.PredictRequest] = []
    for number, line in enumerate(read(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            request = parse_request(line)
        except typer.BadParameter as error:
            raise typer.BadParameter(f"{path}, line {number}: {error.message}") from None
        request.model = request.model or model
        if not request.model:
            raise typer.BadParameter(f"{path}, line {number} names no model; give one for all with --model")
        requests.append(request)
    if not requests:
        raise typer.BadParameter(f"{path} holds no request")
    return requests


def parts(
    requests: list[inference_pb2.PredictRequest],
) -> Iterator[tuple[int, list[inference_pb2.PredictRequest]]]:
    """The requests in as many messages as they need, each with the place of its first."""
    start, size = 0, 0
    for i, request in enumerate(requests):
        length = request.ByteSize()
        if i > start and (i - start == ENTRIES or size + length > _BYTES):
            yield start, requests[start:i]
            start, size = i, 0
        size += length
    yield start, requests[start:]


class Bar:
    """A progress bar on standard error, while that is a terminal."""

    def __init__(self, text: str, total: int, *, quiet: bool, done: int = 0) -> None:
        console = output.console(error=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        silent = quiet or not console.is_terminal
        self._bars = Progress(*columns, console=console, disable=silent, transient=True)
        self._task = self._bars.add_task(text, total=total, completed=done)

    def __enter__(self) -> tuple[Progress, Any]:
        self._bars.start()
        return self._bars, self._task

    def __exit__(self, *exc: object) -> None:
        self._bars.stop()


def summary(calls: int, failed: int, cost: int, *, quiet: bool) -> None:
    """What it came to, on standard error: standard output is the answers."""
    if not quiet:
        text = f"{calls:,} calls, {failed:,} of them failed" if failed else f"{calls:,} calls"
        output.console(error=True).print(f"[bold]{text}, {money.show(cost)}[/]")


def lines(results: Iterable[inference_pb2.PredictResult]) -> Iterator[str]:
    """Each as a line of JSON."""
    for result in results:
        yield json.dumps(output.document(result), ensure_ascii=False) + "\n"
