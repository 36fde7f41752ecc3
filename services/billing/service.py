"""Wallets, prices, statements and the ledger's check, for people."""

from datetime import timedelta

from google.protobuf.message import Message
from mercat.billing.v1 import billing_pb2, billing_pb2_grpc
from mercat.event.v1 import event_pb2

from services.billing import ledger
from services.billing.ledger import CURRENCY, PAYABLE, Account
from services.billing.payouts.sums import SETTLED
from services.billing.prices.service import PriceServicer
from services.billing.proof.found import LEDGER, USAGE
from services.billing.proof.prover import Prover
from services.billing.rows import entry_of, transaction_of, wallet_of
from services.billing.store import NEWEST, snapshot
from services.billing.stores import Stores
from services.billing.subscriptions.store import PAY_AS_YOU_GO, starting
from services.common import audit, ids, pages
from services.common.clock import Clock
from services.common.db import Connection, Database
from services.common.errors import FailedPrecondition
from services.common.rpc.context import Context, caller, current
from services.common.spans import span


class BillingServicer(billing_pb2_grpc.BillingServiceServicer):
    """Serves `mercat.billing.v1.BillingService`."""

    def __init__(
        self, database: Database, stores: Stores, prices: PriceServicer, clock: Clock, prover: Prover,
        fee_ppm: int, hold: timedelta, *, sandbox: bool = True,
    ) -> None:  # fmt: skip
        self._database = database
        self._store = stores.books
        self._credit = stores.credit
        self._subscriptions = stores.subscriptions
        self._payouts = stores.payouts
        self._losses = stores.losses
        self._prices = prices
        self._clock = clock
        self._prover = prover
        self._hold = hold
        self._fee_ppm = fee_ppm
        self._sandbox = sandbox

    async def open_account(self, connection: Connection, event: Message) -> None:
        """A wallet and a pay-as-you-go subscription for who signed up, or an organisation that somebody made."""
        assert isinstance(event, event_pb2.UserSignedUp | event_pb2.OrganisationCreated)
        await self._store.ensure_wallet(connection, event.org_id)
        new = starting(event.org_id, event.user_id, PAY_AS_YOU_GO, self._clock.now())
        await self._subscriptions.add(connection, new)

    async def GetWallet(self, request: billing_pb2.GetWalletRequest, context: Context) -> billing_pb2.GetWalletResponse:
        org_id = caller().org_id
        async with self._database.connection() as connection:
            row = await self._store.get_wallet(connection, org_id)
            credit = await self._credit.usable(connection, org_id, self._clock.now())
        return billing_pb2.GetWalletResponse(wallet=wallet_of(org_id, row, credit.amount))

    async def TopUpWallet(
        self, request: billing_pb2.TopUpWalletRequest, context: Context
    ) -> billing_pb2.TopUpWalletResponse:
        principal, now = caller(), self._clock.now()
        if not self._sandbox:
            raise FailedPrecondition("real money is paid here: top up by card", reason="NO_SANDBOX_CREDIT")
        # The request id stays the same under an idempotency key, also when the first attempt died half-way.
        cause = f"topup:{current().request_id}"
        posting = ledger.top_up(cause, principal.org_id, request.amount_nanos)
        async with self._database.transaction() as connection:
            await self._store.lock_or_open_wallets(connection, [principal.org_id])
            await self._store.post(connection, [posting], now)
            transaction = await self._store.add_transaction(
                connection, id=ids.new("txn"), user_id=principal.user_id, org_id=principal.org_id,
                amount=request.amount_nanos, currency=CURRENCY, type=billing_pb2.Transaction.TYPE_TOP_UP,
                status="succeeded", cause=cause, now=now,
            )  # fmt: skip
            audit.about("transaction", transaction["id"])
            wallet = await self._store.get_wallet(connection, principal.org_id)
            credit = await self._credit.usable(connection, principal.org_id, now)
        return billing_pb2.TopUpWalletResponse(
            wallet=wallet_of(principal.org_id, wallet, credit.amount), transaction=transaction_of(transaction)
        )

    async def ListTransactions(
        self, request: billing_pb2.ListTransactionsRequest, context: Context
    ) -> billing_pb2.ListTransactionsResponse:
        key, most = pages.decode(request.page_token, str), pages.size(request.page_size)
        before = str(key[0]) if key else None
        async with self._database.connection() as connection:
            rows = await self._store.list_transactions(connection, caller().org_id, before, most + 1)
        token = pages.encode([rows[most - 1]["id"]]) if len(rows) > most else ""
        transactions = [transaction_of(r) for r in rows[:most]]
        return billing_pb2.ListTransactionsResponse(transactions=transactions, next_page_token=token)

    async def GetStatement(
        self, request: billing_pb2.GetStatementRequest, context: Context
    ) -> billing_pb2.GetStatementResponse:
        org_id = caller().org_id
        start, until = span(request, self._clock.now())
        key, most = pages.decode(request.page_token, str, str), pages.size(request.page_size)
        before = (str(key[0]), str(key[1])) if key else NEWEST
        async with self._database.connection() as connection, snapshot(connection):
            rows = await self._store.statement(connection, org_id, start, until, before, most + 1)
            opening = await self._store.held_at(connection, org_id, start)
            closing = await self._store.held_at(connection, org_id, until)
        last = rows[most - 1] if len(rows) > most else None
        token = pages.encode([last["id"], last["kind"]]) if last else ""
        return billing_pb2.GetStatementResponse(
            opening_nanos=opening, closing_nanos=closing, entries=[entry_of(r) for r in rows[:most]],
            next_page_token=token,
        )  # fmt: skip

    async def GetEarnings(
        self, request: billing_pb2.GetEarningsRequest, context: Context
    ) -> billing_pb2.GetEarningsResponse:
        org_id, now = caller().org_id, self._clock.now()
        async with self._database.connection() as connection, snapshot(connection):
            payable = await self._store.get_balance(connection, Account(org_id, PAYABLE))
            held = await self._payouts.earned(connection, org_id, now - self._hold, now + SETTLED)
            disputed = await self._losses.held_of(connection, org_id)
            paid = await self._payouts.paid_out(connection, org_id)
            fees = await self._subscriptions.fees_of(connection, [org_id])
        return billing_pb2.GetEarningsResponse(
            currency=CURRENCY, payable_nanos=payable, platform_fee_ppm=fees.get(org_id, self._fee_ppm), held_nanos=held,
            available_nanos=max(0, payable - held - disputed), paid_nanos=paid, disputed_nanos=disputed,
        )  # fmt: skip

    async def SetModelPrice(
        self, request: billing_pb2.SetModelPriceRequest, context: Context
    ) -> billing_pb2.SetModelPriceResponse:
        return await self._prices.set_model_price(request)

    async def GetModelPrice(
        self, request: billing_pb2.GetModelPriceRequest, context: Context
    ) -> billing_pb2.GetModelPriceResponse:
        return await self._prices.get_model_price(request)

    async def CheckLedger(
        self, request: billing_pb2.CheckLedgerRequest, context: Context
    ) -> billing_pb2.CheckLedgerResponse:
        proof = await self._prover.prove_all(lambda doing, rows: None)
        found = proof.found
        return billing_pb2.CheckLedgerResponse(
            clean=found.clean, postings_checked=found.counted(LEDGER, "calls") + found.counted(LEDGER, "others"),
            usage_checked=found.counted(USAGE, "records"), discrepancies=found.discrepancies,
            settled_through=proof.settled, balances_nanos=proof.balances,
        )  # fmt: skip
