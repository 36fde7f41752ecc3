"""`mercat cards` and `mercat payments`, and what `mercat topup --card` does."""

import time
from typing import Annotated

import typer
from mercat.billing.v1 import payments_pb2

from services.cli import output
from services.cli.command import Session, command
from services.cli.paging import Limit, gather
from services.common import money

Payment = payments_pb2.Payment
CardId = Annotated[str, typer.Argument(metavar="CARD", help="Its id, pm_….")]
_WAIT = 60.0  # seconds for the provider's answer
_UNSETTLED = (Payment.STATUS_PENDING, Payment.STATUS_PROCESSING)


def register(app: typer.Typer) -> None:
    cards = typer.Typer(help="Cards that payments are charged to.", no_args_is_help=True, rich_markup_mode="rich")
    cards.command("add")(command(add))
    cards.command("setup")(command(setup))
    cards.command("list")(command(list_cards))
    cards.command("default")(command(default))
    cards.command("remove")(command(remove))
    app.add_typer(cards, name="cards")
    payments = typer.Typer(help="Payments by card.", no_args_is_help=True, rich_markup_mode="rich")
    payments.command("list")(command(list_payments))
    payments.command("get")(command(get))
    payments.command("auto")(command(auto))
    payments.command("refund")(command(refund))
    app.add_typer(payments, name="payments")


def add(
    session: Session,
    card: Annotated[str, typer.Argument(help="The provider's name of it; in the sandbox a test card: pm_card_visa.")],
    default: Annotated[bool, typer.Option("--default", help="Charge this one from now on.")] = False,
) -> None:
    """Keeps a card that the payment provider knows.

    Example: mercat cards add pm_card_visa
    """
    request = payments_pb2.AttachPaymentMethodRequest(payment_method=card, make_default=default)
    made = session.client.payments.AttachPaymentMethod(request).payment_method
    if session.json:
        output.say_json(made)
        return
    charged = ", which payments are charged to from now on" if made.is_default else ""
    output.say(f"Kept {_name(made)} as {made.payment_method_id}{charged}.")


def setup(session: Session) -> None:
    """Begins to set up a card in a browser, with the provider's own library: the number never comes to Mercat.

    Example: mercat cards setup
    """
    made = session.client.payments.CreateSetupIntent(payments_pb2.CreateSetupIntentRequest())
    if session.json:
        output.say_json(made)
        return
    output.facts([
        ("setup intent", made.setup_intent_id), ("client secret", made.client_secret), ("provider", made.provider)
    ])  # fmt: skip
    output.say("When the provider knows the card, keep it with `mercat cards add pm_…`.")


def list_cards(session: Session, limit: Limit = 50) -> None:
    """Lists your cards, newest first.

    Example: mercat cards list
    """
    request = payments_pb2.ListPaymentMethodsRequest()
    answer = gather(session.client.payments.ListPaymentMethods, request, "payment_methods", limit)
    if session.json:
        output.say_json(answer)
        return
    output.table(
        ["card", "expires", "default", "id"],
        [
            (_name(m), f"{m.exp_month:02d}/{m.exp_year}", "yes" if m.is_default else "", m.payment_method_id)
            for m in answer.payment_methods
        ],
        empty="There are no cards; add one with `mercat cards add pm_card_visa`.",
    )


def default(session: Session, card: CardId) -> None:
    """Chooses the card that is charged from now on.

    Example: mercat cards default pm_06ba…
    """
    request = payments_pb2.SetDefaultPaymentMethodRequest(payment_method_id=card)
    chosen = session.client.payments.SetDefaultPaymentMethod(request).payment_method
    if session.json:
        output.say_json(chosen)
        return
    output.say(f"{_name(chosen)} is charged from now on.")


def remove(session: Session, card: CardId) -> None:
    """Forgets a card.

    Example: mercat cards remove pm_06ba…
    """
    request = payments_pb2.DetachPaymentMethodRequest(payment_method_id=card)
    answer = session.client.payments.DetachPaymentMethod(request)
    if session.json:
        output.say_json(answer)
        return
    output.say(f"{card} is forgotten.")


def list_payments(session: Session, limit: Limit = 50) -> None:
    """Lists your payments, newest first.

    Example: mercat payments list -n 10
    """
    answer = gather(session.client.payments.ListPayments, payments_pb2.ListPaymentsRequest(), "payments", limit)
    if session.json:
        output.say_json(answer)
        return
    output.table(
        ["time (UTC)", "for", "amount", "status", "payment"],
        [
            (
                output.when(p.created_at), _purpose(p), money.show(p.amount_nanos, p.currency),
                _status(p) + (f" ({p.failure_code})" if p.failure_code else ""), p.payment_id,
            )
            for p in answer.payments
        ],
        empty="There are no payments; make one with `mercat topup 10 --card`.",
        right=["amount"],
    )  # fmt: skip


