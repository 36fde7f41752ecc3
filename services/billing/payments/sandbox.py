"""The provider that needs no account: it behaves as Stripe does for Stripe's own test cards, and remembers in
PostgreSQL. Cards: https://docs.stripe.com/testing#cards"""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

from services.billing.payments.provider import Card, Kind, Movement, Outcome, ProviderRefused, Setup, Status
from services.common import ids
from services.common.db import Connection, Database, load_queries

_CARDS = {  # by Stripe's name: brand, last four digits, and why a charge fails
    "pm_card_visa": ("visa", "4242", ""),
    "pm_card_visa_debit": ("visa", "5556", ""),
    "pm_card_mastercard": ("mastercard", "4444", ""),
    "pm_card_amex": ("amex", "0005", ""),
    "pm_card_chargeDeclined": ("visa", "0002", "card_declined"),
    "pm_card_chargeCustomerFail": ("visa", "0341", "card_declined"),
    "pm_card_chargeDeclinedInsufficientFunds": ("visa", "9995", "insufficient_funds"),
    "pm_card_chargeDeclinedLostCard": ("visa", "9987", "lost_card"),
    "pm_card_chargeDeclinedStolenCard": ("visa", "9979", "stolen_card"),
    "pm_card_chargeDeclinedExpiredCard": ("visa", "0069", "expired_card"),
    "pm_card_chargeDeclinedIncorrectCvc": ("visa", "0127", "incorrect_cvc"),
    "pm_card_chargeDeclinedProcessingError": ("visa", "0119", "processing_error"),
    "pm_card_authenticationRequired": ("visa", "3184", "authentication_required"),
}
TEST_CARDS = tuple(_CARDS)
_OPEN = "requires_confirmation"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ENDED = (Status.SUCCEEDED, Status.FAILED)
_KEPT = {  # what moves money: how its ids begin, and the kind of its rows; there are no disputes
    Kind.PAYMENT: ("pi", "payment_intent"), Kind.REFUND: ("re", "refund"), Kind.TRANSFER: ("tr", "transfer"),
}  # fmt: skip
_MONTH, _YEAR = 12, 2099


