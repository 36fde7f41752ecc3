"""Auth, registry, usage and billing in this process over real servers, with a clock that can be moved and without
workers: a test says itself what was called."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import grpc
from mercat.auth.v1 import auth_pb2, auth_pb2_grpc
from mercat.billing.v1 import (
    billing_pb2,
    billing_pb2_grpc,
    budgets_pb2_grpc,
    corrections_pb2,
    corrections_pb2_grpc,
    credits_pb2,
    credits_pb2_grpc,
    invoices_pb2_grpc,
    payments_pb2,
    payments_pb2_grpc,
    payouts_pb2_grpc,
    plans_pb2_grpc,
    prices_pb2_grpc,
    proof_pb2,
    proof_pb2_grpc,
)
from mercat.event.v1 import event_pb2
from mercat.registry.v1 import registry_pb2_grpc
from mercat.usage.v1 import usage_pb2, usage_pb2_grpc
from redis.asyncio import Redis

from services.__main__ import build
from services.billing.prices.store import PriceStore
from services.common import ids, outbox
from services.common.clock import Clock
from services.common.db import Database, migrate
from services.common.events import USAGE_SUBJECT, Events
from services.common.limits import Limiter
from services.common.rpc.addresses import DOOR_KEY, door_token
from services.common.rpc.channels import InternalChannel
from services.common.rpc.idempotency import IdempotencyKeys
from services.common.rpc.pipeline import Guard
from services.common.rpc.principals import Principals
from services.common.rpc.server import Server
from services.common.service import Deps
from services.common.settings import Settings, discover, load
from services.embedded.nats import Nats
from services.embedded.ports import free_ports
from services.embedded.postgres import Postgres
from services.embedded.valkey import Valkey

USD = 1_000_000_000  # nanos
ADMIN, PASSWORD = "admin@mercat.localhost", "correct horse battery staple"


class MovedClock:
    """The machine's clock, moved by what a test says."""

    def __init__(self) -> None:
        self.moved = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.moved

    machine = now

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time() + self.moved.total_seconds()


@dataclass
class Person:
    """Somebody with an account; a publisher, so that all that is asked here is theirs to ask."""

    org_id: str
    username: str
    metadata: list[tuple[str, str]]


