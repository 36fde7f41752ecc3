"""`mercat models versions|deprecate|yank|unyank`: what became of a model's versions, and how they go out of use."""

from datetime import UTC, datetime
from typing import Annotated

import typer
from mercat.registry.v1 import registry_pb2

from services.cli import output
from services.cli.command import Session, command
from services.cli.paging import Limit, gather
from services.cli.reviewing import Reference, done
from services.cli.times import parse_ahead
from services.cli.versions import STATES, standing


def register(models: typer.Typer) -> None:
    for function in (versions, deprecate, yank, unyank):
        models.command()(command(function))


def versions(
    session: Session,
    model: Annotated[str, typer.Argument(help="publisher/name; of your own just the name.")],
    limit: Limit = 100,
) -> None:
    """Lists a model's versions, newest first: state, dates, digest and the aliases that lead to them.

    Example: mercat models versions ada/adder
    """
    name, registry = session.full_name(model), session.client.registry
    found = registry.GetModel(registry_pb2.GetModelRequest(model=name)).model
    answer = gather(registry.ListVersions, registry_pb2.ListVersionsRequest(model=name), "versions", limit)
    if session.json:
        shown = output.document(answer)
        output.say_json({**shown, "aliases": dict(found.aliases), "latest_version": found.latest_version})
        return
    aliases: dict[str, list[str]] = {found.latest_version: ["(default)"]}
    for alias, version in sorted(found.aliases.items()):
        aliases.setdefault(version, []).append(f":{alias}")
    output.table(
        ["version", "state", "aliases", "made (UTC)", "published (UTC)", "digest", "size"],
        [
            (v.version, standing(v), " ".join(aliases.get(v.version, [])), output.when(v.created_at),
             output.when(v.published_at), v.digest.removeprefix("sha256:")[:12], output.size(v.size_bytes))
            for v in answer.versions
        ],
        empty="It has no versions.",
    )  # fmt: skip


def deprecate(
    session: Session,
    version: Reference,
    reason: Annotated[str, typer.Option(help="Why, for its users.")] = "",
    sunset: Annotated[
        str, typer.Option(metavar="WHEN", help="2027-01-31, or 90d from now: calls are refused from then on.")
    ] = "",
    successor: Annotated[
        str, typer.Option(metavar="VERSION|MODEL", help="What to call instead: 1.1.0, ada/better or ada/better@2.0.0.")
    ] = "",
) -> None:
    """Tells callers of a published version to leave it: it still answers, but is no longer found or the default.

    With --sunset it is refused from then on. Said again, it changes what is told; a sunset can only be put off.

    Examples:

      mercat models deprecate adder@1.0.0 --reason "Wrong above 2^31."

      mercat models deprecate adder@1.0.0 --sunset 90d --successor 1.1.0
    """
    model, number = session.version_of(version)
    request = registry_pb2.DeprecateVersionRequest(model=model, version=number, reason=reason, successor=successor)
    if sunset:
        request.sunset_at.FromDatetime(parse_ahead(sunset, datetime.now(UTC)))
    made = session.client.registry.DeprecateVersion(request).version
    until = f"; calls are refused from {output.when(made.deprecation.sunset_at)} UTC on" if sunset else ""
    done(session, made, f"is deprecated{until}")


def yank(
    session: Session, version: Reference, reason: Annotated[str, typer.Option(help="Why, for its users.")]
) -> None:
    """Takes a published version back, which should not be used: neither default nor aliases lead to it any more.

    Who calls it by its exact number still gets it, and is told why. `unyank` undoes it.

    Example: mercat models yank adder@1.0.0 --reason "It was trained on the test set."
    """
    model, number = session.version_of(version)
    request = registry_pb2.YankVersionRequest(model=model, version=number, reason=reason)
    done(session, session.client.registry.YankVersion(request).version, "is yanked")


def unyank(session: Session, version: Reference) -> None:
    """Undoes `yank`. What a platform admin has yanked, only one gives back.

    Example: mercat models unyank adder@1.0.0
    """
    model, number = session.version_of(version)
    made = session.client.registry.UnyankVersion(registry_pb2.UnyankVersionRequest(model=model, version=number)).version
    done(session, made, f"is {STATES[made.state]} again")
