"""Stripe, through its own library: https://docs.stripe.com/api

Stripe forgets idempotency keys after a day, and until then repeats even its own failures under them. So payments need
none: opening moves nothing, and one that has a name is confirmed once. Refunds and transfers are looked for by the id
they carry before another is made; the key only keeps two requests at once apart."""

import logging
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

import stripe
from stripe.params import AccountLinkCreateParams, EventListParams, RefundListParams, TransferListParams

from services.billing.payments.provider import (
    Card,
    Event,
    Kind,
    Movement,
    Outcome,
    ProviderRefused,
    ProviderUnavailable,
    Setup,
    Status,
)

T = TypeVar("T")
Found = TypeVar("Found", bound=stripe.StripeObject)
log = logging.getLogger(__name__)
_TIMEOUT = 20.0  # seconds for an answer
_CURRENCY = "usd"
_TEST_CARD = "pm_card_"  # such a name makes a card of its own each time
# What the money of a dispute does: an inquiry (warning_…) takes none.
_DISPUTES = {
    "lost": Status.SUCCEEDED, "won": Status.FAILED, "prevented": Status.FAILED, "warning_needs_response": Status.FAILED,
    "warning_under_review": Status.FAILED, "warning_closed": Status.FAILED,
}  # fmt: skip
_REFUNDS = {
    "succeeded": Status.SUCCEEDED, "pending": Status.PENDING, "requires_action": Status.PENDING,
    "failed": Status.FAILED, "canceled": Status.FAILED,
}  # fmt: skip


class Dispute(NamedTuple):
    """A dispute. `status` is Stripe's: needs_response, under_review, won, lost, or an inquiry's warning_…."""

    ref: str
    payment: str
    cents: int
    status: str
    reason: str


class Refund(NamedTuple):
    """A refund; `refund_id` is Mercat's, empty where it was made elsewhere."""

    outcome: Outcome
    payment: str
    cents: int
    refund_id: str


