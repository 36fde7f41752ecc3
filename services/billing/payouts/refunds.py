"""Calls whose price is given back."""

from mercat.billing.v1 import billing_pb2
from mercat.usage.v1 import usage_pb2, usage_pb2_grpc

from services.billing.budgets.spent import counts_as
from services.billing.corrections.following import Following
from services.billing.ledger import CREDIT, CURRENCY, Account
from services.billing.payouts import sums
from services.billing.payouts.store import PayoutStore, Row
from services.billing.store import Store
from services.common import ids
from services.common.clock import Clock
from services.common.db import Database
from services.common.errors import FailedPrecondition, UsageRecordNotFound
from services.common.rpc.channels import InternalChannel


class CallNotRefundable(FailedPrecondition, reason="CALL_NOT_REFUNDABLE"):
    """It cost nothing, its charge is not posted yet, or it was corrected."""


class Refunds:
    """Reverses the charges of calls; credit that was spent is credit again, until it expires. A call on an invoice that
    is issued has a credit note."""

    def __init__(
        self, database: Database, books: Store, store: PayoutStore, following: Following, control: InternalChannel,
        clock: Clock,
    ) -> None:  # fmt: skip
        self._database = database
        self._books = books
        self._store = store
        self._following = following
        self._usage = usage_pb2_grpc.SettlementServiceStub(control)
        self._clock = clock

    async def refund(self, request_id: str, reason: str, publisher_org_id: str | None) -> Row:
        """Gives back what a call cost, once; `publisher_org_id`: only of this publisher's.

        Raises:
            UsageRecordNotFound: there is no such call of the publisher's.
            CallNotRefundable: there is nothing to give back.
        """
        record = await self._record(request_id)
        if record is None or publisher_org_id not in (None, record.publisher_org_id):
            raise UsageRecordNotFound
        async with self._database.transaction() as connection:
            await self._books.lock_or_open_wallets(connection, [record.org_id])
            now = self._clock.now()  # with the wallet locked, so that it is in the period that is open
            posted = (await self._books.postings_of(connection, [request_id])).get(request_id)
            if posted is None:
                raise CallNotRefundable("the call cost nothing, or is not charged yet")
            if await self._store.corrected(connection, request_id):
                raise CallNotRefundable(
                    "the call was corrected; what is left of its cost is given back by a correction"
                )
            accounts = zip(posted["org_ids"], posted["kinds"], posted["amounts"], strict=True)
            charge = {Account(org_id, kind): amount for org_id, kind, amount in accounts}
            row, new = await self._store.add_call_refund(
                connection, request_id=request_id, publisher_org_id=record.publisher_org_id, amount=record.cost_nanos,
                reason=reason, now=now, counted=counts_as(record),
            )  # fmt: skip
            if new:
                posting = sums.call_refund(row["id"], charge)
                await self._books.post(connection, [posting], now)
                await self._books.add_transaction(
                    connection, id=ids.new("txn"), user_id=record.user_id, org_id=record.org_id,
                    amount=sum(m for a, m in posting.entries if a.org_id == record.org_id), currency=CURRENCY,
                    type=billing_pb2.Transaction.TYPE_REFUND, status="succeeded", cause=row["id"], now=now,
                )  # fmt: skip
                back = -charge.get(Account(record.org_id, CREDIT), 0)
                await self._following.follow(connection, record, row["id"], -record.cost_nanos, back, now)
        return row

    async def _record(self, request_id: str) -> usage_pb2.UsageRecord | None:
        async for page in self._usage.ExportUsage(usage_pb2.ExportUsageRequest(request_ids=[request_id])):
            for record in page.records:
                return record
        return None
