"""What the commands that make and change keys have in common: rules, limits, a budget."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from google.protobuf.timestamp_pb2 import Timestamp
from mercat.auth.v1 import auth_pb2
from mercat.billing.v1 import budgets_pb2

from services.cli import output
from services.cli.command import Session
from services.cli.limits import said
from services.cli.times import parse_span

Key = Annotated[str, typer.Argument(metavar="KEY", help="Its id, key_….")]
Scopes = Annotated[list[str] | None, typer.Option(help="What it may do, such as inference:call; repeatable.")]
Expires = Annotated[str, typer.Option(metavar="SPAN", help="When it ends, from now: 12h, 30d.")]
Test = Annotated[bool, typer.Option("--test", help="Calls models without money.")]
Allow = Annotated[
    list[str] | None,
    typer.Option(metavar="NETWORK", help="Calls come from here only: 203.0.113.7, 10.0.0.0/8; repeatable."),
]
Deny = Annotated[list[str] | None, typer.Option(metavar="NETWORK", help="Calls do not come from here; repeatable.")]
Models = Annotated[
    list[str] | None, typer.Option("--model", metavar="MODEL", help="Calls this only: ada/adder, ada/*; repeatable.")
]
Signed = Annotated[
    bool | None, typer.Option("--require-signature/--no-require-signature", help="Calls must be signed.")
]
Budget = Annotated[str, typer.Option(metavar="DOLLARS", help="The most that its calls may cost a month.")]


def rules(allow: Sequence[str] | None, deny: Sequence[str] | None, models: Sequence[str] | None) -> auth_pb2.KeyRules:
    return auth_pb2.KeyRules(allowed_networks=allow or [], denied_networks=deny or [], models=models or [])


def ahead(span: str) -> Timestamp:
    """The instant that is a span from now. Raises BadParameter."""
    at = Timestamp()
    at.FromDatetime(datetime.now(UTC) + timedelta(seconds=parse_span(span)))
    return at


def set_budget(session: Session, key: auth_pb2.ApiKey, nanos: int) -> None:
    """Gives a new key a monthly budget; where that fails, the key is revoked."""
    request = budgets_pb2.SetBudgetRequest(
        name=key.key_id.replace("_", "-"), key_id=key.key_id, period=budgets_pb2.BUDGET_PERIOD_MONTHLY,
        limit_nanos=nanos,
    )  # fmt: skip
    try:
        session.client.budgets.SetBudget(request)
    except BaseException:
        session.client.auth.RevokeApiKey(auth_pb2.RevokeApiKeyRequest(key_id=key.key_id))
        raise


def show(key: auth_pb2.ApiKey, secret: str = "") -> None:
    """A key; when it was just made or rotated, with its secret."""
    facts = [("key", key.key_id), ("name", key.name), ("scopes", ", ".join(key.scopes))]
    if key.test:
        facts.append(("kind", "test: calls cost nothing"))
    facts += [("ends", output.when(key.expires_at) or "never"), ("last used", output.when(key.last_used_at) or "never")]
    for name, values in (
        ("from", key.rules.allowed_networks), ("not from", key.rules.denied_networks), ("models", key.rules.models)
    ):  # fmt: skip
        if values:
            facts.append((name, ", ".join(values)))
    if key.rules.require_signature:
        facts.append(("calls", "must be signed"))
    if key.HasField("limit"):
        facts.append(("limit", said(key.limit)))
    if key.HasField("previous_expires_at") and key.previous_expires_at.ToDatetime(UTC) > datetime.now(UTC):
        used = output.when(key.previous_last_used_at) or "never"
        facts.append(("secret before", f"good until {output.when(key.previous_expires_at)}, last used {used}"))
    if not key.is_active:
        facts.append(("active", "no"))
    if secret:
        facts.append(("secret", secret))
    output.facts(facts)
    if secret:
        output.say("Keep the secret now: it is not shown again.")