def get(
    session: Session,
    payment: Annotated[str, typer.Argument(help="Its id, pay_….")],
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it has ended.")] = False,
) -> int:
    """Shows a payment. With --wait, exit status 1 when it did not succeed.

    Example: mercat payments get pay_06ba… --wait
    """
    found = until_settled(session, payment) if wait else _get(session, payment)
    show_payment(session, found)
    return 1 if wait and found.status != Payment.STATUS_SUCCEEDED else 0


def refund(
    session: Session,
    payment: Annotated[str, typer.Argument(help="Its id, pay_….")],
    amount: Annotated[str, typer.Option(metavar="AMOUNT", help="How much of it; without it all that is left.")] = "",
    reason: Annotated[str, typer.Option(help="Why, for the books.")] = "",
) -> None:
    """Gives a payment back to its card; for administrators.

    Example: mercat payments refund pay_06ba… --amount 5
    """
    request = payments_pb2.RefundPaymentRequest(payment_id=payment, reason=reason)
    if amount:
        request.amount_nanos = parse(amount)
    made = session.client.payments.RefundPayment(request).refund
    if session.json:
        output.say_json(made)
        return
    lost = made.amount_nanos - made.taken_nanos
    short = f" The wallet was short of {money.show(lost)} of it, which is lost." if lost else ""
    output.say(f"{money.show(made.amount_nanos)} go back to the card as {made.refund_id}.{short}")


def auto(
    session: Session,
    below: Annotated[str, typer.Option(metavar="AMOUNT", help="Charge the card when less than this is free.")] = "",
    amount: Annotated[str, typer.Option("--add", metavar="AMOUNT", help="How much to charge.")] = "",
    off: Annotated[bool, typer.Option("--off", help="Charge nothing by itself any more.")] = False,
) -> None:
    """Shows or sets when the default card is charged by itself.

    Examples:

      mercat payments auto --below 5 --add 20

      mercat payments auto --off
    """
    if off and (below or amount):
        raise typer.BadParameter("either --off, or --below and --add")
    if bool(below) != bool(amount):
        raise typer.BadParameter("--below and --add go together")
    if below or off:
        wanted = payments_pb2.AutoTopUp(enabled=not off)
        if below:
            wanted.threshold_nanos, wanted.amount_nanos = parse(below), parse(amount)
        request = payments_pb2.SetAutoTopUpRequest(auto_top_up=wanted)
        found = session.client.payments.SetAutoTopUp(request).auto_top_up
    else:
        found = session.client.payments.GetAutoTopUp(payments_pb2.GetAutoTopUpRequest()).auto_top_up
    if session.json:
        output.say_json(found)
    elif found.enabled:
        output.say(f"Below {money.show(found.threshold_nanos)}, {money.show(found.amount_nanos)} are charged.")
    else:
        why = f" {found.failures} refusals in a row turned it off." if found.failures else ""
        output.say(f"Nothing is charged by itself.{why}")


def pay(session: Session, nanos: int) -> int:
    """A top-up by the default card, to its end. Exit status 1 when it did not succeed."""
    request = payments_pb2.CreatePaymentRequest(amount_nanos=nanos)
    made = session.client.payments.CreatePayment(request).payment
    payment = until_settled(session, made.payment_id)
    show_payment(session, payment)
    return 0 if payment.status == Payment.STATUS_SUCCEEDED else 1


def until_settled(session: Session, payment_id: str) -> Payment:
    """The payment when it has ended, or its owner has to act, or a minute has passed."""
    until = time.monotonic() + _WAIT
    while True:
        payment = _get(session, payment_id)
        if payment.status not in _UNSETTLED or time.monotonic() > until:
            return payment
        time.sleep(0.2)


def show_payment(session: Session, payment: Payment) -> None:
    if session.json:
        output.say_json(payment)
        return
    output.facts([
        ("payment", payment.payment_id), ("for", _purpose(payment)),
        ("amount", money.show(payment.amount_nanos, payment.currency)), ("status", _status(payment)),
        ("of it back to the card", money.show(payment.reversed_nanos) if payment.reversed_nanos else ""),
        ("why", payment.failure_code), ("client secret", payment.client_secret), ("provider", payment.provider),
        ("begun (UTC)", output.when(payment.created_at)), ("ended (UTC)", output.when(payment.settled_at)),
    ])  # fmt: skip


def parse(amount: str) -> int:
    """Nanos. Raises BadParameter."""
    try:
        return money.parse(amount)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _get(session: Session, payment_id: str) -> Payment:
    return session.client.payments.GetPayment(payments_pb2.GetPaymentRequest(payment_id=payment_id)).payment


def _name(card: payments_pb2.PaymentMethod) -> str:
    return f"{card.brand} …{card.last4}"


def _status(payment: Payment) -> str:
    return Payment.Status.Name(payment.status).removeprefix("STATUS_").lower().replace("_", " ")


def _purpose(payment: Payment) -> str:
    name = Payment.Purpose.Name(payment.purpose).removeprefix("PURPOSE_").lower().replace("_", " ")
    return f"{name} {payment.subject}".strip()
