"""`mercat credits`: credit that was given, and for administrators who gets it."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from mercat.billing.v1 import credits_pb2

from services.cli import output
from services.cli.command import Session, command
from services.cli.paging import Limit, gather
from services.cli.times import parse_span
from services.cli.wallet import parse_money
from services.common import money


def register(app: typer.Typer) -> None:
    credits_ = typer.Typer(
        help="Credit that was given to you, which calls spend first.", no_args_is_help=True, rich_markup_mode="rich"
    )
    credits_.command("list")(command(list_credits))
    credits_.command("grant")(command(grant))
    credits_.command("limit")(command(limit))
    app.add_typer(credits_, name="credits")


def list_credits(session: Session, limit: Limit = 50) -> None:
    """Lists the credit you were given, newest first. Calls spend the lowest priority first, then what expires first.

    Example: mercat credits list
    """
    answer = gather(session.client.credits.ListCreditGrants, credits_pb2.ListCreditGrantsRequest(), "grants", limit)
    if session.json:
        output.say_json(answer)
        return
    output.table(
        ["given (UTC)", "amount", "left", "priority", "expires (UTC)", "reason", "grant"],
        [
            (
                output.when(one.created_at), money.show(one.amount_nanos, one.currency),
                money.show(one.remaining_nanos, one.currency), str(one.priority),
                output.when(one.expires_at) or "never", one.reason, one.grant_id,
            )
            for one in answer.grants
        ],
        empty="You were given no credit.",
        right=["amount", "left", "priority"],
    )  # fmt: skip


def grant(
    session: Session,
    organization: Annotated[str, typer.Argument(help="Its id, org_…, as `mercat balance` shows it.")],
    amount: Annotated[str, typer.Argument(help="US dollars, such as 10 or 12.50.")],
    expires: Annotated[str, typer.Option(metavar="SPAN", help="When it ends, from now: 12h, 30d.")] = "",
    priority: Annotated[int, typer.Option(min=0, max=100, help="Of several, the lowest is spent first.")] = 0,
    reason: Annotated[str, typer.Option(help="What it is given for.")] = "",
) -> None:
    """Gives an organisation credit; for administrators.

    Example: mercat credits grant org_06b3c… 25 --expires 30d --reason welcome --profile admin
    """
    request = credits_pb2.CreateCreditGrantRequest(
        org_id=organization, amount_nanos=parse_money(amount), priority=priority, reason=reason
    )
    if expires:
        request.expires_at.FromDatetime(datetime.now(UTC) + timedelta(seconds=parse_span(expires)))
    made = session.client.credits.CreateCreditGrant(request).grant
    if session.json:
        output.say_json(made)
        return
    ends = f" until {output.when(made.expires_at)} UTC" if made.HasField("expires_at") else ""
    output.say(f"Gave {money.show(made.amount_nanos, made.currency)} to {made.org_id}{ends}: {made.grant_id}.")


def limit(
    session: Session,
    organization: Annotated[str, typer.Argument(help="Its id, org_….")],
    amount: Annotated[str, typer.Argument(help="US dollars; 0: it pays in advance.")],
) -> None:
    """Sets how far below zero an organisation's wallet may go; for administrators.

    Example: mercat credits limit org_06b3c… 500 --profile admin
    """
    request = credits_pb2.SetCreditLimitRequest(org_id=organization, limit_nanos=parse_money(amount))
    wallet = session.client.credits.SetCreditLimit(request).wallet
    if session.json:
        output.say_json(wallet)
        return
    output.say(
        f"The wallet of {wallet.org_id} may go down to {money.show(-wallet.credit_limit_nanos, wallet.currency)}."
    )
