"""`mercat publisher`: who is behind models."""

from typing import Annotated

import typer
from mercat.marketplace.v1 import publishers_pb2 as pb

from services.cli import output
from services.cli.command import Session, command
from services.cli.listings import MARK


def register(app: typer.Typer) -> None:
    publisher = typer.Typer(help="Who is behind models.", no_args_is_help=True, rich_markup_mode="rich")
    for function in (show, describe):
        publisher.command()(command(function))
    app.add_typer(publisher, name="publisher")


def show(session: Session, publisher: Annotated[str, typer.Argument(help="Its handle.")]) -> None:
    """Shows a publisher: what it says of itself, its models, what callers think of them.

    Example: mercat publisher show mercat
    """
    found = session.client.publishers.GetPublisher(pb.GetPublisherRequest(publisher=publisher)).publisher
    if session.json:
        output.say_json(found)
        return
    rating = f"{found.rating:.1f} of 5 in {found.review_count:,} reviews" if found.review_count else "none yet"
    output.facts([
        ("publisher", f"{found.publisher}{MARK if found.verified else ''}"), ("name", found.display_name),
        ("about", found.about),
        ("website", f"{found.website} ({'verified' if found.verified else 'not verified'})" if found.website else ""),
        ("rating", rating), ("followers", f"{found.follower_count:,}"), ("calls", f"{found.total_requests:,}"),
    ])  # fmt: skip
    output.table(
        ["model", "version", "task", "summary"],
        [(hit.model, hit.latest_version, hit.task, hit.summary) for hit in found.models], empty="",
    )  # fmt: skip
    if found.model_count > len(found.models):
        output.say(f"{found.model_count - len(found.models):,} more: `mercat search --publisher {found.publisher}`.")


def describe(
    session: Session,
    name: Annotated[str, typer.Option(help="For people.")] = "",
    about: Annotated[str, typer.Option(help="Who you are.")] = "",
    website: Annotated[str, typer.Option(help="https address; verified when your organisation's domain is.")] = "",
) -> None:
    """Says who your organisation is; replaces what it said before.

    Example: mercat publisher describe --name "Acme Research" --website https://acme.example
    """
    request = pb.SetPublisherProfileRequest(display_name=name, about=about, website=website)
    answer = session.client.publishers.SetPublisherProfile(request)
    if session.json:
        output.say_json(answer)
    else:
        output.say("It is said.")
