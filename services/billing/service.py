"""Wallets, prices, statements and the ledger's check, for people."""

from google.protobuf.message import Message
from mercat.billing.v1 import billing_pb2, billing_pb2_grpc
from mercat.event.v1 import event_pb2
from mercat.registry.v1 import registry_pb2, registry_pb2_grpc

from services.billing import ledger
from services.billing.credits.store import CreditStore
from services.billing.ledger import CURRENCY, PAYABLE, Account
from services.billing.reconciler import Reconciler
from services.billing.rows import entry_of, price_of, transaction_of, wallet_of
from services.billing.store import NEWEST, Store, snapshot
from services.common import audit, ids, outbox, pages
from services.common.clock import Clock
from services.common.db import Connection, Database
from services.common.errors import InvalidFields, ModelNotFound, Violation
from services.common.rpc.channels import InternalChannel
from services.common.rpc.context import Context, caller, current
from services.common.spans import span


class BillingServicer(billing_pb2_grpc.BillingServiceServicer):
    """Serves `mercat.billing.v1.BillingService`."""

    def __init__(
        self, database: Database, store: Store, credit: CreditStore, control: InternalChannel, clock: Clock,
        reconciler: Reconciler, fee_ppm: int,
    ) -> None:  # fmt: skip
        self._database = database
        self._store = store
        self._credit = credit
        self._registry = registry_pb2_grpc.DeploymentServiceStub(control)
        self._clock = clock
        self._reconciler = reconciler
        self._fee_ppm = fee_ppm

    async def open_account(self, connection: Connection, event: Message) -> None:
        """A wallet and a pay-as-you-go subscription for who signed up."""
        assert isinstance(event, event_pb2.UserSignedUp)
        await self._store.ensure_wallet(connection, event.org_id)
        await self._store.add_subscription(connection, event.user_id, event.org_id, self._clock.now())

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
        async with self._database.connection() as connection:
            payable = await self._store.get_balance(connection, Account(caller().org_id, PAYABLE))
        return billing_pb2.GetEarningsResponse(currency=CURRENCY, payable_nanos=payable, platform_fee_ppm=self._fee_ppm)

    async def SetModelPrice(
        self, request: billing_pb2.SetModelPriceRequest, context: Context
    ) -> billing_pb2.SetModelPriceResponse:
        meters = [c.meter for c in request.components]
        if len(set(meters)) != len(meters):
            raise InvalidFields(violations=[Violation("components", "each meter at most once")])
        owner = await self._registry.ResolveOwner(registry_pb2.ResolveOwnerRequest(model=request.model))
        if owner.org_id != caller().org_id:
            raise ModelNotFound(f"you have no model {request.model}")
        price_id = ids.new("prc")
        audit.about("price", price_id)
        async with self._database.transaction() as connection:
            await self._store.add_price(
                connection, price_id=price_id, model_id=owner.model_id, model=request.model,
                components=[(c.meter, c.nanos_per_million) for c in request.components], now=self._clock.now(),
            )  # fmt: skip
            event = event_pb2.PriceChanged(model_id=owner.model_id, model=request.model, price_id=price_id)
            await outbox.add(connection, event)
            row = await self._store.get_price(connection, owner.model_id)
        assert row is not None
        return billing_pb2.SetModelPriceResponse(price=price_of(row))

    async def GetModelPrice(
        self, request: billing_pb2.GetModelPriceRequest, context: Context
    ) -> billing_pb2.GetModelPriceResponse:
        owner = await self._registry.ResolveOwner(registry_pb2.ResolveOwnerRequest(model=request.model))
        if not owner.published and current().principal.org_id != owner.org_id:
            raise ModelNotFound(f"there is no model {request.model}")
        async with self._database.connection() as connection:
            row = await self._store.get_price(connection, owner.model_id)
        free = billing_pb2.Price(model_id=owner.model_id, model=request.model, currency=CURRENCY)
        return billing_pb2.GetModelPriceResponse(price=price_of(row) if row else free)

    async def CheckLedger(
        self, request: billing_pb2.CheckLedgerRequest, context: Context
    ) -> billing_pb2.CheckLedgerResponse:
        return await self._reconciler.check()
