"""`mercat keys`: API keys for programs."""

import sys
from collections.abc import Iterable
from typing import Annotated

import typer
from google.protobuf.duration_pb2 import Duration
from mercat.auth.v1 import auth_pb2, organisation_pb2
from mercat.auth.v1 import keys_pb2 as pb

from services.cli import output, signing
from services.cli.command import Session, command
from services.cli.key_options import (
    Allow,
    Budget,
    Deny,
    Expires,
    Key,
    Models,
    Scopes,
    Signed,
    Test,
    ahead,
    rules,
    set_budget,
    show,
)
from services.cli.limits import Burst, Concurrent, Daily, Monthly, Rate, given_limit
from services.cli.paging import Limit, gather
from services.cli.times import parse_span
from services.cli.wallet import parse_money


def register(app: typer.Typer) -> None:
    keys = typer.Typer(help="API keys for programs.", no_args_is_help=True, rich_markup_mode="rich")
    keys.command("create")(command(create))
    keys.command("list")(command(list_keys))
    keys.command("show")(command(show_key))
    keys.command("update")(command(update))
    keys.command("rotate")(command(rotate))
    keys.command("finish")(command(finish))
    keys.command("revoke")(command(revoke))
    keys.command("leaked")(command(leaked))
    signing.add_to(keys)
    app.add_typer(keys, name="keys")


def create(
    session: Session,
    name: Annotated[str, typer.Argument(help="What you will know it by.")],
    scope: Scopes = None, expires: Expires = "", test: Test = False, allow: Allow = None, deny: Deny = None,
    models: Models = None, rate: Rate = 0, burst: Burst = 0, concurrent: Concurrent = 0, daily: Daily = "",
    monthly: Monthly = "", budget: Budget = "",
) -> None:  # fmt: skip
    """Makes a key. Its secret is shown this once; without --scope it may do all that you may.

    Examples:

      mercat keys create my-app --scope inference:call --expires 90d

      mercat keys create backend --allow 10.0.0.0/8 --model ada/* --rate 20 --budget 50

      export MERCAT_API_KEY=$(mercat keys create ci --json | jq -r .secret)
    """
    request = auth_pb2.CreateApiKeyRequest(name=name, scopes=scope or [], test=test, rules=rules(allow, deny, models))
    if rate or burst or concurrent or daily or monthly:
        request.limit.MergeFrom(given_limit(rate, burst, concurrent, daily, monthly))
    if expires:
        request.expires_at.CopyFrom(ahead(expires))
    nanos = parse_money(budget) if budget else 0
    answer = session.client.auth.CreateApiKey(request)
    if nanos:
        set_budget(session, answer.api_key, nanos)
    say_new(session, answer)


def say_new(
    session: Session,
    answer: auth_pb2.CreateApiKeyResponse | organisation_pb2.CreateOrganisationKeyResponse | pb.RotateApiKeyResponse,
) -> None:
    if session.json:
        output.say_json(answer)
    else:
        show(answer.api_key, answer.secret)


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


def revoke(session: Session, key: Key) -> None:
    """Ends a key everywhere within five seconds.

    Example: mercat keys revoke key_06b3c…
    """
    answer = session.client.auth.RevokeApiKey(auth_pb2.RevokeApiKeyRequest(key_id=key))
    if session.json:
        output.say_json(answer.api_key)
    else:
        output.say(f"{answer.api_key.name} ({answer.api_key.key_id}) is revoked.")


def show_key(session: Session, key: Key) -> None:
    """Shows one of your keys, its rules and limits.

    Example: mercat keys show key_06b3c…
    """
    say_one(session, session.client.keys.GetApiKey(pb.GetApiKeyRequest(key_id=key)).api_key)


def say_one(session: Session, key: auth_pb2.ApiKey) -> None:
    if session.json:
        output.say_json(key)
    else:
        show(key)


def update(
    session: Session, key: Key,
    name: Annotated[str | None, typer.Option(help="What you will know it by.")] = None,
    scope: Scopes = None, expires: Expires = "",
    never_expires: Annotated[bool, typer.Option("--never-expires", help="It does not end by itself.")] = False,
    allow: Allow = None, deny: Deny = None, models: Models = None,
    require_signature: Signed = None,
    no_rules: Annotated[bool, typer.Option("--no-rules", help="Takes all rules away.")] = False,
) -> None:  # fmt: skip
    """Changes what is given, within five seconds everywhere. Of --allow, --deny, --model and --require-signature those
    that are given take the place of what the key had; `mercat limits key` changes its limits and `mercat budgets set`
    its budget.

    Examples:

      mercat keys update key_06b3c… --expires 90d --allow 203.0.113.7

      mercat keys update key_06b3c… --no-rules
    """
    request = pb.UpdateApiKeyRequest(key_id=key, name=name, scopes=scope or [], never_expires=never_expires)
    if expires:
        request.expires_at.CopyFrom(ahead(expires))
    if no_rules:
        request.rules.SetInParent()
    elif allow or deny or models or require_signature is not None:
        known = session.client.keys.GetApiKey(pb.GetApiKeyRequest(key_id=key)).api_key
        request.etag = known.etag
        request.rules.CopyFrom(known.rules)
        for given, kept in (
            (allow, request.rules.allowed_networks), (deny, request.rules.denied_networks),
            (models, request.rules.models),
        ):  # fmt: skip
            if given:
                kept[:] = given
        if require_signature is not None:
            request.rules.require_signature = require_signature
    say_one(session, session.client.keys.UpdateApiKey(request).api_key)


def rotate(
    session: Session, key: Key,
    overlap: Annotated[
        str, typer.Option(metavar="SPAN", help="For how long the secret before is good too, up to 30d; 0s: not at all.")
    ] = "24h",
) -> None:  # fmt: skip
    """Gives a key another secret, shown this once. Id, rules, limits, budget and usage stay.

    Examples:

      mercat keys rotate key_06b3c… --overlap 24h

      mercat keys rotate key_06b3c… --overlap 0s
    """
    request = pb.RotateApiKeyRequest(key_id=key, overlap=Duration(seconds=parse_span(overlap)))
    say_new(session, session.client.keys.RotateApiKey(request))


def finish(session: Session, key: Key) -> None:
    """Ends the secret before a rotation now.

    Example: mercat keys finish key_06b3c…
    """
    ended = session.client.keys.EndApiKeyOverlap(pb.EndApiKeyOverlapRequest(key_id=key)).api_key
    if session.json:
        output.say_json(ended)
    else:
        output.say(f"Only the newest secret of {output.clean(ended.name)} ({ended.key_id}) is good.")


def leaked(
    session: Session,
    found_at: Annotated[str, typer.Option("--found-at", help="Where it was found; its owner sees it.")] = "",
) -> None:
    """Ends a key, whosever it is, by its secret, which is typed or read from standard input. Takes no account.

    Example: mercat keys leaked --found-at https://example.com/paste < found.txt
    """
    if output.is_terminal():
        secret = str(typer.prompt("Secret", hide_input=True, err=True))
    else:
        secret = sys.stdin.readline().strip()
    answer = session.client.keys.RevokeLeakedKey(pb.RevokeLeakedKeyRequest(secret=secret, found_at=found_at))
    if session.json:
        output.say_json(answer)
    else:
        output.say("Thank you. If it was a key, it is none any more, and its owner knows.")
