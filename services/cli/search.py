"""`mercat search`."""

from enum import Enum
from typing import Annotated

import typer
from mercat.marketplace.v1 import marketplace_pb2

from services.cli import output
from services.cli.command import Session, command
from services.cli.paging import Limit, gather
from services.cli.prices import show_price


class Sort(str, Enum):  # noqa: UP042 - typer takes the value of a str enumeration
    relevance = "relevance"
    newest = "newest"
    popularity = "popularity"
    price = "price"


def register(app: typer.Typer) -> None:
    app.command()(command(search))


def search(
    session: Session,
    words: Annotated[list[str] | None, typer.Argument(help="None: everything.")] = None,
    category: Annotated[str, typer.Option(help="nlp, vision, audio, multimodal or other.")] = "",
    task: Annotated[str, typer.Option(help="Such as text-embedding.")] = "",
    tag: Annotated[list[str] | None, typer.Option(help="Repeatable: all of them.")] = None,
    license_: Annotated[str, typer.Option("--license", help="SPDX, such as MIT.")] = "",
    publisher: Annotated[str, typer.Option(help="Only models of this publisher.")] = "",
    sort: Annotated[Sort, typer.Option(help="Best first.")] = Sort.relevance,
    limit: Limit = 20,
) -> None:
    """Finds published models.

    Examples:

      mercat search sentence embeddings

      mercat search --category audio --sort newest --json
    """
    request = marketplace_pb2.SearchModelsRequest(
        query=" ".join(words or ()), category=category, task=task, tags=tag or [], license=license_,
        publisher=publisher, sort=marketplace_pb2.SortOrder.Value(f"SORT_ORDER_{sort.value.upper()}"),
    )  # fmt: skip
    answer = gather(session.client.marketplace.SearchModels, request, "hits", limit, page=100)
    if session.json:
        output.say_json(answer)
        return
    output.table(
        ["model", "version", "task", "license", "price", "calls", "summary"],
        [
            (
                hit.model, hit.latest_version, hit.task, hit.license, show_price(hit.price), f"{hit.total_requests:,}",
                hit.summary,
            )
            for hit in answer.hits
        ],
        empty="No published model fits; try fewer words or filters.",
        right=["calls"],
    )  # fmt: skip
    if answer.total > len(answer.hits):
        output.say(f"[dim]{len(answer.hits)} of {answer.total}; more with --limit[/]")
