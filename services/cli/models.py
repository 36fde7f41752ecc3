"""`mercat models`: from a file to a published, priced model."""

from typing import Annotated

import typer
from mercat.billing.v1 import billing_pb2
from mercat.marketplace.v1 import marketplace_pb2
from mercat.registry.v1 import registry_pb2

from services.cli import (
    carding,
    judging,
    lineage,
    output,
    provenance,
    retiring,
    reviewing,
    transferring,
    verifying,
    visibility,
)  # fmt: skip
from services.cli.carding import show_markdown, show_metadata
from services.cli.command import Session, command
from services.cli.downloading import download
from services.cli.inputs import read_text
from services.cli.listings import show_latency, show_publisher, show_rating
from services.cli.paging import Limit, gather
from services.cli.prices import parse_price, show_allowance, show_price
from services.cli.pushing import push
from services.cli.versions import findings, show_end, show_samples, show_scan, show_spec, show_text, standing
from services.common.errors import ModelNotFound

Model = Annotated[str, typer.Argument(help="publisher/name; of your own just the name.")]
Price = Annotated[
    list[str] | None,
    typer.Option("--price", metavar="METER=USD", help="For each request, row, input_token …; add /1M for a million."),
]


def register(app: typer.Typer) -> None:
    models = typer.Typer(
        help="Push, describe, price, review and publish models.", no_args_is_help=True, rich_markup_mode="rich"
    )
    models.command("push")(command(push))
    for name, function in (("create", create), ("update", update), ("list", list_models), ("show", show)):
        models.command(name)(command(function))
    models.command("price")(command(price))
    models.command("download")(command(download))
    carding.register(models)
    lineage.register(models)
    provenance.register(models)
    verifying.register(models)
    reviewing.register(models)
    judging.register(models)
    retiring.register(models)
    transferring.register(models)
    visibility.register(models)
    app.add_typer(models, name="models")
    app.command("push")(command(push))


def create(
    session: Session,
    name: Annotated[str, typer.Argument(help="The second half of publisher/name.")],
    summary: Annotated[str, typer.Option(help="One line.")],
    category: Annotated[str, typer.Option(help="nlp, vision, audio, multimodal or other.")],
    task: Annotated[str, typer.Option(help="Such as text-embedding.")],
    license_: Annotated[str, typer.Option("--license", help="SPDX expression, such as MIT.")],
    display_name: Annotated[str, typer.Option("--title", help="Its name for people.")] = "",
    tag: Annotated[list[str] | None, typer.Option(help="Repeatable.")] = None,
    homepage: Annotated[str, typer.Option(help="Where more is to be read.")] = "",
    card: Annotated[str, typer.Option(metavar="FILE", help="The model card, Markdown.")] = "",
    private: Annotated[bool, typer.Option("--private", help="Nobody but your organisation is to know of it.")] = False,
) -> None:
    """Makes a model without a version; `mercat push` does both.

    Example: mercat models create adder --summary "Adds" --category other --task arithmetic --license MIT
    """
    request = registry_pb2.CreateModelRequest(
        name=name, display_name=display_name, summary=summary, category=category, task=task, license=license_,
        tags=tag or [], homepage=homepage, description=read_text(card),
        visibility=visibility.PRIVATE if private else visibility.PUBLIC,
    )  # fmt: skip
    model = session.client.registry.CreateModel(request).model
    if session.json:
        output.say_json(model)
    else:
        output.say(f"{model.model} is there; give it a version with `mercat push`.")


def update(
    session: Session,
    model: Model,
    summary: Annotated[str | None, typer.Option(help="One line.")] = None,
    display_name: Annotated[str | None, typer.Option("--title", help="Its name for people.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Replaces all tags; repeatable.")] = None,
    card: Annotated[str, typer.Option(metavar="FILE", help="The model card, Markdown.")] = "",
    etag: Annotated[str, typer.Option(help="Change it only if it is still as `show --json` named it.")] = "",
) -> None:
    """Changes what describes a model.

    Example: mercat models update adder --summary "Adds two vectors" --card README.md
    """
    request = registry_pb2.UpdateModelRequest(
        model=session.full_name(model), summary=summary, display_name=display_name, tags=tag or [], etag=etag,
        description=read_text(card) if card else None,
    )  # fmt: skip
    answer = session.client.registry.UpdateModel(request).model
    if session.json:
        output.say_json(answer)
    else:
        output.say(f"{answer.model} is changed.")


def list_models(
    session: Session,
    mine: Annotated[bool, typer.Option("--mine", help="Your own, in any state.")] = False,
    limit: Limit = 50,
) -> None:
    """Lists published models, or your own; newest first.

    Example: mercat models list --mine
    """
    request = registry_pb2.ListModelsRequest(mine=mine)
    answer = gather(session.client.registry.ListModels, request, "models", limit)
    if session.json:
        output.say_json(answer)
        return
    output.table(
        ["model", "version", "category", "task", "license", "made (UTC)", "summary"],
        [
            (
                m.model,
                m.latest_version or "not published",
                m.category,
                m.task,
                m.license,
                output.when(m.created_at),
                m.summary,
            )
            for m in answer.models
        ],
        empty="You have no models; push one with `mercat push`." if mine else "No model is published yet.",
    )