class SandboxProvider:
    """Implements `Provider`. No money moves; each method is a transaction of its own, as elsewhere."""

    name = "sandbox"

    def __init__(self, database: Database) -> None:
        self._database = database
        self._q = load_queries("services.billing.payments")

    async def create_customer(self, org_id: str, key: str) -> str:
        return str((await self._make("cus", "customer", org_id, key))["id"])

    async def delete_customer(self, customer: str) -> None:
        async with self._database.transaction() as connection:
            known = await self._q.lock_sandbox_object(connection, id=customer)
            if known is not None:
                await self._q.end_sandbox_object(connection, id=customer, status="deleted", code="")

    async def set_up_card(self, customer: str, key: str) -> Setup:
        made = await self._make("seti", "setup_intent", customer, key, status="requires_payment_method")
        return Setup(made["id"], _secret(made["id"]))

    async def attach_card(self, customer: str, method: str, key: str) -> Card:
        if method not in _CARDS:
            async with self._database.transaction() as connection:
                known = await self._q.lock_sandbox_object(connection, id=method)
            if known is None or known["kind"] != "payment_method" or known["parent"] != customer:
                raise ProviderRefused(
                    "resource_missing", f"there is no payment method {method}; the sandbox has {', '.join(TEST_CARDS)}"
                )
            return _card(known)
        return _card(await self._make("pm", "payment_method", customer, key, code=method))

    async def detach_card(self, method: str) -> None:
        async with self._database.transaction() as connection:
            known = await self._q.lock_sandbox_object(connection, id=method)
            if known is not None:
                await self._q.end_sandbox_object(connection, id=method, status="detached", code=known["code"])

    async def open_payment(self, customer: str, method: str, cents: int, payment_id: str) -> str:
        made = await self._make("pi", "payment_intent", customer, payment_id, status=_OPEN, cents=cents, method=method)
        return str(made["id"])

    async def confirm_payment(self, ref: str, *, off_session: bool) -> Outcome:
        async with self._database.transaction() as connection:
            payment = await self._intent(connection, ref)
            if payment["status"] != _OPEN:
                return _outcome(payment)
            card = await self._q.lock_sandbox_object(connection, id=payment["method"])
            if card is None or card["status"] == "detached" or card["parent"] != payment["parent"]:
                status, code = Status.FAILED, "resource_missing"
            else:
                code = _CARDS[card["code"]][2]
                status = Status.FAILED if code else Status.SUCCEEDED
            if code == "authentication_required" and not off_session:
                status = Status.REQUIRES_ACTION
            return _outcome(await self._q.end_sandbox_object(connection, id=ref, status=status, code=code))

    async def get_payment(self, ref: str) -> Outcome:
        async with self._database.transaction() as connection:
            return _outcome(await self._intent(connection, ref))

    async def cancel_payment(self, ref: str) -> Outcome:
        async with self._database.transaction() as connection:
            payment = await self._intent(connection, ref)
            if payment["status"] == Status.SUCCEEDED:
                return _outcome(payment)
            code = payment["code"] or "canceled"
            return _outcome(await self._q.end_sandbox_object(connection, id=ref, status=Status.FAILED, code=code))

    async def refund(self, payment: str, cents: int, refund_id: str) -> Outcome:
        async with self._database.transaction() as connection:
            paid = await self._intent(connection, payment)
            rows = [r async for r in self._q.list_sandbox_objects(connection, parent=payment, kind="refund")]
            others = sum(r["cents"] for r in rows if r["key"] != f"refund/{refund_id}")
            if paid["status"] != Status.SUCCEEDED or others + cents > paid["cents"]:
                raise ProviderRefused("charge_already_refunded", f"{payment} has no {cents} cents left to refund")
        return _moved(await self._make("re", "refund", payment, refund_id, status=Status.SUCCEEDED, cents=cents))

    async def create_account(self, org_id: str, key: str) -> str:
        return str((await self._make("acct", "account", org_id, key, status="ready"))["id"])

    async def onboarding_url(self, account: str, return_url: str) -> str:
        return return_url  # nothing is asked

    async def account_ready(self, account: str) -> bool:
        async with self._database.transaction() as connection:
            known = await self._q.lock_sandbox_object(connection, id=account)
        return known is not None and known["kind"] == "account"

    async def transfer(self, account: str, cents: int, key: str) -> Outcome:
        if not await self.account_ready(account):
            raise ProviderRefused("resource_missing", f"there is no account {account}")
        return _moved(await self._make("tr", "transfer", account, key, status=Status.SUCCEEDED, cents=cents))

    async def movements(self, start: datetime, until: datetime) -> AsyncIterator[Movement]:
        first, last = ((moment - _EPOCH) // timedelta(milliseconds=1) for moment in (start, until))
        for kind, (prefix, name) in _KEPT.items():
            bounds = {"after": ids.first(prefix, first), "until": ids.first(prefix, last)}
            async with self._database.connection() as connection:
                rows = [r async for r in self._q.sandbox_objects_between(connection, kind=name, **bounds)]
            for row in rows:
                yield _movement(kind, row)

    async def get_movement(self, kind: Kind, ref: str) -> Movement | None:
        if kind not in _KEPT:
            return None
        async with self._database.transaction() as connection:
            row = await self._q.lock_sandbox_object(connection, id=ref)
        return _movement(kind, row) if row is not None and row["kind"] == _KEPT[kind][1] else None

    async def _make(
        self, prefix: str, kind: str, parent: str, key: str, *, status: str = "", cents: int = 0, code: str = "",
        method: str = "",
    ) -> Any:  # fmt: skip
        async with self._database.transaction() as connection:
            return await self._q.add_sandbox_object(
                connection, id=ids.new(prefix), key=f"{kind}/{key}", kind=kind, parent=parent, status=status,
                cents=cents, code=code, method=method,
            )  # fmt: skip

    async def _intent(self, connection: Connection, ref: str) -> Any:
        payment = await self._q.lock_sandbox_object(connection, id=ref)
        if payment is None or payment["kind"] != "payment_intent":
            raise ProviderRefused("resource_missing", f"there is no payment {ref}")
        return payment


def _movement(kind: Kind, row: Any) -> Movement:
    status = Status(row["status"]) if row["status"] in _ENDED else Status.PENDING
    return Movement(kind, row["id"], row["cents"], status, ids.timestamp(row["id"]), row["key"].rpartition("/")[2])


def _secret(ref: str) -> str:
    return f"{ref}_secret_sandbox"


def _card(row: Any) -> Card:
    brand, last4, _ = _CARDS[row["code"]]
    return Card(row["id"], brand, last4, _MONTH, _YEAR)


def _moved(row: Any) -> Outcome:
    return Outcome(Status(row["status"]), row["id"])


def _outcome(row: Any) -> Outcome:
    status = Status.PENDING if row["status"] == _OPEN else Status(row["status"])
    secret = _secret(row["id"]) if status == Status.REQUIRES_ACTION else ""
    return Outcome(status, row["id"], row["code"] if status == Status.FAILED else "", secret)
