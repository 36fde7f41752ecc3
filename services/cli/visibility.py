"""`mercat models visibility`: who may know of a model and who may call it."""

from typing import Annotated

import typer
from mercat.registry.v1 import access_pb2, registry_pb2, visibility_pb2

from services.cli import output
from services.cli.command import Session, command
from services.cli.inputs import read_text

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
    visibility_pb2.VISIBILITY_GATED: "everybody finds it, and only those call it that have access",
}
_APPROVALS = {"automatic": visibility_pb2.APPROVAL_AUTOMATIC, "manual": visibility_pb2.APPROVAL_MANUAL}


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
    to: Annotated[str, typer.Argument(metavar="[WHO]", help=f"{', '.join(VISIBILITIES)}; none: as it is.")] = "",
    approval: Annotated[str, typer.Option(help="Of a gated one: automatic, or manual by you.")] = "",
    terms: Annotated[str, typer.Option(metavar="FILE", help="Of a gated one: what has to be accepted.")] = "",
    terms_url: Annotated[str, typer.Option(metavar="URL", help="Where that is to be read.")] = "",
    terms_version: Annotated[str, typer.Option(metavar="NAME", help="What you call these terms.")] = "",
) -> None:
    """Shows or changes who may know of a model and call it; felt everywhere within seconds.

    Without --approval a gated model keeps the approval and the terms that it had. Whoever has access has to accept
    other terms anew before they call it again.

    Examples: mercat models visibility adder private · mercat models visibility adder gated --approval manual
    --terms LICENSE.txt --terms-version 1
    """
    name = session.full_name(model)
    if (terms or terms_url or terms_version) and not approval:
        raise typer.BadParameter("terms go with --approval")
    if approval and (to != "gated" or approval not in _APPROVALS):
        raise typer.BadParameter("--approval is automatic or manual, of a gated model")
    if to:
        request = access_pb2.SetModelVisibilityRequest(model=name, visibility=parse(to))
        if approval:
            request.gate.CopyFrom(visibility_pb2.Gate(
                approval=_APPROVALS[approval], terms=read_text(terms), terms_url=terms_url, terms_version=terms_version
            ))  # fmt: skip
        now = session.client.access.SetModelVisibility(request).model
    else:
        now = session.client.registry.GetModel(registry_pb2.GetModelRequest(model=name)).model
    if session.json:
        output.say_json(now)
    else:
        output.say(f"{now.model} is {NAMES[now.visibility]}: {_SAID[now.visibility]}.")
