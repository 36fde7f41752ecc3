"""`mercat access`: asking for access to gated models, and letting others have it."""

from typing import Annotated

import typer
from mercat.registry.v1 import access_pb2 as pb
from mercat.registry.v1 import visibility_pb2

from services.cli import output
from services.cli.command import Session, command
from services.cli.paging import Limit, gather
from services.cli.session import Refusal
from services.cli.visibility import NAMES

Model = Annotated[str, typer.Argument(help="publisher/name.")]
Own = Annotated[str, typer.Argument(help="Your own: just the name will do.")]
Organisation = Annotated[str, typer.Argument(help="Who asked: a handle or a username.")]
Reason = Annotated[str, typer.Option(help="What they are told.")]
_STATES = {
    value: pb.AccessState.Name(value).removeprefix("ACCESS_STATE_").lower()
    for value in pb.AccessState.values()
    if value
}  # fmt: skip


def register(app: typer.Typer) -> None:
    access = typer.Typer(
        help="Gated models: asking for access, and letting others have it.", no_args_is_help=True,
        rich_markup_mode="rich",
    )  # fmt: skip
    for function in (show, request, approve, deny, revoke):
        access.command()(command(function))
    access.command("list")(command(list_accesses))
    app.add_typer(access, name="access")


def show(session: Session, model: Model) -> None:
    """Shows what access to a model takes, its terms among it, and what you have of it.

    Example: mercat access show ada/adder
    """
    found = session.client.access.GetModelAccess(pb.GetModelAccessRequest(model=model))
    if session.json:
        output.say_json(found)
        return
    gate, access = found.gate, found.access
    manual = gate.approval == visibility_pb2.APPROVAL_MANUAL
    output.facts([
        ("model", model), ("visibility", NAMES[found.visibility]),
        ("approval", ("by its organisation" if manual else "automatic") if found.HasField("gate") else ""),
        ("terms", " ".join(part for part in (gate.terms_version, gate.terms_url) if part)),
        ("access", _STATES.get(access.state, "not asked for") if found.HasField("gate") else "not needed"),
        ("you may call it", "yes" if access.may_call else "no"),
        ("reason", access.reason),
        ("accepted", f"{access.accepted_version or access.accepted_digest} on {output.when(access.accepted_at)} UTC"
         if access.accepted_digest else ""),
    ])  # fmt: skip
    if gate.terms:
        typer.echo(output.clean(gate.terms))


def request(
    session: Session,
    model: Model,
    accept: Annotated[bool, typer.Option("--accept", help="Accept its terms for your organisation.")] = False,
    message: Annotated[str, typer.Option(help="To its organisation: who you are, and what for.")] = "",
) -> None:
    """Asks for access to a gated model, for your organisation.

    Example: mercat access request ada/adder --accept --message "For our search"
    """
    gate = session.client.access.GetModelAccess(pb.GetModelAccessRequest(model=model)).gate
    if gate.terms_digest and not accept:
        raise Refusal(
            f"access to {model} needs its terms accepted.",
            f"read them with `mercat access show {model}`, then say --accept",
        )
    asked = pb.RequestModelAccessRequest(model=model, terms_digest=gate.terms_digest, message=message)
    made = session.client.access.RequestModelAccess(asked).access
    if session.json:
        output.say_json(made)
    elif made.may_call:
        output.say(f"You have access to {made.model}.")
    else:
        output.say(f"{made.model.partition('/')[0]} is asked; `mercat access show {made.model}` says how that stands.")


def list_accesses(
    session: Session,
    model: Annotated[str, typer.Argument(help="Of your own; none: what you have asked for.")] = "",
    state: Annotated[str, typer.Option(help=f"{', '.join(_STATES.values())}; none: all.")] = "",
    limit: Limit = 50,
) -> None:
    """Lists who has asked for access to a model of yours, or what you have asked for.

    Example: mercat access list adder --state requested
    """
    states = {name: value for value, name in _STATES.items()}
    if state and state not in states:
        raise typer.BadParameter(f"{state!r} is none of {', '.join(states)}")
    name = session.full_name(model) if model else ""
    asked = pb.ListModelAccessesRequest(model=name, state=states.get(state, pb.ACCESS_STATE_UNSPECIFIED))
    answer = gather(session.client.access.ListModelAccesses, asked, "accesses", limit)
    if session.json:
        output.say_json(answer)
        return
    output.table(
        ["model", "organisation", "state", "calls", "asked (UTC)", "accepted", "message", "reason"],
        [
            (a.model, a.organisation, _STATES[a.state], "yes" if a.may_call else "no", output.when(a.requested_at),
             a.accepted_version or a.accepted_digest[:19], a.message, a.reason)
            for a in answer.accesses
        ],
        empty="Nobody has asked for access." if model else "You have asked for no access.",
    )  # fmt: skip


def approve(session: Session, model: Own, organisation: Organisation) -> None:
    """Lets an organisation that asked call a model of yours.

    Example: mercat access approve adder acme
    """
    asked = pb.ApproveModelAccessRequest(model=session.full_name(model), organisation=organisation)
    _said(session, session.client.access.ApproveModelAccess(asked).access)


def deny(session: Session, model: Own, organisation: Organisation, reason: Reason = "") -> None:
    """Turns a request for access down.

    Example: mercat access deny adder acme --reason "For research alone"
    """
    asked = pb.DenyModelAccessRequest(model=session.full_name(model), organisation=organisation, reason=reason)
    _said(session, session.client.access.DenyModelAccess(asked).access)


def revoke(session: Session, model: Own, organisation: Organisation, reason: Reason = "") -> None:
    """Ends an organisation's access; its calls are refused within seconds.

    Example: mercat access revoke adder acme --reason "The terms were broken"
    """
    asked = pb.RevokeModelAccessRequest(model=session.full_name(model), organisation=organisation, reason=reason)
    _said(session, session.client.access.RevokeModelAccess(asked).access)


def _said(session: Session, access: pb.ModelAccess) -> None:
    if session.json:
        output.say_json(access)
    else:
        output.say(f"Access of {access.organisation} to {access.model} is {_STATES[access.state]}.")
