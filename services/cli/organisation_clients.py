"""`mercat org clients`: OAuth clients of an organisation."""

from typing import Annotated

import typer
from mercat.auth.v1 import oauth_pb2 as pb

from services.cli import output
from services.cli.command import Session, command
from services.cli.paging import Limit, gather


def add_to(org: typer.Typer) -> None:
    clients = typer.Typer(
        help="OAuth clients: programs that get tokens by an id and a secret, and tools that people let in.",
        no_args_is_help=True, rich_markup_mode="rich",
    )  # fmt: skip
    for name, function in (("list", list_clients), ("create", create), ("delete", delete)):
        clients.command(name)(command(function))
    org.add_typer(clients, name="clients")


def list_clients(session: Session, limit: Limit = 50) -> None:
    """Lists OAuth clients, newest first.

    Example: mercat org clients list
    """
    stub, request = session.client.oauth_clients, pb.ListOAuthClientsRequest()
    answer = gather(stub.ListOAuthClients, request, "clients", limit)
    if session.json:
        output.say_json(answer)
        return
    output.table(
        ["client", "name", "acts as", "may", "made"],
        [
            (c.client_id, c.name, c.service_account_id or "who lets it in", ", ".join(c.scopes),
             output.when(c.created_at))
            for c in answer.clients
        ],
        empty="There are none; make one with `mercat org clients create NAME --account ACCOUNT`.",
    )  # fmt: skip


def create(
    session: Session,
    name: Annotated[str, typer.Argument(help="What you will know it by; people see it who let a tool in.")],
    account: Annotated[
        str, typer.Option(help="The service account it acts as, sva_…; otherwise it is a tool that people let in.")
    ] = "",
    scope: Annotated[list[str] | None, typer.Option(help="What it may do, such as inference:call; repeatable.")] = None,
) -> None:
    """Makes an OAuth client. Its secret is shown this once; a tool has none.

    Examples:

      mercat org clients create nightly --account sva_06b3c… --scope inference:call

      mercat org clients create "Acme notebook" --scope inference:call --scope usage:read
    """
    request = pb.CreateOAuthClientRequest(name=name, service_account_id=account, scopes=scope or [])
    answer = session.client.oauth_clients.CreateOAuthClient(request)
    if session.json:
        output.say_json(answer)
        return
    output.facts([
        ("client id", answer.client.client_id), ("secret", answer.client_secret),
        ("may", ", ".join(answer.client.scopes)),
    ])  # fmt: skip
    if answer.client_secret:
        output.say("Keep the secret now: it is not shown again.")


def delete(session: Session, client: Annotated[str, typer.Argument(metavar="CLIENT", help="Its id, cli_….")]) -> None:
    """Ends an OAuth client, its tokens and the sessions it holds, within five seconds.

    Example: mercat org clients delete cli_06b3c…
    """
    session.client.oauth_clients.DeleteOAuthClient(pb.DeleteOAuthClientRequest(client_id=client))
    if session.json:
        output.say_json({"clientId": client})
    else:
        output.say(f"{output.clean(client)} is ended.")
