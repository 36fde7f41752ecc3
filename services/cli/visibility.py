"""`mercat models visibility`: who may know of a model and who may call it."""

from typing import Annotated

import typer
from mercat.registry.v1 import access_pb2, registry_pb2, visibility_pb2

from services.cli import output
from services.cli.command import Session, command

VISIBILITIES = {
    visibility_pb2.Visibility.Name(value).removeprefix("VISIBILITY_").lower(): value
    for value in visibility_pb2.Visibility.values()
    if value
}
PUBLIC, PRIVATE = visibility_pb2.VISIBILITY_PUBLIC, visibility_pb2.VISIBILITY_PRIVATE
NAMES = {value: name for name, value in VISIBILITIES.items()}
_SAID = {
    PUBLIC: "everybody finds it and calls it",
    PRIVATE: "nobody but its own organisation can tell that it exists",
}


def parse(text: str) -> visibility_pb2.Visibility.ValueType:
    """Raises typer.BadParameter."""
    if text not in VISIBILITIES:
        raise typer.BadParameter(f"{text!r} is none of {', '.join(VISIBILITIES)}")
    return VISIBILITIES[text]


def register(models: typer.Typer) -> None:
    models.command()(command(visibility))


def visibility(
    session: Session,
    model: Annotated[str, typer.Argument(help="Your own: just the name will do.")],
    to: Annotated[str, typer.Argument(metavar="[WHO]", help=f"{' or '.join(VISIBILITIES)}; none: as it is.")] = "",
) -> None:
    """Shows or changes who may know of a model and call it; felt everywhere within seconds.

    Example: mercat models visibility adder private
    """
    name = session.full_name(model)
    if to:
        request = access_pb2.SetModelVisibilityRequest(model=name, visibility=parse(to))
        now = session.client.access.SetModelVisibility(request).model
    else:
        now = session.client.registry.GetModel(registry_pb2.GetModelRequest(model=name)).model
    if session.json:
        output.say_json(now)
    else:
        output.say(f"{now.model} is {NAMES[now.visibility]}: {_SAID[now.visibility]}.")
