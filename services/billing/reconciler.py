"""Checks the books: recomputes what is derived, rates the recorded usage again, and compares the ledger with it, row by
row."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp
from mercat.billing.v1 import billing_pb2
from mercat.usage.v1 import usage_pb2, usage_pb2_grpc
from prometheus_client import Gauge

from services.billing import ledger
from services.billing.budgets import spent
from services.billing.budgets.spent import Spent
from services.billing.budgets.store import BudgetStore
from services.billing.credits.store import CreditStore
from services.billing.dropped import Moved, add, differences
from services.billing.invoices.store import InvoiceStore
from services.billing.ledger import Account
from services.billing.losses.store import LossStore
from services.billing.payments.store import PaymentStore
from services.billing.payouts.store import PayoutStore
from services.billing.prices.rerating import Rerating
from services.billing.store import Row, Store, snapshot
from services.common import ids
from services.common.clock import Clock
from services.common.db import Connection, Database
from services.common.errors import Unavailable
from services.common.rpc.channels import InternalChannel

log = logging.getLogger(__name__)
DISCREPANCIES = Gauge("mercat_ledger_discrepancies", "Rows of the books that disagreed at the last check")
_MOST = 100  # discrepancies named
_FIRST = 60.0  # seconds until the first check: a process that is often started anew checks all the same
_CATCH_UP = 15.0  # seconds to wait for calls that are just being posted
_UNDER_WAY = timedelta(minutes=5)  # the most from a call's arrival until its record is in the stream, and more
_LOOKED_UP = 10_000  # calls asked for at a time
_ABOUT_CALLS = {"USAGE_MISSING", "POSTING_MISSING", "COST_DIFFERS", "PARTIES_DIFFER", "CORRECTION_DIFFERS"}
_OF_CALLS = ("req_", "cor_")  # causes that usage has a record of

Discrepancy = billing_pb2.Discrepancy


@dataclass
class _Found:
    postings: int = 0
    usage: int = 0
    discrepancies: list[Discrepancy] = field(default_factory=list)
    # Calls that only one of usage and ledger has: perhaps just on their way from one to the other.
    unmatched: set[str] = field(default_factory=set)
    # What the calls of postings say was spent, beside what the budgets' table does.
    spent: Spent = field(default_factory=Spent)

    def add(self, code: str, subject: str, message: str) -> None:
        if len(self.discrepancies) < _MOST:
            self.discrepancies.append(Discrepancy(code=code, subject=subject, message=message))


class Reconciler:
    """Reads the books and usage; changes neither."""

    def __init__(
        self, database: Database, store: Store, rerating: Rerating, credit: CreditStore, budgets: BudgetStore,
        control: InternalChannel, clock: Clock,
    ) -> None:  # fmt: skip
        self._database = database
        self._store = store
        self._rerating = rerating
        self._credit = credit
        self._budgets = budgets
        self._payments = PaymentStore()
        self._invoices = InvoiceStore()
        self._payouts = PayoutStore()
        self._losses = LossStore()
        self._usage = usage_pb2_grpc.SettlementServiceStub(control)
        self._clock = clock

    async def repeat(self, seconds: float) -> None:
        """Checks a minute after the start, and then every so often, for ever."""
        wait = min(seconds, _FIRST)
        while True:
            await asyncio.sleep(wait)
            wait = seconds
            try:
                await self.check()
            except Unavailable as e:
                log.warning("the books were not checked: %s", e)
            except Exception:  # a check that fails must not stop the services beside it
                log.exception("the books were not checked")

    async def check(self) -> billing_pb2.CheckLedgerResponse:
        """Everything there is to check."""
        while True:
            found, balances, settled, kept_from = await self._check()
            if (await self._dropped()).kept_from == kept_from:
                break  # else a month was dropped meanwhile, whose records were missed
        DISCREPANCIES.set(len(found.discrepancies))
        for d in found.discrepancies:
            log.error("ledger: %s %s: %s", d.code, d.subject, d.message)
        return billing_pb2.CheckLedgerResponse(
            clean=not found.discrepancies, postings_checked=found.postings, usage_checked=found.usage,
            discrepancies=found.discrepancies, settled_through=settled, balances_nanos=balances,
        )  # fmt: skip

    async def _dropped(self) -> usage_pb2.SumDroppedUsageResponse:
        return await self._usage.SumDroppedUsage(usage_pb2.SumDroppedUsageRequest(), timeout=60)

    async def _check(self) -> tuple[_Found, dict[str, int], Timestamp, Timestamp]:
        found, dropped = _Found(), await self._dropped()
        kept_from: datetime = dropped.kept_from.ToDatetime(UTC)
        moved: Moved = {}
        async with self._database.connection() as connection, snapshot(connection):
            balances = await self._store.trial_balance(connection)
            await self._derive(connection, found)
            found.spent = Spent(*await self._budgets.spending(connection, spent.since(self._clock.now())))
            postings = self._kept(self._store.postings(connection), kept_from, moved, found)
            await self._merge(postings, self._calls(since=dropped.kept_from), found)
        for org_id, text in differences(moved, dropped.sums):
            found.add("MONTH_DIFFERS", org_id, text)
        settled = await self._recheck(found)
        if not _ABOUT_CALLS & {d.code for d in found.discrepancies}:  # or the sums would only repeat what they said
            for subject, text in found.spent.differences():
                found.add("SPENDING_DIFFERS", subject, text)
        return found, balances, settled, dropped.kept_from

    async def _derive(self, connection: Connection, found: _Found) -> None:
        """What of the books follows from the rest of them."""
        findings = {**await self._store.findings(connection), **await self._credit.findings(connection)}
        for query, rows in findings.items():
            for row in rows:
                found.add(*_derived(query, row))
        for row in await self._payments.wrong_payments(connection):
            text = f"{row['amount']} nanos, {row['status']}, and its posting moved {row['moved']}"
            found.add("PAYMENT_DIFFERS", row["id"], text)
        for query, wrong in (await self._invoices.findings(connection)).items():
            for row in wrong:
                found.add(*_invoice_finding(query, row))
        for query, wrong in (await self._payouts.findings(connection)).items():
            for row in wrong:
                found.add(*_payout_finding(query, row))
        for subject, text in await self._losses.findings(connection):
            found.add("LOSS_DIFFERS", subject, text)
        for row in await self._payments.wrong_reversals(connection):
            text = f"{row['status']}: of {row['amount']} nanos {row['wallet']} moved in the wallet,"
            text += f" {row['held']} are withheld and {row['paid']} were paid"
            found.add("REVERSAL_DIFFERS", row["id"], text)

    async def _kept(
        self, postings: AsyncIterator[Row], kept_from: datetime, moved: Moved, found: _Found
    ) -> AsyncIterator[Row]:
        """Those but for the postings of calls whose records are not kept, which are added up in `moved`."""
        async for row in postings:
            cause = row["cause"]
            of_call = cause.startswith(_OF_CALLS) and ids.is_id(cause[:3], cause)
            if of_call and ids.timestamp(cause) < kept_from:
                _check_posting(row, found)
                add(moved, cause, _entries(row))
            else:
                yield row

    async def _calls(
        self, request_ids: Iterable[str] = (), since: Timestamp | None = None
    ) -> AsyncIterator[usage_pb2.UsageRecord]:
        request = usage_pb2.ExportUsageRequest(request_ids=request_ids, start_time=since)
        async for page in self._usage.ExportUsage(request):
            for record in page.records:
                yield record

    async def _merge(
        self, postings: AsyncIterator[Row], calls: AsyncIterator[usage_pb2.UsageRecord], found: _Found
    ) -> None:
        """Walks both in the order of request ids; neither is ever held in memory."""
        posting, call = await anext(postings, None), await self._next_paid(calls, found)
        while posting is not None or call is not None:
            if posting is not None and not posting["cause"].startswith(_OF_CALLS):
                _check_posting(posting, found)
                posting = await anext(postings, None)
            elif call is None or (posting is not None and posting["cause"] < call.request_id):
                assert posting is not None
                _check_posting(posting, found)
                found.unmatched.add(posting["cause"])
                found.spent.expect(posting["cause"])
                posting = await anext(postings, None)
            elif posting is None or call.request_id < posting["cause"]:
                found.unmatched.add(call.request_id)
                call = await self._next_paid(calls, found)
            else:
                _check_posting(posting, found)
                _compare(posting, call, found)
                if not call.corrects:  # budgets count what calls cost when they were made
                    found.spent.add(call)
                posting, call = await anext(postings, None), await self._next_paid(calls, found)

    async def _next_paid(
        self, calls: AsyncIterator[usage_pb2.UsageRecord], found: _Found
    ) -> usage_pb2.UsageRecord | None:
        """The next call or correction that moved money; every call before it is rated again, too."""
        async for call in calls:
            found.usage += 1
            if not call.corrects and (mistake := await self._rerating.mistake(call)):
                found.add("RATING_DIFFERS", call.request_id, mistake)
            if call.cost_nanos and not call.test:
                return call
        return None

    async def _recheck(self, found: _Found) -> Timestamp:
        """Looks again at what had no counterpart, once everything recorded until now is posted."""
        now = Timestamp()
        now.FromDatetime(self._clock.now())
        until = asyncio.get_running_loop().time() + _CATCH_UP
        while True:
            settled = (await self._usage.GetWatermark(usage_pb2.GetWatermarkRequest())).settled_through
            caught_up = settled.ToNanoseconds() >= now.ToNanoseconds()
            if caught_up or asyncio.get_running_loop().time() > until:
                break
            await asyncio.sleep(0.1)
        # With a backlog, a call that is not posted yet is no discrepancy. The watermark counts from when its record
        # reached the stream, and the call from when it arrived.
        posted_before = now.ToDatetime(UTC) if caught_up else settled.ToDatetime(UTC) - _UNDER_WAY
        names = sorted(found.unmatched)
        for at in range(0, len(names), _LOOKED_UP):
            await self._look_up(names[at : at + _LOOKED_UP], posted_before, found)
        return settled

    async def _look_up(self, names: list[str], posted_before: datetime, found: _Found) -> None:
        recorded = {r.request_id: r async for r in self._calls(names)}
        async with self._database.connection() as connection:
            posted = await self._store.postings_of(connection, names)
        for name in names:
            call, posting = recorded.get(name), posted.get(name)
            if call is not None and posting is not None:
                _compare(posting, call, found)
                if not call.corrects:
                    found.spent.add_expected(call)
            elif posting is not None and not (
                # Usage is told of a correction when it is posted.
                name.startswith("cor_") and posting["created_at"] > posted_before - _UNDER_WAY
            ):
                found.add("USAGE_MISSING", name, "the ledger has a posting for a call that usage does not know")
            elif call is not None and call.timestamp.ToDatetime(UTC) < posted_before:
                found.add("POSTING_MISSING", name, f"a call of {call.cost_nanos} nanos was recorded but not posted")


def _check_posting(row: Row, found: _Found) -> None:
    found.postings += 1
    entries = zip(row["account_ids"] or (), row["amounts"] or (), strict=True)
    if ledger.digest(row["cause"], row["kind"], entries) != bytes(row["digest"]):
        found.add("POSTING_EDITED", row["id"], f"the posting of {row['cause']} is not what was posted")


def _entries(posting: Row) -> list[tuple[Account, int]]:
    org_ids, kinds = posting["org_ids"] or (), posting["kinds"] or ()
    accounts = [Account(o or "", k or "") for o, k in zip(org_ids, kinds, strict=True)]
    return list(zip(accounts, posting["amounts"] or (), strict=True))


def _compare(posting: Row, call: usage_pb2.UsageRecord, found: _Found) -> None:
    cost, entries = 0 if call.test else call.cost_nanos, _entries(posting)
    if call.corrects:
        if not ledger.corrects(entries, call.org_id, call.publisher_org_id, cost):
            text = f"the posting is not one of {call.org_id} paying {call.publisher_org_id} {cost} nanos more"
            found.add("CORRECTION_DIFFERS", call.request_id, text)
        return
    moved = -sum(amount for _, amount in entries if amount < 0)
    if moved != cost:
        found.add("COST_DIFFERS", call.request_id, f"usage says {cost} nanos, the posting moved {moved}")
        return
    if not ledger.charges(entries, call.org_id, call.publisher_org_id, cost):
        text = f"the posting is not one of {call.org_id} paying {call.publisher_org_id} {cost} nanos"
        found.add("PARTIES_DIFFER", call.request_id, text)


def _derived(query: str, row: Row) -> tuple[str, str, str]:
    match query:
        case "unbalanced_postings":
            return "POSTING_UNBALANCED", row["id"], f"its entries sum to {row['total']}, not to zero"
        case "wrong_balances":
            text = f"the balance is {row['balance']}, its entries sum to {row['total']}"
            return "BALANCE_DIFFERS", row["account_id"], text
        case "wrong_reservations":
            text = f"{row['reserved']} nanos are reserved, leases hold {row['held']}"
            return "RESERVATION_DIFFERS", row["org_id"], text
        case "negative_wallets":
            return "WALLET_NEGATIVE", row["org_id"], f"the wallet holds {row['balance']} nanos, below its credit limit"
        case "wrong_grants":
            parts = f"{row['remaining']} are left, {row['burnt']} spent and {row['lapsed']} expired"
            return "GRANT_DIFFERS", row["id"], f"of {row['amount']} nanos {parts}"
        case "wrong_returns":
            return (
                "GRANT_DIFFERS",
                row["id"],
                f"{row['amount']} nanos are back by {row['cause']}, which does not say so",
            )
        case "wrong_credit":
            text = f"the account holds {row['balance']} nanos, of the grants {row['remaining']} are left"
            return "CREDIT_DIFFERS", row["org_id"], text
        case "wrong_wallets":
            return "WALLET_MISPLACED", row["org_id"], f"the wallet's account {row['account_id']} is not its own"
        case "wrong_transactions":
            text = f"{row['amount']} nanos by the transaction, {row['moved']} by its posting"
            return "TRANSACTION_DIFFERS", row["id"], text
        case "wrong_corrections":
            text = f"it says {row['cost_change']} nanos, its posting {row['moved']}, or it does not follow those before"
            return "CORRECTION_DIFFERS", row["id"], text
        case "orphan_entries":
            return "ENTRY_ORPHANED", row["posting_id"], f"{row['count']} entries without a posting"
        case _:
            return "POSTING_UNEXPLAINED", row["id"], f"nothing of the name {row['cause']} ever happened"


def _invoice_finding(query: str, row: Row) -> tuple[str, str, str]:
    match query:
        case "wrong_invoices":
            text = (
                f"{row['number']} says {row['due']} due and {row['prepaid']} of calls; its lines say {row['due_lines']}"
                f" and {row['prepaid_lines']}, the ledger {row['moved']} of calls"
            )
            return "INVOICE_DIFFERS", row["id"], text
        case "wrong_notes":
            text = (
                f"{row['number']} of {row['cause']} says {row['prepaid']}, its lines {row['lines']}, the ledger"
                f" {row['moved']}, or it is not of the call's invoice"
            )
            return "INVOICE_DIFFERS", row["id"], text
        case "unpaid_postings":
            text = f"{row['due']} nanos, {row['status']}, and its posting moved {row['moved']}"
            return "INVOICE_DIFFERS", row["id"], text
        case _:
            text = f"{row['last']} numbers of {row['year']} were given, and {row['found']} invoices have one"
            return "INVOICE_NUMBERS_DIFFER", row["issuer"], text


def _payout_finding(query: str, row: Row) -> tuple[str, str, str]:
    if query == "wrong_payouts":
        text = (
            f"{row['status']}: of {row['amount']} nanos {row['moved']} moved, {row['under_way']} are under way,"
            f" and its lines say {row['lines']}"
        )
        return "PAYOUT_DIFFERS", row["id"], text
    return "REFUND_DIFFERS", row["id"], f"it does not give back what {row['request_id']} cost"