def show(
    session: Session,
    model: Annotated[str, typer.Argument(help="publisher/name, or publisher/name@1.0.0 for a version.")],
    card: Annotated[bool, typer.Option("--card", help="Print the model card as well.")] = False,
) -> None:
    """Shows a model: what it takes and gives, its price and its versions.

    Examples: mercat models show ada/adder · mercat models show ada/adder@1.0.0
    """
    name, _, asked = model.partition("@")
    name = session.full_name(name)
    registry = session.client.registry
    if asked:
        _version(session, registry.GetVersion(registry_pb2.GetVersionRequest(model=name, version=asked)).version)
        return
    found = registry.GetModel(registry_pb2.GetModelRequest(model=name)).model
    versions = registry.ListVersions(registry_pb2.ListVersionsRequest(model=name, page_size=100)).versions
    cost = session.client.billing.GetModelPrice(billing_pb2.GetModelPriceRequest(model=name)).price
    listing = listing_of(session, found)
    if session.json:
        shown: dict[str, object] = {"model": output.document(found), "price": output.document(cost)}
        shown |= _measured(listing)
        shown["publisher"] = output.document(listing.publisher)
        shown["allowances"] = [output.document(allowance) for allowance in listing.allowances]
        output.say_json(shown | {"versions": [output.document(version) for version in versions]})
        return
    latest = next((v for v in versions if v.version == found.latest_version), versions[0] if versions else None)
    aliases = ", ".join(f":{alias} → {version}" for alias, version in sorted(found.aliases.items()))
    output.facts([
        ("model", found.model), ("by", show_publisher(listing.publisher)),
        ("title", found.display_name), ("summary", found.summary),
        ("category", f"{found.category} · {found.task}"), ("tags", ", ".join(found.tags)),
        ("license", found.license), ("homepage", found.homepage), ("price", show_price(cost)),
        ("rating", show_rating(listing) if listing.review_count else ""),
        ("calls", f"{listing.total_requests:,}" if listing.total_requests else ""),
        ("latency", f"{show_latency(listing.p50_latency_us)} ms median, {show_latency(listing.p95_latency_us)} ms p95"
         if listing.p50_latency_us else ""),
        *(("free", show_allowance(allowance)) for allowance in listing.allowances),
        ("version", found.latest_version or "none published"), ("aliases", aliases),
        ("published", output.when(found.published_at)), ("visibility", visibility.NAMES[found.visibility]),
        *show_metadata(found.card_metadata),
        *(("takes", show_spec(spec)) for spec in (latest.signature.inputs if latest else ())),
        *(("gives", show_spec(spec)) for spec in (latest.signature.outputs if latest else ())),
        *(show_text(latest) if latest else ()),
    ])  # fmt: skip
    output.table(
        ["version", "state", "size", "made (UTC)", "published (UTC)"],
        [
            (v.version, standing(v), output.size(v.size_bytes), output.when(v.created_at),
             output.when(v.published_at))
            for v in versions
        ],
        empty="It has no versions.",
    )  # fmt: skip
    if card and found.description:
        show_markdown(found.description)


def listing_of(session: Session, model: registry_pb2.Model) -> marketplace_pb2.Listing:
    """Of a model that is not on the market, or not yet, only whose it is."""
    try:
        return session.client.marketplace.GetListing(marketplace_pb2.GetListingRequest(model=model.model)).listing
    except ModelNotFound:
        mark = marketplace_pb2.PublisherMark(publisher=model.model.partition("/")[0])
        return marketplace_pb2.Listing(publisher=mark)


def _measured(listing: marketplace_pb2.Listing) -> dict[str, object]:
    return {
        "rating": listing.rating, "reviews": listing.review_count, "calls": str(listing.total_requests),
        "p50LatencyUs": str(listing.p50_latency_us), "p95LatencyUs": str(listing.p95_latency_us),
    }  # fmt: skip


def _version(session: Session, version: registry_pb2.Version) -> None:
    if session.json:
        output.say_json(version)
        return
    batch = f"up to {version.settings.max_batch_size} rows" if version.settings.max_batch_size else "no"
    output.facts([
        ("version", f"{version.model}@{version.version}"), ("state", standing(version)),
        ("review", version.review_note), ("framework", version.framework), ("digest", version.digest),
        ("size", output.size(version.size_bytes)), ("batches", batch),
        *(("with", f"{file.name}, {output.size(file.size_bytes)}, {file.digest}") for file in version.files),
        *(("takes", show_spec(spec)) for spec in version.signature.inputs),
        *(("gives", show_spec(spec)) for spec in version.signature.outputs),
        *show_text(version),
        *show_scan(version),
        *provenance.show(version),
        *show_metadata(version.card_metadata),
        *show_samples(version.samples),
        ("loads in", output.duration(version.measured_load_us) if version.measured_load_us else ""),
        ("runs in", output.duration(version.measured_run_us) if version.measured_run_us else ""),
        ("notes", version.release_notes), ("made", output.when(version.created_at)),
        ("published", output.when(version.published_at)), *show_end(version),
    ])  # fmt: skip
    if version.findings:
        findings(version)


def price(
    session: Session,
    model: Model,
    prices: Price = None,
    free: Annotated[bool, typer.Option("--free", help="Calls cost nothing from now on.")] = False,
) -> None:
    """Shows what calls to a model cost, or sets it from now on.

    Examples:

      mercat models price ada/adder

      mercat models price adder --price requests=0.002 --price input_bytes=0.5/1M

      mercat models price adder --free
    """
    if free and prices:
        raise typer.BadParameter("give --free or --price, not both")
    name = session.full_name(model)
    billing = session.client.billing
    if free or prices:
        components = [parse_price(text) for text in prices or ()]
        now = billing.SetModelPrice(billing_pb2.SetModelPriceRequest(model=name, components=components)).price
    else:
        now = billing.GetModelPrice(billing_pb2.GetModelPriceRequest(model=name)).price
    if session.json:
        output.say_json(now)
    else:
        output.facts([("model", name), ("price", show_price(now)), ("since", output.when(now.effective_at))])
