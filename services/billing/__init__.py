"""The books: prices, wallets, leases of credit to inference workers, the double-entry ledger and what checks it.
How much was used is usage's; what a call costs is told by the price that was in force when it ran."""

from mercat.billing.v1 import billing_pb2_grpc, corrections_pb2_grpc
from mercat.event.v1 import event_pb2

from services.billing.corrections.service import CorrectionServicer
from services.billing.reconciler import Reconciler
from services.billing.service import BillingServicer
from services.billing.service_leases import LeaseServicer
from services.billing.service_receipts import ReceiptServicer
from services.billing.settings import BillingSettings
from services.billing.store import Store
from services.common.events import consume
from services.common.service import Deps, Service
from services.common.signing import SigningKey


async def build(deps: Deps) -> Service:
    settings = deps.settings
    assert isinstance(settings, BillingSettings)
    store = Store()
    reconciler = Reconciler(deps.database, store, deps.control)
    billing = BillingServicer(deps.database, store, deps.control, deps.clock, reconciler, settings.fee_ppm)
    leases = LeaseServicer(deps.database, store, deps.control, deps.events, deps.clock, settings)
    corrections = CorrectionServicer(deps.database, store, deps.control, deps.clock, settings.fee_ppm)
    key = SigningKey.load(settings.receipt_key_file or settings.home / "secrets" / "receipts.pem")
    receipts = ReceiptServicer(deps.database, store, deps.control, key, deps.clock)

    async def signed_up() -> None:
        await consume(deps.events, deps.database, "wallets", [event_pb2.UserSignedUp], billing.open_account)

    async def reconcile() -> None:
        await reconciler.repeat(settings.reconcile_seconds)

    return Service(
        "billing",
        registrations=[
            (billing_pb2_grpc.add_BillingServiceServicer_to_server, billing),
            (billing_pb2_grpc.add_LeaseServiceServicer_to_server, leases),
            (billing_pb2_grpc.add_ReceiptServiceServicer_to_server, receipts),
            (corrections_pb2_grpc.add_CorrectionServiceServicer_to_server, corrections),
        ],
        tasks=[signed_up, leases.recover, reconcile],
    )
