"""`mercat payouts`: what your models earned, on its way to you."""

from typing import Annotated

import typer
from mercat.billing.v1 import payouts_pb2

from services.cli import output
from services.cli.command import Session, command
from services.cli.paging import Limit, gather
from services.common import money

Payout = payouts_pb2.Payout
_SCHEDULES = {"weekly": payouts_pb2.PAYOUT_SCHEDULE_WEEKLY, "monthly": payouts_pb2.PAYOUT_SCHEDULE_MONTHLY}
PayoutArgument = Annotated[str, typer.Argument(metavar="PAYOUT", help="po_…, as `mercat payouts list` shows it.")]


def register(app: typer.Typer) -> None:
    payouts = typer.Typer(
        help="What your models earned, on its way to you.", no_args_is_help=True, rich_markup_mode="rich",
        callback=lambda: None,
    )  # fmt: skip
    for name, function in (
        ("connect", connect), ("account", account), ("list", list_payouts), ("show", show), ("calls", calls),
        ("refund", refund),
    ):  # fmt: skip
        payouts.command(name)(command(function))
    app.add_typer(payouts, name="payouts")


def connect(
    session: Session,
    schedule: Annotated[str, typer.Option(metavar="WHEN", help="weekly or monthly.")] = "",
    return_url: Annotated[str, typer.Option(metavar="URL", help="Where the payment provider sends you back to.")] = "",
) -> None:
    """Makes the account that payouts go to, or changes how often they go.

    Example: mercat payouts connect --schedule weekly
    """
    if schedule and schedule not in _SCHEDULES:
        raise typer.BadParameter(f"{schedule!r} is none; choose {', '.join(_SCHEDULES)}", param_hint="--schedule")
    request = payouts_pb2.ConnectPayoutAccountRequest(return_url=return_url)
    if schedule:
        request.schedule = _SCHEDULES[schedule]
    answer = session.client.payouts.ConnectPayoutAccount(request)
    if session.json:
        output.say_json(answer)
        return
    _account(answer.account)
    if answer.onboarding_url:
        output.say(f"Say who you are and where your bank is at {answer.onboarding_url}")


def account(session: Session) -> None:
    """Shows where payouts go and when the next one does.

    Example: mercat payouts account
    """
    answer = session.client.payouts.GetPayoutAccount(payouts_pb2.GetPayoutAccountRequest()).account
    if session.json:
        output.say_json(answer)
    else:
        _account(answer)


def list_payouts(session: Session, limit: Limit = 50) -> None:
    """Lists your payouts, newest first.

    Example: mercat payouts list
    """
    answer = gather(session.client.payouts.ListPayouts, payouts_pb2.ListPayoutsRequest(), "payouts", limit)
    if session.json:
        output.say_json(answer)
        return
    output.table(
        ["time (UTC)", "amount", "status", "earned until (UTC)", "payout"],
        [
            (
                output.when(p.created_at), money.show(p.amount_nanos, p.currency), _status(p),
                output.when(p.earned_until), p.payout_id,
            )
            for p in answer.payouts
        ],
        empty="There are no payouts; say where they go with `mercat payouts connect`.", right=["amount"],
    )  # fmt: skip


def show(session: Session, payout: PayoutArgument) -> None:
    """Shows a payout with what it consists of.

    Example: mercat payouts show po_06ba…
    """
    p = session.client.payouts.GetPayout(payouts_pb2.GetPayoutRequest(payout_id=payout)).payout
    if session.json:
        output.say_json(p)
        return
    output.facts([
        ("amount", money.show(p.amount_nanos, p.currency)), ("status", _status(p)), ("why not", p.failure_code),
        ("earned from (UTC)", output.when(p.earned_from)), ("earned until (UTC)", output.when(p.earned_until)),
        ("paid (UTC)", output.when(p.paid_at)),
    ])  # fmt: skip
    output.table(
        ["what", "model", "count", "amount"],
        [
            (
                payouts_pb2.PayoutLine.Kind.Name(x.kind).removeprefix("KIND_").lower(), x.model,
                f"{x.count:,}" if x.count else "", money.show(x.amount_nanos, p.currency),
            )
            for x in p.lines
        ],
        empty="Its calls are being read.", right=["count", "amount"],
    )  # fmt: skip


def calls(session: Session, payout: PayoutArgument, limit: Limit = 50) -> None:
    """Lists the calls of a payout and what each brought.

    Example: mercat payouts calls po_06ba… -n 100
    """
    request = payouts_pb2.ListPayoutCallsRequest(payout_id=payout)
    answer = gather(session.client.payouts.ListPayoutCalls, request, "calls", limit)
    if session.json:
        output.say_json(answer)
        return
    output.table(
        ["time (UTC)", "call", "model", "cost", "earned"],
        [
            (
                output.when(c.record.timestamp), c.record.request_id, f"{c.record.model}@{c.record.version}",
                money.show(c.record.cost_nanos), money.show(c.amount_nanos),
            )
            for c in answer.calls
        ],
        empty="No calls are in this payout.", right=["cost", "earned"],
    )  # fmt: skip


def refund(
    session: Session,
    request: Annotated[str, typer.Argument(help="The call, by its request id.")],
    reason: Annotated[str, typer.Option(help="Why, for the records.")] = "",
) -> None:
    """Gives the price of a call to one of your models back to who made it.

    Example: mercat payouts refund req_06ba… --reason "wrong answer"
    """
    asked = payouts_pb2.RefundCallRequest(request_id=request, reason=reason)
    answer = session.client.payouts.RefundCall(asked).refund
    if session.json:
        output.say_json(answer)
    else:
        output.say(f"Refunded {money.show(answer.amount_nanos)}; {answer.refund_id}.")


def _account(a: payouts_pb2.PayoutAccount) -> None:
    schedule = next((name for name, value in _SCHEDULES.items() if value == a.schedule), "")
    output.facts([
        ("account", a.provider_account), ("takes money", "yes" if a.ready else "not yet"), ("schedule", schedule),
        ("next payout (UTC)", output.when(a.next_payout_at)),
    ])  # fmt: skip


def _status(p: Payout) -> str:
    return Payout.Status.Name(p.status).removeprefix("STATUS_").lower()
