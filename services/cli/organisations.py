"""`mercat org`: organisations and who is in them."""

from typing import Annotated

import typer
from mercat.auth.v1 import organisation_pb2 as pb

from services.cli import organisation_access, organisation_clients, output, sso, teams
from services.cli.command import Session, command
from services.cli.organisation_members import Member, member_id
from services.cli.paging import Limit, gather
from services.cli.session import Refusal


def register(app: typer.Typer) -> None:
    org = typer.Typer(help="Organisations, and who may do what in them.", no_args_is_help=True, rich_markup_mode="rich")
    org.command("list")(command(list_organisations))
    for function in (create, use, show, rename, members, role, remove, leave, transfer):
        org.command()(command(function))
    organisation_access.add_to(org)
    organisation_clients.add_to(org)
    teams.add_to(org)
    sso.add_to(org)
    app.add_typer(org, name="org")


def list_organisations(session: Session, limit: Limit = 50) -> None:
    """Lists the organisations you are in.

    Example: mercat org list
    """
    request = pb.ListOrganisationsRequest()
    answer = gather(session.client.organisations.ListOrganisations, request, "organisations", limit)
    if session.json:
        output.say_json(answer)
        return
    output.table(
        ["organisation", "name", "your role", "made", "current"],
        [
            (
                one.handle, one.display_name, "personal" if one.personal else one.member_role,
                output.when(one.created_at), "yes" if one.scopes else "",
            )
            for one in answer.organisations
        ],
        empty="You are in no organisation.",
    )  # fmt: skip


def create(
    session: Session,
    handle: Annotated[str, typer.Argument(help="The first half of its models' names.")],
    name: Annotated[str, typer.Option(help="What people call it.")] = "",
) -> None:
    """Makes an organisation that you own, with a wallet of its own.

    Example: mercat org create acme --name "Acme Corporation" && mercat org use acme
    """
    request = pb.CreateOrganisationRequest(handle=handle, display_name=name)
    made = session.client.organisations.CreateOrganisation(request).organisation
    if session.json:
        output.say_json(made)
    else:
        output.say(f"{made.handle} is made. Work in it with `mercat org use {made.handle}`.")


def use(session: Session, handle: Annotated[str, typer.Argument(metavar="ORGANISATION")]) -> None:
    """Makes an organisation the one that commands are for: it pays, and owns what you make. Your own is your username.

    Example: mercat org use acme
    """
    if session.api_key:
        raise Refusal("A key is for one organisation.", "leave --api-key and MERCAT_API_KEY out")
    _ = session.client
    session.credentials.switch(handle)
    if session.json:
        output.say_json({"organisation": handle})
    else:
        output.say(f"Commands are for [bold]{handle}[/] now.")


def show(session: Session) -> None:
    """Shows the current organisation, and what you may do in it.

    Example: mercat org show
    """
    one = session.client.organisations.GetOrganisation(pb.GetOrganisationRequest()).organisation
    if session.json:
        output.say_json(one)
        return
    output.facts([
        ("organisation", one.handle), ("name", one.display_name), ("id", one.org_id), ("your role", one.member_role),
        ("you may", ", ".join(one.scopes)), ("made", output.when(one.created_at)),
    ])  # fmt: skip


def rename(session: Session, name: Annotated[str, typer.Argument(help="What people call it.")]) -> None:
    """Changes the name of the current organisation; its handle stays.

    Example: mercat org rename "Acme Limited"
    """
    request = pb.UpdateOrganisationRequest(display_name=name)
    one = session.client.organisations.UpdateOrganisation(request).organisation
    if session.json:
        output.say_json(one)
    else:
        output.say(f"{one.handle} is called {output.clean(one.display_name)}.")


def members(session: Session, limit: Limit = 50) -> None:
    """Lists the members of the current organisation.

    Example: mercat org members
    """
    answer = gather(session.client.organisations.ListMembers, pb.ListMembersRequest(), "members", limit)
    if session.json:
        output.say_json(answer)
        return
    output.table(
        ["username", "name", "email", "role", "since", "user"],
        [
            (m.username, m.display_name, m.email, m.role, output.when(m.joined_at), m.user_id)
            for m in answer.members
        ],
        empty="It has no members.",
    )  # fmt: skip


def role(
    session: Session,
    user: Member,
    role: Annotated[str, typer.Argument(help="owner, admin, billing, developer, viewer or one of your own.")],
) -> None:
    """Gives a member another role.

    Example: mercat org role ada admin
    """
    request = pb.SetMemberRoleRequest(user_id=member_id(session, user), role=role)
    member = session.client.organisations.SetMemberRole(request).member
    if session.json:
        output.say_json(member)
    else:
        output.say(f"{member.username} is {member.role} now.")


def remove(session: Session, user: Member) -> None:
    """Takes a member out: their sessions and own keys of this organisation stop within seconds.

    Example: mercat org remove ada
    """
    user_id = member_id(session, user)
    session.client.organisations.RemoveMember(pb.RemoveMemberRequest(user_id=user_id))
    if session.json:
        output.say_json({"userId": user_id})
    else:
        output.say(f"{output.clean(user)} is out.")


def leave(session: Session) -> None:
    """Takes yourself out of the current organisation.

    Example: mercat org leave
    """
    session.client.organisations.LeaveOrganisation(pb.LeaveOrganisationRequest())
    if session.json:
        output.say_json({"left": True})
    else:
        output.say("You are out. Go on in another with `mercat org use ORGANISATION`.")


def transfer(session: Session, user: Member) -> None:
    """Makes another member the owner, and you an admin.

    Example: mercat org transfer ada
    """
    request = pb.TransferOwnershipRequest(user_id=member_id(session, user))
    member = session.client.organisations.TransferOwnership(request).member
    if session.json:
        output.say_json(member)
    else:
        output.say(f"{member.username} owns it now, and you are an admin.")
