"""`mercat explore`: ways to models other than words."""

from collections.abc import Iterable
from enum import Enum
from typing import Annotated

import typer
from mercat.marketplace.v1 import discovery_pb2

from services.cli import output
from services.cli.command import Session, command
from services.cli.listings import show_hits, show_latency, show_publisher, show_rating
from services.cli.paging import Limit, gather
from services.cli.prices import show_price
from services.common import money

_REASONS = {
    discovery_pb2.RECOMMENDATION_REASON_CALLED_TOGETHER: "called together with",
    discovery_pb2.RECOMMENDATION_REASON_SIMILAR: "like",
    discovery_pb2.RECOMMENDATION_REASON_POPULAR: "popular",
}


# What a model needs to be on a board.
_NEEDS = {
    "popular": ": it takes a call within 30 days", "trending": ": it takes more calls this week than the week before",
    "rated": ": it takes a review", "fastest": ": it takes 20 calls within 30 days",
}  # fmt: skip


class Board(str, Enum):  # noqa: UP042 - typer takes the value of a str enumeration
    popular = "popular"
    trending = "trending"
    rated = "rated"
    fastest = "fastest"
    cheapest = "cheapest"


def register(app: typer.Typer) -> None:
    explore = typer.Typer(help="Ways to models other than words.", no_args_is_help=True, rich_markup_mode="rich")
    explore.command("tasks")(command(tasks))
    explore.command("top")(command(top))
    explore.command("compare")(command(compare))
    explore.command("related")(command(related))
    explore.command("recommended")(command(recommended))
    explore.command("preferences")(command(preferences))
    app.add_typer(explore, name="explore")


def tasks(session: Session) -> None:
    """Lists categories and tasks, with how many published models each has.

    Example: mercat explore tasks
    """
    answer = session.client.discovery.GetCategories(discovery_pb2.GetCategoriesRequest())
    if session.json:
        output.say_json(answer)
        return
    rows = [
        (c.title, t.task, t.title, t.modality or "–", f"{t.models:,}") for c in answer.categories for t in c.tasks
    ]  # fmt: skip
    output.table(["category", "task", "title", "takes", "models"], rows, empty="", right=["models"])


def top(
    session: Session,
    board: Annotated[Board, typer.Argument(help="By what.")] = Board.popular,
    category: Annotated[str, typer.Option(help="nlp, vision, audio, multimodal or other.")] = "",
    task: Annotated[str, typer.Option(help="Such as text-embedding.")] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100, help="How many at most.")] = 10,
) -> None:
    """Shows the best models by what was measured.

    Example: mercat explore top fastest --task text-embedding
    """
    request = discovery_pb2.GetLeaderboardRequest(board=board.value, category=category, task=task, limit=limit)
    answer = session.client.discovery.GetLeaderboard(request)
    if session.json:
        output.say_json(answer)
        return
    show_hits(answer.hits, empty=f"No model has this figure yet{_NEEDS.get(board.value, '')}.")


def compare(
    session: Session,
    models: Annotated[list[str], typer.Argument(help="Two to five, as publisher/name.")],
    units: Annotated[
        list[str] | None, typer.Option("--units", metavar="METER=COUNT", help="Of a month of yours; repeatable.")
    ] = None,
) -> None:
    """Shows models side by side, and what a month of yours would cost with each.

    Example: mercat explore compare mercat/minilm ada/bge --units rows=1000000
    """
    request = discovery_pb2.CompareModelsRequest(models=[session.full_name(model) for model in models])
    for pair in units or ():
        meter, _, count = pair.partition("=")
        if not count.isdecimal():
            raise typer.BadParameter(f"{pair!r}: write it as rows=1000000")
        request.units[meter] = int(count)
    answer = session.client.discovery.CompareModels(request)
    if session.json:
        output.say_json(answer)
        return
    columns: list[list[str]] = []
    for compared in answer.models:
        listing = compared.listing
        signature = listing.version.signature
        columns.append([
            show_publisher(listing.publisher), listing.model.latest_version, listing.model.task, listing.model.license,
            listing.version.framework,
            ", ".join(f"{t.name} {t.datatype}" for t in signature.inputs) or "text",
            ", ".join(f"{t.name} {t.datatype}" for t in signature.outputs) or "–",
            show_price(listing.price), money.show(compared.cost_nanos) if compared.HasField("cost_nanos") else "–",
            show_latency(listing.p50_latency_us), show_latency(listing.p95_latency_us), show_rating(listing),
            f"{listing.recent_requests:,}",
        ])  # fmt: skip
    names = ["by", "version", "task", "license", "framework", "inputs", "outputs", "price", "this workload", "p50 ms",
             "p95 ms", "rating", "calls, 30 days"]  # fmt: skip
    rows = [(name, *values) for name, *values in zip(names, *columns, strict=True)]
    output.table(["", *(c.listing.model.model for c in answer.models)], rows, empty="")
    for compared in answer.models:
        if units and not compared.HasField("cost_nanos"):
            meters = ", ".join(c.meter for c in compared.listing.price.components)
            output.say(f"[dim]{compared.listing.model.model} charges by {meters}: give those as --units too[/]")


def related(session: Session, model: Annotated[str, typer.Argument(help="publisher/name")], limit: Limit = 10) -> None:
    """Finds models that are called by the same accounts, or are like this one.

    Example: mercat explore related mercat/pp-ocr-det
    """
    request = discovery_pb2.ListRelatedModelsRequest(model=session.full_name(model))
    answer = gather(session.client.discovery.ListRelatedModels, request, "models", limit, page=50)
    if session.json:
        output.say_json(answer)
        return
    _recommendations(answer.models)


def recommended(session: Session, limit: Limit = 10) -> None:
    """Finds models for you, by what you call; for who has called nothing, popular ones.

    Example: mercat explore recommended
    """
    request = discovery_pb2.ListRecommendationsRequest()
    answer = gather(session.client.discovery.ListRecommendations, request, "models", limit, page=50)
    if session.json:
        output.say_json(answer)
        return
    _recommendations(answer.models)


def preferences(
    session: Session,
    recommendations: Annotated[
        bool | None, typer.Option("--recommendations/--no-recommendations", help="Whether your calls make any.")
    ] = None,
) -> None:
    """Shows or says whether your calls make recommendations, for you and, without your name, for others.

    Example: mercat explore preferences --no-recommendations
    """
    if recommendations is None:
        answer = session.client.discovery.GetDiscoveryPreferences(discovery_pb2.GetDiscoveryPreferencesRequest())
        found = answer.preferences
    else:
        request = discovery_pb2.SetDiscoveryPreferencesRequest(recommendations_off=not recommendations)
        found = session.client.discovery.SetDiscoveryPreferences(request).preferences
    if session.json:
        output.say_json(found)
        return
    output.say(f"Recommendations are {'off' if found.recommendations_off else 'on'}.")


def _recommendations(models: Iterable[discovery_pb2.Recommendation]) -> None:
    rows = [
        (
            r.hit.model,
            show_publisher(r.hit.publisher),
            r.hit.task,
            " ".join(filter(None, (_REASONS.get(r.reason, ""), r.because))),
            r.hit.summary,
        )
        for r in models
    ]
    output.table(["model", "by", "task", "why", "summary"], rows, empty="Nothing is known that goes with it.")
