"""`mercat models submit|approve|reject|publish|release|delete|undelete|reviews|alias`: a version's way to
the market."""

from typing import Annotated

import typer
from mercat.registry.v1 import registry_pb2

from services.cli import output
from services.cli.command import Session, command
from services.cli.paging import Limit, gather
from services.cli.versions import STATES

Reference = Annotated[str, typer.Argument(metavar="MODEL@VERSION", help="Of your own without the publisher.")]


def register(models: typer.Typer) -> None:
    for function in (submit, reviews, approve, reject, publish, release, delete, undelete, alias):
        models.command()(command(function))


def done(session: Session, version: registry_pb2.Version, what: str, then: str = "") -> None:
    """Shows what a step has made of a version. `then`: the command that usually comes next."""
    if session.json:
        output.say_json(version)
    else:
        output.say(f"{version.model}@{version.version} {what}.")
        output.facts([("next", then)])


def submit(session: Session, version: Reference) -> None:
    """Asks for the review of a draft, or of a version of a private model that is in service without one.

    Example: mercat models submit adder@1.0.0
    """
    model, number = session.version_of(version)
    request = registry_pb2.SubmitVersionRequest(model=model, version=number)
    made = session.client.registry.SubmitVersion(request).version
    if made.state == registry_pb2.VERSION_STATE_REVIEW:
        done(session, made, "waits for review", f"mercat models publish {version}, once it is approved")
    else:
        done(session, made, "waits for review, and stays in service meanwhile")


def reviews(session: Session, limit: Limit = 50) -> None:
    """Lists the versions that wait for review, oldest first; for administrators.

    Example: mercat models reviews --profile admin
    """
    answer = gather(session.client.registry.ListReviews, registry_pb2.ListReviewsRequest(), "versions", limit)
    if session.json:
        output.say_json(answer)
        return
    output.table(
        ["version", "framework", "size", "made (UTC)", "notes"],
        [
            (f"{v.model}@{v.version}", v.framework, output.size(v.size_bytes), output.when(v.created_at),
             v.release_notes)
            for v in answer.versions
        ],
        empty="Nothing waits for review.",
    )  # fmt: skip
    if answer.versions:
        first = answer.versions[0]
        output.facts([("next", f"mercat models review {first.model}@{first.version}")])


def approve(
    session: Session, version: Reference, reason: Annotated[str, typer.Option(help="A word for its owner.")] = ""
) -> None:
    """Approves a version that was submitted, so that its owner may publish it; for administrators. See `review` first.

    Example: mercat models approve ada/adder@1.0.0 --profile admin
    """
    model, number = session.version_of(version)
    request = registry_pb2.ApproveVersionRequest(model=model, version=number, reason=reason)
    made = session.client.registry.ApproveVersion(request).version
    waits = made.state == registry_pb2.VERSION_STATE_APPROVED
    done(session, made, "is approved; its owner may publish it" if waits else "is approved")


def reject(
    session: Session,
    version: Reference,
    reason: Annotated[str, typer.Option(help="What its owner has to change.")],
) -> None:
    """Sends a version back to its owner; for administrators.

    Example: mercat models reject ada/adder@1.0.0 --reason "The licence is missing." --profile admin
    """
    model, number = session.version_of(version)
    request = registry_pb2.RejectVersionRequest(model=model, version=number, reason=reason)
    made = session.client.registry.RejectVersion(request).version
    draft = made.state == registry_pb2.VERSION_STATE_DRAFT
    done(session, made, "is a draft again" if draft else "is not approved, and stays its organisation's alone")


def publish(session: Session, version: Reference) -> None:
    """Publishes an approved version, or one of a private model as soon as it is validated: from now on it is called.

    Example: mercat models publish adder@1.0.0
    """
    model, number = session.version_of(version)
    request = registry_pb2.PublishVersionRequest(model=model, version=number)
    made = session.client.registry.PublishVersion(request).version
    done(session, made, "is published", f"mercat models show {made.model}, as everybody sees it")


def release(session: Session, version: Reference) -> None:
    """Puts a version that was quarantined back into service; for administrators.

    Example: mercat models release ada/adder@1.0.0 --profile admin
    """
    model, number = session.version_of(version)
    request = registry_pb2.ReleaseVersionRequest(model=model, version=number)
    done(session, session.client.registry.ReleaseVersion(request).version, "is in service again")


def delete(session: Session, version: Reference) -> None:
    """Gives up a version that was never published, or of a private model never reviewed. It can be taken back for a
    week; its number stays taken.

    Example: mercat models delete adder@1.0.0
    """
    model, number = session.version_of(version)
    request = registry_pb2.DeleteVersionRequest(model=model, version=number)
    done(session, session.client.registry.DeleteVersion(request).version, "is deleted; `undelete` takes that back")


def undelete(session: Session, version: Reference) -> None:
    """Takes back that a version was deleted, while its files are kept.

    Example: mercat models undelete adder@1.0.0
    """
    model, number = session.version_of(version)
    request = registry_pb2.UndeleteVersionRequest(model=model, version=number)
    made = session.client.registry.UndeleteVersion(request).version
    done(session, made, f"is {STATES[made.state]} again")


def alias(session: Session, name: Annotated[str, typer.Argument(help="Such as stable.")], version: Reference) -> None:
    """Points an alias at a published version, so that it is called as publisher/name:alias.

    Example: mercat models alias stable adder@1.0.0
    """
    model, number = session.version_of(version)
    answer = session.client.registry.SetAlias(registry_pb2.SetAliasRequest(model=model, alias=name, version=number))
    if session.json:
        output.say_json(answer)
    else:
        output.say(f"{answer.model}:{answer.alias} is {answer.version}.")
