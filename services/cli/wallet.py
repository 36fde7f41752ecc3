"""`mercat balance`, `topup`, `transactions`, `earnings`."""

from typing import Annotated

import typer
from mercat.billing.v1 import billing_pb2

from services.cli import output, payments
from services.cli.command import Session, command
from services.cli.paging import Limit, gather
from services.common import money


def register(app: typer.Typer) -> None:
    for function in (balance, topup, transactions, earnings):
        app.command()(command(function))


def parse_money(amount: str) -> int:
    """Nanos of an amount as people type it. Raises BadParameter for what is none."""
    try:
        return money.parse(amount)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def balance(session: Session) -> None:
    """Shows what there is to spend.

    Example: mercat balance
    """
    wallet = session.client.billing.GetWallet(billing_pb2.GetWalletRequest()).wallet
    if session.json:
        output.say_json(wallet)
        return

    def some(nanos: int) -> str:
        return money.show(nanos, wallet.currency) if nanos else ""

    output.facts([
        ("balance", money.show(wallet.balance_nanos, wallet.currency)),
        ("credit given", some(wallet.promotional_nanos)),
        ("may go below zero by", some(wallet.credit_limit_nanos)), ("held for calls", some(wallet.reserved_nanos)),
        ("free to spend", money.show(wallet.available_nanos, wallet.currency)), ("organisation", wallet.org_id),
    ])  # fmt: skip


def topup(
    session: Session,
    amount: Annotated[str, typer.Argument(help="US dollars, such as 10 or 12.50.")],
    card: Annotated[bool, typer.Option("--card", help="Charge the default card.")] = False,
) -> int | None:
    """Adds credit. Without --card it is sandbox credit, and nothing is charged.

    Examples:

      mercat topup 10

      mercat topup 10 --card
    """
    nanos = parse_money(amount)
    if card:
        return payments.pay(session, nanos)
    answer = session.client.billing.TopUpWallet(billing_pb2.TopUpWalletRequest(amount_nanos=nanos))
    if session.json:
        output.say_json(answer)
        return None
    wallet = answer.wallet
    added = money.show(answer.transaction.amount_nanos, answer.transaction.currency or wallet.currency)
    output.say(f"Added {added}. The balance is {money.show(wallet.balance_nanos, wallet.currency)}.")
    return None


def transactions(session: Session, limit: Limit = 50) -> None:
    """Lists what came and went other than by calls, newest first.

    Example: mercat transactions -n 10
    """
    request = billing_pb2.ListTransactionsRequest()
    answer = gather(session.client.billing.ListTransactions, request, "transactions", limit)
    if session.json:
        output.say_json(answer)
        return
    output.table(
        ["time (UTC)", "type", "amount", "status", "transaction"],
        [
            (
                output.when(one.created_at),
                billing_pb2.Transaction.Type.Name(one.type).removeprefix("TYPE_").lower().replace("_", " "),
                money.show(one.amount_nanos, one.currency), one.status, one.transaction_id,
            )
            for one in answer.transactions
        ],
        empty="There are no transactions; add credit with `mercat topup 10`.",
        right=["amount"],
    )  # fmt: skip


def earnings(session: Session) -> None:
    """Shows what your models have earned and not been paid.

    Example: mercat earnings
    """
    answer = session.client.billing.GetEarnings(billing_pb2.GetEarningsRequest())
    if session.json:
        output.say_json(answer)
        return
    fee = f"{answer.platform_fee_ppm / 10_000:g} % of each call"
    output.facts([
        ("earned and not paid", money.show(answer.payable_nanos, answer.currency)),
        ("of it held for now", money.show(answer.held_nanos, answer.currency) if answer.held_nanos else ""),
        ("of it disputed", money.show(answer.disputed_nanos, answer.currency) if answer.disputed_nanos else ""),
        ("to be paid next", money.show(answer.available_nanos, answer.currency)),
        ("paid out so far", money.show(answer.paid_nanos, answer.currency) if answer.paid_nanos else ""),
        ("kept by the platform", fee),
    ])  # fmt: skip
