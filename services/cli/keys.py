"""`mercat keys`: API keys for programs."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from mercat.auth.v1 import auth_pb2

from services.cli import output
from services.cli.command import Session, command
from services.cli.paging import Limit, gather
from services.cli.times import parse_span


def register(app: typer.Typer) -> None:
    keys = typer.Typer(help="API keys for programs.", no_args_is_help=True, rich_markup_mode="rich")
    keys.command("create")(command(create))
    keys.command("list")(command(list_keys))
    keys.command("revoke")(command(revoke))
    app.add_typer(keys, name="keys")


def create(
    session: Session,
    name: Annotated[str, typer.Argument(help="What you will know it by.")],
    scope: Annotated[list[str] | None, typer.Option(help="What it may do, such as inference:call; repeatable.")] = None,
    expires: Annotated[str, typer.Option(metavar="SPAN", help="When it ends, from now: 12h, 30d.")] = "",
    test: Annotated[bool, typer.Option("--test", help="Calls models without money.")] = False,
) -> None:
    """Makes a key. Its secret is shown this once; without --scope it may do all that you may.

    Examples:

      mercat keys create my-app --scope inference:call --expires 90d

      export MERCAT_API_KEY=$(mercat keys create ci --json | jq -r .secret)
    """
    request = auth_pb2.CreateApiKeyRequest(name=name, scopes=scope or [], test=test)
    if expires:
        request.expires_at.FromDatetime(datetime.now(UTC) + timedelta(seconds=parse_span(expires)))
    answer = session.client.auth.CreateApiKey(request)
    if session.json:
        output.say_json(answer)
    else:
        show_new_key(answer.api_key, answer.secret)


def show_new_key(key: auth_pb2.ApiKey, secret: str) -> None:
    output.facts([
        ("key", key.key_id), ("scopes", ", ".join(key.scopes)), ("ends", output.when(key.expires_at)),
        ("secret", secret),
    ])  # fmt: skip
    output.say("Keep the secret now: it is not shown again.")


def list_keys(session: Session, limit: Limit = 50) -> None:
    """Lists your keys of the current organisation, newest first.

    Example: mercat keys list
    """
    answer = gather(session.client.auth.ListApiKeys, auth_pb2.ListApiKeysRequest(), "api_keys", limit)
    if session.json:
        output.say_json(answer)
    else:
        show_keys(answer.api_keys)


def show_keys(keys: Iterable[auth_pb2.ApiKey], *, owners: bool = False) -> None:
    output.table(
        ["key", "name", "starts with", *(["of"] if owners else []), "scopes", "made", "last used", "ends", "active"],
        [
            (
                key.key_id, key.name, key.prefix, *([key.owner_id] if owners else []), ", ".join(key.scopes),
                output.when(key.created_at), output.when(key.last_used_at) or "never",
                output.when(key.expires_at) or "never", "yes" if key.is_active else "no",
            )
            for key in keys
        ],
        empty="There are no keys; make one with `mercat keys create NAME`.",
    )  # fmt: skip


def revoke(session: Session, key: Annotated[str, typer.Argument(metavar="KEY", help="Its id, key_….")]) -> None:
    """Ends a key everywhere within five seconds.

    Example: mercat keys revoke key_06b3c…
    """
    answer = session.client.auth.RevokeApiKey(auth_pb2.RevokeApiKeyRequest(key_id=key))
    if session.json:
        output.say_json(answer.api_key)
    else:
        output.say(f"{answer.api_key.name} ({answer.api_key.key_id}) is revoked.")
