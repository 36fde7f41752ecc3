"""The books: prices, wallets, leases of credit to inference workers, the double-entry ledger and what checks it.
How much was used is usage's; what a call costs is told by the price that was in force when it ran."""

from datetime import timedelta

from google.protobuf.message import Message
from mercat.billing.v1 import (
    billing_pb2_grpc,
    budgets_pb2_grpc,
    closing_pb2_grpc,
    corrections_pb2_grpc,
    credits_pb2_grpc,
    prices_pb2_grpc,
)
from mercat.event.v1 import event_pb2

from services.billing.budgets.service import BudgetServicer
from services.billing.corrections.service import CorrectionServicer
from services.billing.credits.grants import Grants
from services.billing.credits.service import CreditServicer
from services.billing.leasing import Leasing
from services.billing.moves.following import Moves
from services.billing.payments import PaymentParts
from services.billing.payouts.sums import hold_of
from services.billing.personal.closing import ClosingServicer
from services.billing.personal.data import BillingData
from services.billing.prices.announcing import Announcer
from services.billing.prices.service import PriceServicer
from services.billing.proof.parts import ProofParts
from services.billing.recurring import RecurringParts
from services.billing.service import BillingServicer
from services.billing.service_leases import LeaseServicer
from services.billing.service_receipts import ReceiptServicer
from services.billing.settings import BillingSettings
from services.billing.stores import Stores
from services.common.events import consume
from services.common.personal.tasks import PersonTasks
from services.common.service import Deps, Service
from services.common.signing import KeyFile


async def build(deps: Deps) -> Service:
    settings = deps.settings
    assert isinstance(settings, BillingSettings)
    stores = Stores()
    store, price_store, credit, budgets = stores.books, stores.prices, stores.credit, stores.budgets
    payments = PaymentParts(deps, store, stores.losses, settings)
    proof = ProofParts(deps, stores, payments.provider, settings.reconcile_seconds)
    prices = PriceServicer(deps.database, store, price_store, deps.control, deps.clock)
    billing = BillingServicer(
        deps.database, stores, prices, deps.clock, proof.prover, settings.fee_ppm, hold_of(settings.payout_hold_days),
        sandbox=not settings.live,
    )  # fmt: skip
    lifetime = timedelta(seconds=settings.lease_seconds)
    leasing = Leasing(store, credit, budgets, stores.subscriptions, deps.clock, settings.fee_ppm, lifetime)
    leases = LeaseServicer(deps.database, store, price_store, leasing, deps.control, deps.events, deps.clock, settings)
    giving = Grants(store, credit, deps.clock)
    grants = CreditServicer(deps.database, store, credit, giving, deps.clock)
    limits = BudgetServicer(deps.database, store, budgets, deps.control, deps.events, deps.clock)
    keys = KeyFile(settings.receipt_key_file or settings.home / "secrets" / "receipts.pem")
    receipts = ReceiptServicer(deps.database, price_store, deps.control, keys, deps.clock)
    announcer = Announcer(deps.database, price_store, deps.clock)
    recurring = RecurringParts(deps, stores, settings, payments, giving)
    corrections = CorrectionServicer(
        deps.database, store, price_store, stores.subscriptions, credit, recurring.following, deps.control, deps.clock,
        settings.fee_ppm,
    )  # fmt: skip

    data = BillingData(deps.database, stores, recurring.changes, payments.provider, deps.clock)

    async def signed_up() -> None:
        kinds: list[type[Message]] = [event_pb2.UserSignedUp, event_pb2.OrganisationCreated]
        await consume(deps.events, deps.database, "wallets", kinds, billing.open_account)

    async def moved() -> None:
        follow = Moves(store, deps.control).follow
        await consume(deps.events, deps.database, "moved-models", [event_pb2.ModelMoved], follow)

    return Service(
        "billing",
        registrations=[
            (billing_pb2_grpc.add_BillingServiceServicer_to_server, billing),
            (prices_pb2_grpc.add_PriceServiceServicer_to_server, prices),
            (billing_pb2_grpc.add_LeaseServiceServicer_to_server, leases),
            (billing_pb2_grpc.add_ReceiptServiceServicer_to_server, receipts),
            (credits_pb2_grpc.add_CreditServiceServicer_to_server, grants),
            (budgets_pb2_grpc.add_BudgetServiceServicer_to_server, limits),
            *payments.registrations,
            *recurring.registrations,
            *proof.registrations,
            (corrections_pb2_grpc.add_CorrectionServiceServicer_to_server, corrections),
            (closing_pb2_grpc.add_ClosingServiceServicer_to_server, ClosingServicer(deps.database)),
        ],
        tasks=[
            signed_up, moved, leases.recover, grants.expire, announcer.repeat, *payments.tasks, *recurring.tasks,
            *proof.tasks, *PersonTasks(deps, "billing", data).tasks,
        ],
        close=payments.close,
    )  # fmt: skip
