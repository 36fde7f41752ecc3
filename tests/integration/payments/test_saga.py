"""Two processes at one payment: the first was slow, its claim ran out, and the second took it up."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from services.billing.ledger import WALLET, Account
from services.billing.payments.customers import Customers
from services.billing.payments.provider import Outcome, Provider, ProviderRefused
from services.billing.payments.saga import INVOICE, Payments
from services.billing.payments.sandbox import SandboxProvider
from services.billing.payments.store import PaymentStore
from services.billing.store import Store
from services.common import ids
from services.common.clock import SystemClock
from services.common.db import Connection, Database, migrate
from services.embedded.postgres import Postgres

CENTS, NANOS = 500, 5_000_000_000


@pytest.fixture(scope="module")
async def database(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Database]:
    async with Postgres(tmp_path_factory.mktemp("saga") / "postgres") as postgres:
        await migrate(postgres.url, "billing", "services.billing")
        database = await Database.connect(postgres.url, "billing")
        yield database
        await database.close()


class Slow(SandboxProvider):
    """Waits where it is told to, as a provider behind a slow network does."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.opening, self.confirming = asyncio.Event(), asyncio.Event()
        self.at_open, self.at_confirm = asyncio.Event(), asyncio.Event()
        self.refuses = False

    async def open_payment(self, customer: str, method: str, cents: int, payment_id: str) -> str:
        self.at_open.set()
        await self.opening.wait()
        if self.refuses:
            raise ProviderRefused("resource_missing", "this card is not there any more")
        # A provider that has forgotten the key makes another one.
        return await super().open_payment(customer, method, cents, ids.new("pay"))

    async def confirm_payment(self, ref: str, *, off_session: bool) -> Outcome:
        self.at_confirm.set()
        await self.confirming.wait()
        return await super().confirm_payment(ref, off_session=off_session)


@dataclass
class Bench:
    """An organisation with a card, and processes that see its payments through."""

    database: Database
    org_id: str

    def process(self, provider: Provider) -> Payments:
        store, clock = PaymentStore(), SystemClock()
        customers = Customers(self.database, store, provider, clock)
        return Payments(self.database, Store(), store, provider, customers, clock, claim_seconds=0)

    async def start(self) -> str:
        async with self.database.transaction() as connection:
            return await self.process(SandboxProvider(self.database)).start(
                connection, org_id=self.org_id, amount=NANOS, purpose=INVOICE, subject=ids.new("inv")
            )

    async def status(self, payment_id: str) -> str:
        async with self.database.connection() as connection:
            row = await PaymentStore().get_payment(connection, payment_id)
        assert row is not None
        return str(row["status"])

    async def balance(self) -> int:
        async with self.database.connection() as connection:
            return await Store().get_balance(connection, Account(self.org_id, WALLET))

    async def charged(self) -> list[int]:
        """Cents of the intents that succeeded, of all that were opened."""
        query = (
            "SELECT o.cents FROM sandbox_objects o JOIN payment_customers c ON c.ref = o.parent"
            " WHERE o.kind = 'payment_intent' AND o.status = 'succeeded' AND c.org_id = $1"
        )
        async with self.database.connection() as connection:
            return [row["cents"] for row in await connection.fetch(query, self.org_id)]


@pytest.fixture
async def bench(database: Database) -> Bench:
    made, provider, store = Bench(database, ids.new("org")), SandboxProvider(database), PaymentStore()
    customer = await Customers(database, store, provider, SystemClock()).ensure(made.org_id)
    card = await provider.attach_card(customer, "pm_card_visa", ids.new("key"))
    async with database.transaction() as connection:
        await store.add_method(connection, made.org_id, provider.name, card, SystemClock().now())
    return made


async def test_what_a_slow_process_opens_late_is_never_confirmed(bench: Bench) -> None:
    slow = Slow(bench.database)
    payment_id = await bench.start()
    first = asyncio.create_task(bench.process(slow).advance())
    await slow.at_open.wait()
    await bench.process(SandboxProvider(bench.database)).advance()
    assert await bench.status(payment_id) == "succeeded"
    slow.opening.set()
    slow.confirming.set()
    await first
    assert await bench.charged() == [CENTS]
    assert await bench.balance() == NANOS
    assert await bench.status(payment_id) == "succeeded"


async def test_two_that_open_at_once_confirm_the_same(bench: Bench) -> None:
    one, two = Slow(bench.database), Slow(bench.database)
    payment_id = await bench.start()
    running = []
    for slow in (one, two):
        running.append(asyncio.create_task(bench.process(slow).advance()))
        await slow.at_open.wait()
    for slow in (one, two):
        slow.opening.set()
        await slow.at_confirm.wait()
    for slow in (one, two):
        slow.confirming.set()
    await asyncio.gather(*running)
    assert await bench.charged() == [CENTS]
    assert await bench.balance() == NANOS
    assert await bench.status(payment_id) == "succeeded"


async def test_a_refusal_of_one_does_not_end_what_the_other_is_charging(bench: Bench) -> None:
    one, two = Slow(bench.database), Slow(bench.database)
    payment_id = await bench.start()
    first = asyncio.create_task(bench.process(one).advance())
    await one.at_open.wait()
    second = asyncio.create_task(bench.process(two).advance())
    await two.at_open.wait()
    one.opening.set()
    await one.at_confirm.wait()
    two.refuses = True
    two.opening.set()
    await second
    one.confirming.set()
    await first
    assert await bench.charged() == [CENTS]
    assert await bench.status(payment_id) == "succeeded"
    assert await bench.balance() == NANOS


async def test_an_effect_is_of_the_payments_own_transaction(bench: Bench) -> None:
    payment_id = await bench.start()
    process = bench.process(SandboxProvider(bench.database))
    seen: list[tuple[str, int]] = []

    async def fails_once(connection: Connection, payment: Any) -> None:
        seen.append((payment["id"], await Store().get_balance(connection, Account(bench.org_id, WALLET))))
        if len(seen) == 1:
            raise ZeroDivisionError

    process.effects[INVOICE] = fails_once
    with pytest.raises(ZeroDivisionError):
        await process.advance()
    assert (await bench.status(payment_id), await bench.balance()) == ("processing", 0), "all of it or nothing"
    await process.advance()
    assert (await bench.status(payment_id), await bench.balance()) == ("succeeded", NANOS)
    assert seen == [(payment_id, NANOS)] * 2, "the wallet has it when the effect happens"
    assert await bench.charged() == [CENTS]