@dataclass
class Books:
    """What a test works with."""

    postgres_url: str
    events: Events
    channel: grpc.aio.Channel
    internal: InternalChannel
    clock: Any
    token: str = ""
    deps: dict[str, Deps] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._priced: set[int] = set()
        self.auth = auth_pb2_grpc.AuthServiceStub(self.channel)
        self.registry = registry_pb2_grpc.RegistryServiceStub(self.channel)
        self.prices = prices_pb2_grpc.PriceServiceStub(self.channel)
        self.billing = billing_pb2_grpc.BillingServiceStub(self.channel)
        self.payments = payments_pb2_grpc.PaymentServiceStub(self.channel)
        self.payouts = payouts_pb2_grpc.PayoutServiceStub(self.channel)
        self.plans = plans_pb2_grpc.PlanServiceStub(self.channel)
        self.invoices = invoices_pb2_grpc.InvoiceServiceStub(self.channel)
        self.credits = credits_pb2_grpc.CreditServiceStub(self.channel)
        self.budgets = budgets_pb2_grpc.BudgetServiceStub(self.channel)
        self.proof = proof_pb2_grpc.ProofServiceStub(self.channel)
        self.corrections = corrections_pb2_grpc.CorrectionServiceStub(self.channel)
        self.usage = usage_pb2_grpc.UsageServiceStub(self.channel)
        self.leases = billing_pb2_grpc.LeaseServiceStub(self.internal)
        self.settlement = usage_pb2_grpc.SettlementServiceStub(self.internal)

    async def person(self, credit: int = 0) -> Person:
        name = f"t{secrets.token_hex(6)}"
        signed = await self.auth.SignUp(
            auth_pb2.SignUpRequest(
                email=f"{name}@example.com", username=name, password=PASSWORD, role=auth_pb2.ROLE_PUBLISHER
            ),
            metadata=_somewhere(self.token),
        )
        person = Person(
            signed.profile.org_id, name, [("authorization", f"Bearer {signed.session.access_token}")]
        )  # fmt: skip
        if credit:
            await self.top_up(person, credit)
        return person

    async def admin(self) -> list[tuple[str, str]]:
        signed = await self.auth.SignIn(
            auth_pb2.SignInRequest(email=ADMIN, password=PASSWORD), metadata=_somewhere(self.token)
        )
        return [("authorization", f"Bearer {signed.session.access_token}")]

    async def top_up(self, person: Person, nanos: int, key: str = "") -> billing_pb2.TopUpWalletResponse:
        metadata = person.metadata + ([("idempotency-key", key)] if key else [])
        return await self.billing.TopUpWallet(billing_pb2.TopUpWalletRequest(amount_nanos=nanos), metadata=metadata)

    async def wallet(self, person: Person) -> billing_pb2.Wallet:
        got = await self.billing.GetWallet(billing_pb2.GetWalletRequest(), metadata=person.metadata)
        return got.wallet

    async def until_free(self, person: Person) -> int:
        """Waits until no lease holds anything; the balance then."""
        async with asyncio.timeout(20):
            while (wallet := await self.wallet(person)).reserved_nanos:
                await asyncio.sleep(0.05)
        return wallet.balance_nanos

    async def card(self, person: Person, card: str = "pm_card_visa", *, default: bool = True) -> str:
        """Attaches a test card; the payment method's id."""
        request = payments_pb2.AttachPaymentMethodRequest(payment_method=card, make_default=default)
        got = await self.payments.AttachPaymentMethod(request, metadata=person.metadata)
        return got.payment_method.payment_method_id

    async def pay(self, person: Person, nanos: int, key: str = "", card: str = "") -> payments_pb2.Payment:
        """Begins a payment by card and waits for its end."""
        metadata = person.metadata + ([("idempotency-key", key)] if key else [])
        request = payments_pb2.CreatePaymentRequest(amount_nanos=nanos, payment_method_id=card)
        made = await self.payments.CreatePayment(request, metadata=metadata)
        return await self.paid(person, made.payment.payment_id)

    async def paid(self, person: Person, payment_id: str) -> payments_pb2.Payment:
        request = payments_pb2.GetPaymentRequest(payment_id=payment_id)
        async with asyncio.timeout(20):
            while True:
                payment = (await self.payments.GetPayment(request, metadata=person.metadata)).payment
                if payment.status not in (payments_pb2.Payment.STATUS_PENDING, payments_pb2.Payment.STATUS_PROCESSING):
                    return payment
                await asyncio.sleep(0.05)

    async def earned(self, person: Person) -> int:
        got = await self.billing.GetEarnings(billing_pb2.GetEarningsRequest(), metadata=person.metadata)
        return got.payable_nanos

    async def check(self) -> billing_pb2.CheckLedgerResponse:
        request = billing_pb2.CheckLedgerRequest()
        return await self.billing.CheckLedger(request, metadata=await self.admin(), timeout=60)

    async def prove(self, period: str = "", **times: datetime) -> proof_pb2.Proof:
        """Of a month, or of times `start_time` and `end_time`; the last message's."""
        request = proof_pb2.ProveLedgerRequest(period=period)
        for name, moment in times.items():
            getattr(request, name).FromDatetime(moment)
        stream = self.proof.ProveLedger(request, metadata=await self.admin(), timeout=120)
        messages = [message async for message in stream]
        return messages[-1].proof

    async def correct(self, request_id: str, **asked: Any) -> corrections_pb2.CorrectUsageResponse:
        request = corrections_pb2.CorrectUsageRequest(request_id=request_id, **{"reason": "a test", **asked})
        return await self.corrections.CorrectUsage(request, metadata=await self.admin())

    async def price(self, publisher: Person, **components: int) -> str:
        """A price of nanos per million, by meter, of no model in particular; its id."""
        price = billing_pb2.Price(
            price_id=ids.new("prc"), model_id=ids.new("mdl"), model=f"{publisher.username}/m", currency="USD"
        )
        for meter, nanos in components.items():
            price.components.add(meter=meter, nanos_per_million=nanos)
        return await self.priced(price)

    async def priced(self, price: billing_pb2.Price) -> str:
        """Makes a price; its id."""
        async with self.deps["billing"].database.transaction() as connection:
            await PriceStore().add_price(connection, price, self.clock.now())
        return price.price_id

    async def acquire(
        self, person: Person, minimum: int, wanted: int = 0, worker: str = "wrk_1", *, key_id: str = "key_x",
        model_id: str = "mdl_x",
    ) -> billing_pb2.AcquireLeaseResponse:  # fmt: skip
        request = billing_pb2.AcquireLeaseRequest(
            org_id=person.org_id, worker_id=worker, minimum_nanos=minimum, wanted_nanos=wanted or minimum,
            key_id=key_id, model_id=model_id,
        )  # fmt: skip
        return await self.leases.AcquireLease(request)

    async def give(
        self, person: Person, nanos: int, *, priority: int = 0, lasts: float | None = None, key: str = ""
    ) -> credits_pb2.CreditGrant:
        """Credit from the platform, which ends after so many seconds."""
        request = credits_pb2.CreateCreditGrantRequest(org_id=person.org_id, amount_nanos=nanos, priority=priority)
        if lasts is not None:
            request.expires_at.FromDatetime(self.clock.now() + timedelta(seconds=lasts))
        metadata = await self.admin() + ([("idempotency-key", key)] if key else [])
        return (await self.credits.CreateCreditGrant(request, metadata=metadata)).grant

    async def grants(self, person: Person) -> list[credits_pb2.CreditGrant]:
        """Newest first."""
        request = credits_pb2.ListCreditGrantsRequest()
        return list((await self.credits.ListCreditGrants(request, metadata=person.metadata)).grants)

    async def charge(self, *calls: usage_pb2.UsageRecord) -> None:
        """Calls that a worker has recorded are posted."""
        await self.send(*calls)
        await self.settled()

    async def close(self, lease_id: str, spent: int, worker: str = "wrk_1") -> None:
        request = billing_pb2.CloseLeasesRequest(worker_id=worker)
        request.leases.add(lease_id=lease_id, spent_nanos=spent)
        await self.leases.CloseLeases(request)

    def call(
        self, consumer: Person, publisher: Person, cost: int, *, lease_id: str = "", model: str = "",
        test: bool = False, key_id: str = "key_x", model_id: str = "mdl_x", arrived: datetime | None = None,
    ) -> usage_pb2.UsageRecord:  # fmt: skip
        """A record as a worker makes one."""
        request_id = ids.new("req", int(arrived.timestamp() * 1000) if arrived else None)
        record = usage_pb2.UsageRecord(
            request_id=request_id, org_id=consumer.org_id, user_id="usr_x", key_id=key_id, model_id=model_id,
            model=model or f"{publisher.username}/m", version="1.0.0", publisher_org_id=publisher.org_id,
            units={"requests": 1, "rows": 3, "input_bytes": 120}, price_id=f"prc_{cost}", cost_nanos=cost,
            latency_us=1500, region="local", test=test, lease_id=lease_id,
        )  # fmt: skip
        record.timestamp.FromDatetime(ids.timestamp(record.request_id))
        return record

    async def send(self, *records: usage_pb2.UsageRecord) -> None:
        """Publishes one message of records, as a worker does. Those of `call` name prices that make their costs."""
        async with self.superuser() as connection:
            for cost in {r.cost_nanos for r in records if r.price_id == f"prc_{r.cost_nanos}"} - self._priced:
                await connection.execute(
                    "INSERT INTO prices (id, model_id, model, currency, components, effective_at)"
                    " VALUES ($1, 'mdl_x', 'x/m', 'USD', $2::text::jsonb, now()) ON CONFLICT DO NOTHING",
                    f"prc_{cost}", f'[["requests", {cost * 1_000_000}]]',
                )  # fmt: skip
                self._priced.add(cost)
        batch = event_pb2.UsageBatch(records=records, worker_id="wrk_1")
        await self.events.js.publish(USAGE_SUBJECT, batch.SerializeToString())

    async def settled(self, seconds: float = 20) -> None:
        """Waits until nothing is left in the stream."""
        async with asyncio.timeout(seconds):
            while (await self.events.js.stream_info("USAGE")).state.messages:
                await asyncio.sleep(0.02)

    @asynccontextmanager
    async def superuser(self, schema: str = "billing") -> AsyncIterator[Any]:
        """A connection that no trigger stops."""
        connection = await asyncpg.connect(self.postgres_url)
        try:
            await connection.execute(f"SET search_path TO {schema}; SET session_replication_role TO replica")
            yield connection
        finally:
            await connection.close()


