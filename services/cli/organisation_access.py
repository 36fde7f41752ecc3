"""The rest of `mercat org`: roles, invitations, service accounts and the keys of an organisation."""

from typing import Annotated

import typer
from mercat.auth.v1 import organisation_pb2 as pb

from services.cli import output
from services.cli.command import Session, command
from services.cli.key_options import Allow, Deny, Expires, Models, Scopes, Test, ahead, rules
from services.cli.keys import say_new, show_keys
from services.cli.limits import Burst, Concurrent, Daily, Monthly, Rate, given_limit
from services.cli.paging import Limit, gather

_ROLE = "owner, admin, billing, developer, viewer or one of your own."


def add_to(org: typer.Typer) -> None:
    for function in (invite, invitations, withdraw, join):
        org.command()(command(function))
    for name, sentence, commands in (
        (
            "roles", "What members may do.",
            {"list": command(list_roles), "set": command(set_role), "delete": command(delete_role)},
        ),
        (
            "accounts", "Service accounts: programs with a role, and no password.",
            {"list": command(list_accounts), "create": command(create_account), "delete": command(delete_account)},
        ),
        (
            "keys", "Every key of the organisation, and those that members share.",
            {"list": command(list_keys), "create": command(create_key), "revoke": command(revoke_key)},
        ),
    ):  # fmt: skip
        group = typer.Typer(help=sentence, no_args_is_help=True, rich_markup_mode="rich")
        for verb, run in commands.items():
            group.command(verb)(run)
        org.add_typer(group, name=name)


def invite(
    session: Session,
    email: Annotated[str, typer.Argument(help="Whom to invite: the address of their account.")],
    role: Annotated[str, typer.Option(help=_ROLE)] = "developer",
    expires: Expires = "",
) -> None:
    """Invites somebody by mail; the code is shown too, this once. It works for an account of that address, once, for
    seven days.

    Example: mercat org invite ada@example.com --role admin
    """
    request = pb.CreateInvitationRequest(email=email, role=role)
    if expires:
        request.expires_at.CopyFrom(ahead(expires))
    answer = session.client.invitations.CreateInvitation(request)
    if session.json:
        output.say_json(answer)
        return
    made = answer.invitation
    output.facts([
        ("invitation", made.invitation_id), ("for", made.email), ("role", made.role),
        ("ends", output.when(made.expires_at)), ("code", answer.code),
    ])  # fmt: skip
    output.say(f"It went to {output.clean(made.email)} by mail. They come in with `mercat org join {answer.code}`.")


def invitations(session: Session, limit: Limit = 50) -> None:
    """Lists invitations that nobody has accepted yet.

    Example: mercat org invitations
    """
    answer = gather(session.client.invitations.ListInvitations, pb.ListInvitationsRequest(), "invitations", limit)
    if session.json:
        output.say_json(answer)
        return
    output.table(
        ["invitation", "for", "role", "made", "ends"],
        [
            (i.invitation_id, i.email, i.role, output.when(i.created_at), output.when(i.expires_at))
            for i in answer.invitations
        ],
        empty="No invitation is open; invite somebody with `mercat org invite EMAIL`.",
    )  # fmt: skip


def withdraw(session: Session, invitation: Annotated[str, typer.Argument(help="Its id, ivt_….")]) -> None:
    """Withdraws an invitation.

    Example: mercat org withdraw ivt_06b3c…
    """
    session.client.invitations.RevokeInvitation(pb.RevokeInvitationRequest(invitation_id=invitation))
    if session.json:
        output.say_json({"invitationId": invitation})
    else:
        output.say(f"{output.clean(invitation)} is withdrawn.")


def join(session: Session, code: Annotated[str, typer.Argument(help="What you were sent, mi_….")]) -> None:
    """Accepts an invitation.

    Example: mercat org join mi_…
    """
    one = session.client.invitations.AcceptInvitation(pb.AcceptInvitationRequest(code=code)).organisation
    if session.json:
        output.say_json(one)
    else:
        output.say(f"You are {one.member_role} of {one.handle}. Work in it with `mercat org use {one.handle}`.")


def list_roles(session: Session, limit: Limit = 50) -> None:
    """Lists roles and what they may do.

    Example: mercat org roles list
    """
    answer = gather(session.client.organisations.ListRoles, pb.ListRolesRequest(), "roles", limit)
    if session.json:
        output.say_json(answer)
        return
    rows = [(one.name, "" if one.built_in else "yes", ", ".join(one.scopes)) for one in answer.roles]
    output.table(["role", "your own", "may"], rows, empty="There are no roles.")


