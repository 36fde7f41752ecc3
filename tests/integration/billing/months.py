"""Books in which months pass: everything lives by a clock that a test moves ahead."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from mercat.auth.v1 import auth_pb2
from mercat.billing.v1 import billing_pb2, invoices_pb2, plans_pb2
from mercat.usage.v1 import usage_pb2

from services.common import clock
from tests.integration.billing.books import USD, Books, Person, running

T = TypeVar("T")
Invoice, Line, Subscription = invoices_pb2.Invoice, invoices_pb2.InvoiceLine, plans_pb2.Subscription
DAY = timedelta(days=1)


@dataclass
class Months:
    """What a test works with."""

    books: Books

    def now(self) -> datetime:
        return clock.SystemClock().now()

    def advance(self, by: timedelta) -> None:
        clock.move(by)

    def advance_to(self, at: datetime) -> None:
        """Just past an instant."""
        clock.move(max(at - self.now(), timedelta()) + timedelta(seconds=1))

    async def person(self, credit: int = 0, card: str = "") -> Person:
        """Somebody with a key, which outlives sessions."""
        person = await self.books.person(credit)
        request = auth_pb2.CreateApiKeyRequest(name="tests")
        made = await self.books.auth.CreateApiKey(request, metadata=person.metadata)
        person.metadata = [("authorization", f"Bearer {made.secret}")]
        if card:
            await self.books.card(person, card)
        await self.subscription(person)
        return person

    async def until(self, what: Callable[[], Awaitable[T | None]], seconds: float = 20) -> T:
        """Waits until something is there."""
        async with asyncio.timeout(seconds):
            while not (found := await what()):
                await asyncio.sleep(0.05)
        return found

    async def subscription(self, person: Person) -> Subscription:
        async def stored() -> Subscription | None:
            got = await self.books.plans.GetSubscription(plans_pb2.GetSubscriptionRequest(), metadata=person.metadata)
            async with self.books.superuser() as connection:
                query = "SELECT count(*) FROM subscriptions WHERE id = $1"
                known = await connection.fetchval(query, got.subscription.subscription_id)
            return got.subscription if known else None

        return await self.until(stored)

    async def until_plan(
        self, person: Person, plan_id: str, status: "Subscription.Status.ValueType" = Subscription.STATUS_ACTIVE
    ) -> Subscription:
        async def there() -> Subscription | None:
            got = await self.subscription(person)
            return got if (got.plan_id, got.status) == (plan_id, status) else None

        return await self.until(there)

    async def change(self, person: Person, plan_id: str, *, ask: bool = False) -> plans_pb2.ChangePlanResponse:
        request = plans_pb2.ChangePlanRequest(plan_id=plan_id, validate_only=ask)
        return await self.books.plans.ChangePlan(request, metadata=person.metadata)

    async def cancel(self, person: Person, *, at_once: bool = False) -> Subscription:
        mine = (await self.subscription(person)).subscription_id
        request = plans_pb2.CancelSubscriptionRequest(subscription_id=mine, at_once=at_once)
        return (await self.books.plans.CancelSubscription(request, metadata=person.metadata)).subscription

    async def invoices(self, person: Person) -> list[Invoice]:
        """Oldest first."""
        request = invoices_pb2.ListInvoicesRequest()
        return list((await self.books.invoices.ListInvoices(request, metadata=person.metadata)).invoices)[::-1]

    async def get(self, person: Person, invoice_id: str) -> Invoice:
        request = invoices_pb2.GetInvoiceRequest(invoice_id=invoice_id)
        return (await self.books.invoices.GetInvoice(request, metadata=person.metadata)).invoice

    async def until_invoices(
        self, person: Person, count: int, status: "Invoice.Status.ValueType" = Invoice.STATUS_PAID,
        kind: "Invoice.Kind.ValueType" = Invoice.KIND_INVOICE,
    ) -> list[Invoice]:  # fmt: skip
        """Waits until there are so many, and the last one is as it should be; with their lines."""

        async def there() -> list[Invoice] | None:
            found = [i for i in await self.invoices(person) if i.kind == kind]
            return found if len(found) == count and found[-1].status == status else None

        return [await self.get(person, i.invoice_id) for i in await self.until(there)]

    async def opened(self, person: Person, invoice: Invoice, line: Line, page: int = 0) -> list[invoices_pb2.LineCall]:
        """Every call behind a line, page by page."""
        request = invoices_pb2.ListInvoiceLineUsageRequest(
            invoice_id=invoice.invoice_id, line_id=line.line_id, page_size=page
        )
        found: list[invoices_pb2.LineCall] = []
        while True:
            got = await self.books.invoices.ListInvoiceLineUsage(request, metadata=person.metadata)
            assert len(got.calls) <= (page or 50)
            found += got.calls
            request.page_token = got.next_page_token
            if not request.page_token:
                return found

    async def call(self, consumer: Person, publisher: Person, *costs: int) -> list[usage_pb2.UsageRecord]:
        """Calls that are recorded and posted."""
        calls = [self.books.call(consumer, publisher, cost) for cost in costs]
        await self.books.send(*calls)
        await self.books.settled()
        return calls

    async def balance(self, person: Person) -> int:
        return (await self.books.wallet(person)).balance_nanos

    async def check(self) -> billing_pb2.CheckLedgerResponse:
        """The books must be clean, once usage has heard of every correction: here a month goes by meanwhile."""
        deadline = time.monotonic() + 20
        while not (checked := await self.books.check()).clean and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
        assert checked.clean, checked.discrepancies
        return checked

    async def revenue(self) -> int:
        return (await self.check()).balances_nanos.get("subscription_revenue", 0)


def when(timestamp: object) -> datetime:
    return timestamp.ToDatetime(UTC)  # type: ignore[attr-defined,no-any-return]


@asynccontextmanager
async def passing(folder: Path, **settings: str) -> AsyncIterator[Months]:
    """Everything up, on a clock that only goes ahead until the end."""
    async with running(folder, clock.SystemClock(), **settings) as books:
        try:
            yield Months(books)
        finally:
            clock._Ahead.nanos[0] = 0


__all__ = ["DAY", "USD", "Invoice", "Line", "Months", "Person", "Subscription", "passing", "when"]