def _somewhere(token: str) -> list[tuple[str, str]]:
    """An address of one's own: sign-ins are limited by address."""
    address = ".".join(["10", *(str(b) for b in secrets.token_bytes(3))])
    return [(DOOR_KEY, f"{door_token(token)} {address}")]


@asynccontextmanager
async def running(folder: Path, clock: Clock | None = None, **more: Any) -> AsyncIterator[Books]:
    """Everything up, migrated and serving; stopped afterwards."""
    address, token = f"127.0.0.1:{free_ports(1)[0]}", secrets.token_hex()
    async with Postgres(folder / "postgres") as postgres, Valkey(folder / "valkey") as valkey, Nats(folder / "n") as n:
        values: dict[str, Any] = {
            "home": folder / "home", "postgres_url": postgres.url, "internal_token": token,
            "jwt_key_file": folder / "jwt.pem", "admin_email": ADMIN, "admin_password": PASSWORD,
            "storage_url": f"file://{folder}/artifacts", "auto_top_up_seconds": 0.2, **more,
        }  # fmt: skip
        events = await Events.connect(n.url, "tests")
        redis: Redis = Redis.from_url(valkey.url)
        internal, channel, clock = (
            InternalChannel(address, token),
            grpc.aio.insecure_channel(address),
            clock or MovedClock(),
        )
        books = Books(postgres.url, events, channel, internal, clock, token)
        server, tasks, databases, closing = Server(), [], [], []
        for name in ("auth", "registry", "usage", "billing"):
            await migrate(postgres.url, name, f"services.{name}")
            database = await Database.connect(postgres.url, name)
            databases.append(database)
            principals, limiter = Principals(internal), Limiter(redis)
            settings = load(discover().get(name, Settings), **values)
            books.deps[name] = deps = Deps(
                settings, database, events, redis, limiter, principals, internal, clock, "wrk_tests"
            )
            service = await build(name, deps)
            closing += [service.close] if service.close is not None else []
            guard = Guard(token, principals, limiter, IdempotencyKeys(database, clock))
            for registration in service.registrations:
                server.add(registration, guard)
            tasks += [outbox.relay(database, events), *(task() for task in service.tasks)]
        await server.start(address)
        work = [asyncio.create_task(task) for task in tasks]
        yield books
        for task in work:
            task.cancel()
        ended = await asyncio.gather(*work, return_exceptions=True)
        await channel.close(None)
        await internal.close()
        await server.drain(notice=0, grace=0.1)
        for close in closing:
            await close()
        for database in databases:
            await database.close()
        await events.close()
        await redis.aclose()
        assert all(isinstance(e, asyncio.CancelledError) for e in ended), ended
