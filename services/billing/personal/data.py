"""Billing's part of exports and erasures."""

import logging
from collections.abc import AsyncIterator, Sequence

from mercat.billing.v1 import billing_pb2

from services.billing import ledger
from services.billing.ledger import CURRENCY, PAYABLE, WALLET, Account
from services.billing.payments.provider import Provider, ProviderRefused, ProviderUnavailable
from services.billing.stores import Stores
from services.billing.subscriptions.changes import Changes
from services.common import ids
from services.common.clock import Clock
from services.common.db import Database, load_queries
from services.common.errors import Unavailable
from services.common.personal.data import Person, Tables

log = logging.getLogger(__name__)
_FILES = (
    "wallets", "ledger_entries", "transactions", "payments", "refunds_and_disputes", "payment_methods", "auto_top_ups",
    "invoices", "subscriptions", "budgets", "credit_grants", "payout_accounts", "payouts", "prices", "model_offers",
    "discounts", "losses", "corrections_and_refunds_of_calls",
)  # fmt: skip
_FIRST = (
    "erase_auto_top_ups", "erase_offers", "erase_discounts", "erase_due_prices", "end_subscriptions_to_models",
    "erase_budgets", "erase_payout_accounts",
)  # fmt: skip
_LAST = (
    "erase_customers", "erase_cards", "erase_secrets_of_payments", "erase_reasons", "erase_reasons_of_refunds",
    "erase_reasons_of_grants", "rename_prices", "rename_lines", "rename_payout_lines", "rename_subscriptions",
    "rename_budgets",
)  # fmt: skip


class BillingData:
    """A `PersonalData`."""

    def __init__(self, database: Database, stores: Stores, changes: Changes, provider: Provider, clock: Clock) -> None:
        self._database = database
        self._stores = stores
        self._changes = changes
        self._provider = provider
        self._clock = clock
        self._first, self._last = (Tables(database, __package__, _FILES, names) for names in (_FIRST, _LAST))
        self._q = load_queries(__package__)

    async def export(self, person: Person) -> AsyncIterator[tuple[str, AsyncIterator[str]]]:
        async for part in self._first.export(person):
            yield part

    async def erase(self, person: Person) -> None:
        """Ends what goes on by itself, waits for what is under way, gives up what is left, and forgets the rest. Raises
        Unavailable while calls, invoices or payments are under way."""
        org_ids = sorted(o.org_id for o in person.organisations)
        for org_id in org_ids:
            await self._end(org_id, person.user_id)
        async with self._database.transaction() as connection:
            now = self._clock.now()
            await self._stores.books.lock_or_open_wallets(connection, org_ids)
            await self._q.end_grants(connection, org_ids=org_ids, now=now)
            await self._q.detach_cards(connection, org_ids=org_ids, now=now)
            for org_id in org_ids:
                await self._stores.books.end_leases(connection, org_id, now)
            await self._first.erase_within(connection, person)
        async with self._database.connection() as connection:
            left = await self._q.unsettled(connection, org_ids=org_ids)
        if waiting := ", ".join(f"{count} {what}" for what, count in left.items() if count):
            raise Unavailable(f"under way: {waiting}")
        await self._forget_customers(org_ids)
        for org_id in org_ids:
            await self._forfeit(org_id, person.user_id)
        await self._last.erase(person)

    async def _end(self, org_id: str, user_id: str) -> None:
        """Ends subscriptions that cost something; what was paid of the rest is in the wallet then."""
        async with self._database.transaction() as connection:
            now = self._clock.now()
            for subscription in reversed(await self._changes.current(connection, org_id, user_id, now)):
                if subscription.price or subscription.model_id:
                    await self._changes.cancel(connection, subscription, now, at_once=True)

    async def _forget_customers(self, org_ids: Sequence[str]) -> None:
        name = self._provider.name
        async with self._database.connection() as connection:
            refs = [row["ref"] async for row in self._q.list_customers(connection, org_ids=org_ids, provider=name)]
        for ref in refs:
            try:
                await self._provider.delete_customer(ref)
            except ProviderUnavailable as e:
                raise Unavailable(f"the payment provider: {e}") from e
            except ProviderRefused as e:
                log.warning("%s is taken to be forgotten: %s", ref, e)

    async def _forfeit(self, org_id: str, user_id: str) -> None:
        """What an organisation still holds becomes the platform's. Once: nothing is left then."""
        books = self._stores.books
        async with self._database.transaction() as connection:
            await books.lock_wallets(connection, [org_id])
            payable = max(int(await self._stores.payouts.lock_payable(connection, org_id) or 0), 0)
            wallet = max(await books.get_balance(connection, Account(org_id, WALLET)), 0)
            if not wallet and not payable:
                return
            cause, now = ids.new("fft"), self._clock.now()
            await books.post(connection, [ledger.forfeit(cause, org_id, {WALLET: wallet, PAYABLE: payable})], now)
            await books.add_transaction(
                connection, id=ids.new("txn"), user_id=user_id, org_id=org_id, amount=-(wallet + payable),
                currency=CURRENCY, type=billing_pb2.Transaction.TYPE_FORFEIT, status="succeeded", cause=cause, now=now,
            )  # fmt: skip
