"""`mercat models card`: what a publisher writes about a model."""

from typing import Annotated

import typer
from mercat.registry.v1 import card_pb2

from services.cli import output
from services.cli.command import Session, command


def register(models: typer.Typer) -> None:
    models.command()(command(card))


def card(
    session: Session,
    model: Annotated[str, typer.Argument(help="publisher/name, or publisher/name@1.0.0 for a version's own card.")],
    html: Annotated[bool, typer.Option("--html", help="As HTML that is safe to show in a page.")] = False,
) -> None:
    """Shows a model's card: what its front matter says, and its text.

    Examples:

      mercat models card ada/adder

      mercat models card ada/adder@1.0.0 --html
    """
    name, _, version = model.partition("@")
    request = card_pb2.GetCardRequest(model=session.full_name(name), version=version)
    found = session.client.cards.GetCard(request).card
    if session.json:
        output.say_json(found)
    elif html:
        typer.echo(found.html)
    else:
        output.facts([
            ("model", f"{found.model}@{found.version}" if found.version else found.model),
            *show_metadata(found.metadata),
        ])  # fmt: skip
        if not found.markdown.strip():
            output.say("It has no card.")
        show_markdown(found.markdown)


def show_metadata(said: card_pb2.CardMetadata) -> list[tuple[str, str]]:
    """What a card's front matter says."""
    return [
        ("licence", said.license), ("languages", ", ".join(said.languages)), ("made from", ", ".join(said.base_models)),
        ("data sets", ", ".join(said.datasets)), ("intended use", said.intended_use),
        *(("metric", _metric(metric)) for metric in said.metrics),
    ]  # fmt: skip


def _metric(metric: card_pb2.CardMetric) -> str:
    value = f" {metric.value:g}" if metric.HasField("value") else ""
    return f"{metric.name}{value}{f' on {metric.dataset}' if metric.dataset else ''}"


def show_markdown(text: str) -> None:
    """Laid out where there is a terminal; control characters, which could move its cursor, are left out."""
    text = output.clean(text)
    to = output.console()
    if not to.is_terminal:
        typer.echo(text)
        return
    from rich.markdown import Markdown  # slow to import, and seldom needed

    to.print(Markdown(text, hyperlinks=False))  # where a link leads is seen before it is followed