class StripeProvider:
    """Implements `Provider`, and reads what Stripe tells by itself."""

    name = "stripe"

    def __init__(self, secret_key: str, api_base: str) -> None:
        """`api_base`: another address than Stripe's; empty: Stripe's."""
        self._http = stripe.HTTPXClient(timeout=_TIMEOUT)
        self._stripe = stripe.StripeClient(
            secret_key, http_client=self._http, max_network_retries=0,  # the sagas repeat
            base_addresses={"api": api_base} if api_base else {},
        ).v1  # fmt: skip

    async def close(self) -> None:
        await self._http.close_async()  # type: ignore[no-untyped-call]

    # Customers and cards

    async def create_customer(self, org_id: str, key: str) -> str:
        made = await _answer(
            self._stripe.customers.create_async({"metadata": {"org_id": org_id}}, _once(f"customer/{key}"))
        )
        return made.id

    async def delete_customer(self, customer: str) -> None:
        try:
            await _answer(self._stripe.customers.delete_async(customer))
        except ProviderRefused as e:
            log.warning("%s is taken to be forgotten: %s", customer, e)

    async def set_up_card(self, customer: str, key: str) -> Setup:
        made = await _answer(
            self._stripe.setup_intents.create_async(
                {"customer": customer, "payment_method_types": ["card"], "usage": "off_session"}, _once(f"setup/{key}")
            )
        )
        return Setup(made.id, made.client_secret or "")

    async def attach_card(self, customer: str, method: str, key: str) -> Card:
        methods = self._stripe.payment_methods
        if not method.startswith(_TEST_CARD):
            known = await _answer(methods.retrieve_async(method))
            if known.customer is not None and _ref(known.customer) != customer:
                raise ProviderRefused("resource_missing", f"there is no payment method {method}")
            if known.customer is not None:
                return _card(known)
        return _card(await _answer(methods.attach_async(method, {"customer": customer}, _once(f"attach/{key}"))))

    async def detach_card(self, method: str) -> None:
        try:
            await _answer(self._stripe.payment_methods.detach_async(method))
        except ProviderRefused as e:
            log.warning("%s is taken to be forgotten: %s", method, e)

    async def get_setup(self, ref: str) -> tuple[str, Card] | None:
        """The customer and the card of a set-up that has succeeded."""
        setup = await _answer(self._stripe.setup_intents.retrieve_async(ref))
        if setup.status != "succeeded" or setup.customer is None or setup.payment_method is None:
            return None
        method = await _answer(self._stripe.payment_methods.retrieve_async(_ref(setup.payment_method)))
        return _ref(setup.customer), _card(method)

    # Payments

    async def open_payment(self, customer: str, method: str, cents: int, payment_id: str) -> str:
        made = await _answer(
            self._stripe.payment_intents.create_async(
                {
                    "amount": cents, "currency": _CURRENCY, "customer": customer, "payment_method": method,
                    "payment_method_types": ["card"], "metadata": {"payment_id": payment_id},
                }
            )
        )  # fmt: skip
        return made.id

    async def confirm_payment(self, ref: str, *, off_session: bool) -> Outcome:
        intent = await self._intent(ref)
        if intent.status == "requires_confirmation":
            try:
                intent = await _answer(
                    self._stripe.payment_intents.confirm_async(ref, {"off_session": True} if off_session else {})
                )
            except ProviderRefused as e:
                intent = await self._intent(ref)
                if intent.status in ("requires_confirmation", "requires_payment_method"):
                    return await self._end(intent, e.code)
        if intent.status == "requires_action" and off_session:
            return await self._end(intent, "authentication_required")
        return await self._outcome(intent)

    async def get_payment(self, ref: str) -> Outcome:
        return await self._outcome(await self._intent(ref))

    async def cancel_payment(self, ref: str) -> Outcome:
        intent = await self._intent(ref)
        if intent.status in ("succeeded", "processing", "canceled"):
            return await self._outcome(intent)
        return await self._end(intent, _why(intent) or "canceled")

    async def _intent(self, ref: str) -> stripe.PaymentIntent:
        try:
            return await _answer(self._stripe.payment_intents.retrieve_async(ref))
        except ProviderRefused as e:  # nobody knows whether it moved money: never taken for a refusal of the card
            raise ProviderUnavailable(f"{ref}: {e}") from e

    async def _outcome(self, intent: stripe.PaymentIntent) -> Outcome:
        match intent.status:
            case "succeeded":
                return Outcome(Status.SUCCEEDED, intent.id)
            case "requires_action":
                return Outcome(Status.REQUIRES_ACTION, intent.id, client_secret=intent.client_secret or "")
            case "canceled":
                return Outcome(Status.FAILED, intent.id, _why(intent) or "canceled")
            case "requires_payment_method" if code := _why(intent):
                return await self._end(intent, code)
            case _:
                return Outcome(Status.PENDING, intent.id)

    async def _end(self, intent: stripe.PaymentIntent, code: str) -> Outcome:
        """A payment that is written down as failed must not succeed afterwards."""
        try:
            await _answer(self._stripe.payment_intents.cancel_async(intent.id))
        except ProviderRefused as e:
            now = await self._intent(intent.id)
            if now.status not in ("canceled", "succeeded"):
                raise ProviderUnavailable(f"{intent.id} cannot be ended: {e}") from e
            if now.status == "succeeded":
                return Outcome(Status.SUCCEEDED, intent.id)
        return Outcome(Status.FAILED, intent.id, code)

    # Money that goes out

    async def refund(self, payment: str, cents: int, refund_id: str) -> Outcome:
        known: RefundListParams = {"payment_intent": payment, "limit": 100}
        try:
            async for made in _all(self._stripe.refunds.list_async(known)):
                if _refund(made).refund_id == refund_id:
                    return _refund(made).outcome
        except ProviderRefused as e:  # nobody knows whether it was refunded
            raise ProviderUnavailable(f"{payment}: {e}") from e
        made = await _answer(
            self._stripe.refunds.create_async(
                {"payment_intent": payment, "amount": cents, "metadata": {"refund_id": refund_id}},
                _once(f"refund/{refund_id}"),
            )
        )
        return _refund(made).outcome

    async def get_refund(self, ref: str) -> Refund:
        return _refund(await _answer(self._stripe.refunds.retrieve_async(ref)))

    async def get_dispute(self, ref: str) -> Dispute:
        found = await _answer(self._stripe.disputes.retrieve_async(ref))
        payment = _ref(found.payment_intent) if found.payment_intent is not None else ""
        return Dispute(found.id, payment, found.amount, found.status, found.reason)

    async def create_account(self, org_id: str, key: str) -> str:
        made = await _answer(
            self._stripe.accounts.create_async(
                {"type": "express", "capabilities": {"transfers": {"requested": True}}, "metadata": {"org_id": org_id}},
                _once(f"account/{key}"),
            )
        )
        return made.id

    async def onboarding_url(self, account: str, return_url: str) -> str:
        asked: AccountLinkCreateParams = {
            "account": account, "type": "account_onboarding", "return_url": return_url, "refresh_url": return_url
        }  # fmt: skip
        return (await _answer(self._stripe.account_links.create_async(asked))).url

    async def account_ready(self, account: str) -> bool:
        found = await _answer(self._stripe.accounts.retrieve_async(account))
        transfers = found.capabilities.transfers if found.capabilities is not None else None
        return transfers == "active" and bool(found.payouts_enabled)

    async def transfer(self, account: str, cents: int, key: str) -> Outcome:
        known: TransferListParams = {"destination": account, "transfer_group": key, "limit": 100}
        try:
            async for made in _all(self._stripe.transfers.list_async(known)):
                if made.transfer_group == key:
                    return Outcome(Status.SUCCEEDED, made.id)
        except ProviderRefused as e:  # nobody knows whether it was transferred
            raise ProviderUnavailable(f"{key}: {e}") from e
        made = await _answer(
            self._stripe.transfers.create_async(
                {"amount": cents, "currency": _CURRENCY, "destination": account, "transfer_group": key},
                _once(f"transfer/{key}"),
            )
        )
        return Outcome(Status.SUCCEEDED, made.id)

    # For the proof of the books

    async def movements(self, start: datetime, until: datetime) -> AsyncIterator[Movement]:
        # A created time is in whole seconds.
        made = {"gte": int(start.timestamp()), "lt": -int(-until.timestamp() // 1)}
        asked: Any = {"created": made, "limit": 100}
        async for intent in _all(self._stripe.payment_intents.list_async(asked)):
            yield _intent_moved(intent)
        async for refund in _all(self._stripe.refunds.list_async(asked)):
            yield _refund_moved(refund)
        async for dispute in _all(self._stripe.disputes.list_async(asked)):
            yield _dispute_moved(dispute)
        async for transfer in _all(self._stripe.transfers.list_async(asked)):
            yield _transfer_moved(transfer)

    async def get_movement(self, kind: Kind, ref: str) -> Movement | None:
        try:
            match kind:
                case Kind.PAYMENT:
                    return _intent_moved(await _answer(self._stripe.payment_intents.retrieve_async(ref)))
                case Kind.REFUND:
                    return _refund_moved(await _answer(self._stripe.refunds.retrieve_async(ref)))
                case Kind.DISPUTE:
                    return _dispute_moved(await _answer(self._stripe.disputes.retrieve_async(ref)))
                case Kind.TRANSFER:
                    return _transfer_moved(await _answer(self._stripe.transfers.retrieve_async(ref)))
        except ProviderRefused as e:
            if e.code == "resource_missing":
                return None
            raise

    # What Stripe tells

    async def events(self, since: datetime) -> AsyncIterator[Event]:
        """Everything that happened since, in no order; Stripe remembers for 30 days."""
        asked: EventListParams = {"created": {"gte": int(since.timestamp())}, "limit": 100}
        async for event in _all(self._stripe.events.list_async(asked)):
            yield event_of(event.to_dict())


def event_of(event: Any) -> Event:
    """Of an event as JSON. Raises KeyError, TypeError or ValueError when it is none."""
    about = event["data"]["object"]
    found = Event(event["id"], event["type"], about.get("id") or "", datetime.fromtimestamp(int(event["created"]), UTC))
    if not all(isinstance(text, str) for text in found[:3]):
        raise TypeError("not an event")
    return found


def _made(one: Any) -> datetime:
    return datetime.fromtimestamp(int(one.created), UTC)


def _intent_moved(intent: stripe.PaymentIntent) -> Movement:
    status = {"succeeded": Status.SUCCEEDED, "canceled": Status.FAILED}.get(intent.status, Status.PENDING)
    return Movement(Kind.PAYMENT, intent.id, intent.amount, status, _made(intent), _mark(intent, "payment_id"))


def _refund_moved(refund: stripe.Refund) -> Movement:
    return Movement(
        Kind.REFUND, refund.id, refund.amount, _refund(refund).outcome.status, _made(refund), _mark(refund, "refund_id")
    )


def _dispute_moved(dispute: stripe.Dispute) -> Movement:
    status = _DISPUTES.get(dispute.status, Status.PENDING)
    return Movement(Kind.DISPUTE, dispute.id, dispute.amount, status, _made(dispute))


def _transfer_moved(transfer: stripe.Transfer) -> Movement:
    left = transfer.amount - (getattr(transfer, "amount_reversed", 0) or 0)
    return Movement(
        Kind.TRANSFER, transfer.id, left, Status.SUCCEEDED, _made(transfer), transfer.transfer_group or ""
    )  # fmt: skip


def _once(key: str) -> stripe.RequestOptions:
    return {"idempotency_key": f"mercat/{key}"}


async def _answer(call: Awaitable[T]) -> T:
    with _errors():
        return await call


async def _all(listed: Awaitable[stripe.ListObject[Found]]) -> AsyncIterator[Found]:
    page = await _answer(listed)
    with _errors():
        async for one in page.auto_paging_iter():
            yield one


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except stripe.CardError as e:
        code = getattr(e.error, "decline_code", None) or e.code or "card_declined"
        raise ProviderRefused(code, e.user_message or "the card was refused") from e
    except stripe.InvalidRequestError as e:
        code = e.code or ("resource_missing" if e.http_status == 404 else "invalid_request")
        raise ProviderRefused(code, e.user_message or "Stripe refuses this request") from e
    except stripe.StripeError as e:  # connection, rate, their server, our key: it may have happened
        raise ProviderUnavailable(f"{type(e).__name__}: {e.user_message or e}") from e


def _ref(value: Any) -> str:
    """The name of what may have come expanded."""
    return value if isinstance(value, str) else str(value.id)


def _card(method: stripe.PaymentMethod) -> Card:
    card = method.card
    if card is None:
        raise ProviderRefused("not_a_card", "only cards are kept")
    return Card(method.id, card.brand, card.last4 or "", card.exp_month, card.exp_year)


def _why(intent: stripe.PaymentIntent) -> str:
    error = intent.last_payment_error
    if error is None:
        return ""
    return str(getattr(error, "decline_code", None) or getattr(error, "code", None) or "card_declined")


def _refund(refund: stripe.Refund) -> Refund:
    status = _REFUNDS.get(refund.status or "", Status.PENDING)
    code = (getattr(refund, "failure_reason", None) or str(refund.status)) if status == Status.FAILED else ""
    payment = _ref(refund.payment_intent) if refund.payment_intent is not None else ""
    return Refund(Outcome(status, refund.id, code), payment, refund.amount, _mark(refund, "refund_id"))


def _mark(one: Any, name: str) -> str:
    return str(one.metadata[name]) if one.metadata and name in one.metadata else ""
