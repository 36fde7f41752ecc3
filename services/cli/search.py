"""`mercat search`, `mercat similar` and `mercat reindex`."""

from enum import Enum
from typing import Annotated

import typer
from mercat.marketplace.v1 import marketplace_pb2

from services.cli import output
from services.cli.command import Session, command
from services.cli.listings import show_hits
from services.cli.paging import Limit, gather
from services.cli.wallet import parse_money


class Sort(str, Enum):  # noqa: UP042 - typer takes the value of a str enumeration
    relevance = "relevance"
    newest = "newest"
    popularity = "popularity"
    price = "price"
    rating = "rating"
    latency = "latency"


class Mode(str, Enum):  # noqa: UP042
    hybrid = "hybrid"
    lexical = "lexical"
    semantic = "semantic"


# How facets are called, and their values.
_FACETS = {"price_band": ("price", "{}"), "rating": ("rating", "at least {}")}
_BAND = "up to {} USD a million units"
_VALUES = {f"up_to_{usd}": _BAND.format(usd) for usd in (1, 10, 100)} | {"more": "more than 100 USD a million units"}
Model = Annotated[str, typer.Argument(help="publisher/name")]


def register(app: typer.Typer) -> None:
    app.command()(command(search))
    app.command()(command(similar))
    app.command()(command(reindex))


def search(
    session: Session,
    words: Annotated[list[str] | None, typer.Argument(help="None: everything.")] = None,
    category: Annotated[str, typer.Option(help="nlp, vision, audio, multimodal or other.")] = "",
    task: Annotated[str, typer.Option(help="Such as text-embedding.")] = "",
    tag: Annotated[list[str] | None, typer.Option(help="Repeatable: all of them.")] = None,
    framework: Annotated[str, typer.Option(help="onnx, gguf, pytorch or tensorflow.")] = "",
    license_: Annotated[str, typer.Option("--license", help="SPDX, such as MIT.")] = "",
    language: Annotated[str, typer.Option(help="That the card names: a BCP 47 tag, such as de.")] = "",
    publisher: Annotated[str, typer.Option(help="Only models of this publisher.")] = "",
    verified: Annotated[bool, typer.Option("--verified", help="Only models of verified publishers.")] = False,
    modality: Annotated[str, typer.Option(help="What goes in: text, image, audio, video or tabular.")] = "",
    min_price: Annotated[str, typer.Option(metavar="USD", help="For a million units of each meter.")] = "",
    max_price: Annotated[str, typer.Option(metavar="USD", help="For a million units of each meter.")] = "",
    min_rating: Annotated[float, typer.Option(help="Stars at least, as few reviews count little.")] = 0.0,
    max_latency: Annotated[float, typer.Option(metavar="MS", help="Median measured, milliseconds.")] = 0.0,
    free: Annotated[bool, typer.Option("--free-to-try", help="Only what can be called without credit.")] = False,
    mode: Annotated[Mode, typer.Option(help="By words, by meaning, or both.")] = Mode.hybrid,
    sort: Annotated[Sort, typer.Option(help="Best first.")] = Sort.relevance,
    facets: Annotated[bool, typer.Option("--facets", help="Also how many models have which task, tag, …")] = False,
    limit: Limit = 20,
) -> None:
    """Finds published models: typos are forgiven, and what means the same is found too.

    Examples:

      mercat search sentence embeddings

      mercat search "sentimnt clasification" --modality text --max-price 5 --sort rating

      mercat search --category audio --sort newest --json
    """
    request = marketplace_pb2.SearchModelsRequest(
        query=" ".join(words or ()), category=category, task=task, tags=tag or [], license=license_,
        publisher=publisher, framework=framework, language=language, modality=modality, min_rating=min_rating,
        max_latency_us=round(max_latency * 1000), free_to_try=free, verified=verified,
        mode=marketplace_pb2.SearchMode.Value(f"SEARCH_MODE_{mode.value.upper()}"),
        sort=marketplace_pb2.SortOrder.Value(f"SORT_ORDER_{sort.value.upper()}"),
    )  # fmt: skip
    if min_price:
        request.min_price_nanos = parse_money(min_price)
    if max_price:
        request.max_price_nanos = parse_money(max_price)
    answer = gather(session.client.marketplace.SearchModels, request, "hits", limit, page=100)
    if session.json:
        output.say_json(answer)
        return
    show_hits(answer.hits, empty="No published model fits; try fewer words or filters, or see `mercat explore tasks`.")
    if answer.total > len(answer.hits):
        output.say(f"[dim]{len(answer.hits)} of {answer.total}; more with --limit[/]")
    if answer.relaxed and answer.hits:
        output.say("[dim]no model has all the words; these have most of them[/]")
    if answer.semantic_absent:
        output.say(f"[dim]by words alone: {answer.semantic_absent}[/]")
    if facets:
        for facet in answer.facets:
            counts = sorted(facet.counts.items(), key=lambda pair: (-pair[1], pair[0]))
            name, shown = _FACETS.get(facet.field, (facet.field, "{}"))
            values = ", ".join(f"{_VALUES.get(value, shown.format(value))} ({count})" for value, count in counts[:10])
            output.facts([(name, values)])


def similar(session: Session, model: Model, limit: Limit = 10) -> None:
    """Finds models whose descriptions mean nearly the same.

    Example: mercat similar mercat/minilm
    """
    request = marketplace_pb2.ListSimilarModelsRequest(model=session.full_name(model))
    answer = gather(session.client.marketplace.ListSimilarModels, request, "hits", limit, page=50)
    if session.json:
        output.say_json(answer)
        return
    show_hits(answer.hits, empty="No published model is like it.")
    if answer.semantic_absent:
        output.say(f"[dim]by tags, task and words: {answer.semantic_absent}[/]")


def reindex(session: Session) -> None:
    """Builds the search index anew from the catalogue; for administrators.

    Example: mercat reindex
    """
    answer = session.client.marketplace.RebuildIndex(marketplace_pb2.RebuildIndexRequest(), timeout=600)
    if session.json:
        output.say_json(answer)
        return
    output.say(f"{answer.models:,} published models are indexed.")