def set_role(
    session: Session,
    name: Annotated[str, typer.Argument(help="Small letters, digits, hyphens.")],
    scope: Annotated[list[str], typer.Option(help="What it may do, such as usage:read; repeatable.")],
) -> None:
    """Makes a role of the organisation's own, or changes what it may do.

    Example: mercat org roles set auditor --scope audit:read --scope billing:read
    """
    role = session.client.organisations.SetRole(pb.SetRoleRequest(name=name, scopes=scope)).role
    if session.json:
        output.say_json(role)
    else:
        output.say(f"{role.name} may: {', '.join(role.scopes)}.")


def delete_role(session: Session, name: str) -> None:
    """Removes a role that nobody has.

    Example: mercat org roles delete auditor
    """
    session.client.organisations.DeleteRole(pb.DeleteRoleRequest(name=name))
    if session.json:
        output.say_json({"name": name})
    else:
        output.say(f"{output.clean(name)} is removed.")


def list_accounts(session: Session, limit: Limit = 50) -> None:
    """Lists service accounts, newest first.

    Example: mercat org accounts list
    """
    stub, request = session.client.service_accounts, pb.ListServiceAccountsRequest()
    answer = gather(stub.ListServiceAccounts, request, "service_accounts", limit)
    if session.json:
        output.say_json(answer)
        return
    output.table(
        ["account", "name", "role", "made", "by"],
        [
            (a.service_account_id, a.name, a.role, output.when(a.created_at), a.created_by)
            for a in answer.service_accounts
        ],
        empty="There are none; make one with `mercat org accounts create NAME`.",
    )  # fmt: skip


def create_account(
    session: Session,
    name: Annotated[str, typer.Argument(help="What you will know it by.")],
    role: Annotated[str, typer.Option(help=_ROLE)] = "developer",
) -> None:
    """Makes a service account; give it a key with `mercat org keys create NAME --account ACCOUNT`.

    Example: mercat org accounts create ci --role developer
    """
    request = pb.CreateServiceAccountRequest(name=name, role=role)
    made = session.client.service_accounts.CreateServiceAccount(request).service_account
    if session.json:
        output.say_json(made)
    else:
        output.say(f"{output.clean(made.name)} is {made.service_account_id}.")


def delete_account(session: Session, account: Annotated[str, typer.Argument(help="Its id, sva_….")]) -> None:
    """Ends a service account and its keys within five seconds.

    Example: mercat org accounts delete sva_06b3c…
    """
    request = pb.DeleteServiceAccountRequest(service_account_id=account)
    session.client.service_accounts.DeleteServiceAccount(request)
    if session.json:
        output.say_json({"serviceAccountId": account})
    else:
        output.say(f"{output.clean(account)} is ended.")


def list_keys(session: Session, limit: Limit = 50) -> None:
    """Lists all keys of the organisation, whosever they are, newest first.

    Example: mercat org keys list
    """
    stub, request = session.client.service_accounts, pb.ListOrganisationKeysRequest()
    answer = gather(stub.ListOrganisationKeys, request, "api_keys", limit)
    if session.json:
        output.say_json(answer)
    else:
        show_keys(answer.api_keys, owners=True)


def create_key(
    session: Session,
    name: Annotated[str, typer.Argument(help="What you will know it by.")],
    account: Annotated[str, typer.Option(help="Of a service account, sva_…; otherwise members share it.")] = "",
    scope: Scopes = None, expires: Expires = "", test: Test = False, allow: Allow = None, deny: Deny = None,
    models: Models = None, rate: Rate = 0, burst: Burst = 0, concurrent: Concurrent = 0, daily: Daily = "",
    monthly: Monthly = "",
) -> None:  # fmt: skip
    """Makes a key that is nobody's own, and so outlives memberships. Its secret is shown this once. `mercat keys`
    shows, changes and rotates it.

    Example: mercat org keys create backend --scope inference:call --allow 10.0.0.0/8
    """
    request = pb.CreateOrganisationKeyRequest(
        name=name, service_account_id=account, scopes=scope or [], test=test, rules=rules(allow, deny, models)
    )
    if rate or burst or concurrent or daily or monthly:
        request.limit.MergeFrom(given_limit(rate, burst, concurrent, daily, monthly))
    if expires:
        request.expires_at.CopyFrom(ahead(expires))
    say_new(session, session.client.service_accounts.CreateOrganisationKey(request))


def revoke_key(session: Session, key: Annotated[str, typer.Argument(metavar="KEY", help="Its id, key_….")]) -> None:
    """Ends a key of the organisation, whosever it is, within five seconds.

    Example: mercat org keys revoke key_06b3c…
    """
    request = pb.RevokeOrganisationKeyRequest(key_id=key)
    revoked = session.client.service_accounts.RevokeOrganisationKey(request).api_key
    if session.json:
        output.say_json(revoked)
    else:
        output.say(f"{output.clean(revoked.name)} ({revoked.key_id}) is revoked.")
