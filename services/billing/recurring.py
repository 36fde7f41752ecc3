"""What billing hosts of plans, subscriptions, invoices and payouts."""

from mercat.billing.v1 import invoices_pb2_grpc, plans_pb2_grpc

from services.billing.invoices.collection import Collection
from services.billing.invoices.issuing import Issuing
from services.billing.invoices.service import InvoiceServicer
from services.billing.invoices.store import InvoiceStore
from services.billing.payments import PaymentParts
from services.billing.payouts import PayoutParts
from services.billing.settings import BillingSettings
from services.billing.store import Store
from services.billing.subscriptions.changes import Changes
from services.billing.subscriptions.periods import Periods
from services.billing.subscriptions.service import PlanServicer
from services.billing.subscriptions.store import SubscriptionStore
from services.common.rpc.server import Registration
from services.common.service import Deps, Task


class RecurringParts:
    """Constructs them; `registrations` and `tasks` are the service's."""

    def __init__(self, deps: Deps, books: Store, settings: BillingSettings, payments: PaymentParts) -> None:
        database, clock = deps.database, deps.clock
        invoices, subscriptions = InvoiceStore(), SubscriptionStore()
        issuing = Issuing(database, books, invoices, deps.control, clock)
        changes = Changes(books, subscriptions, issuing, settings.fee_ppm)
        retry_days = [int(days) for days in settings.invoice_retry_days.split(",")]
        collection = Collection(
            database, books, invoices, subscriptions, issuing, payments.payments, deps.events, clock, retry_days
        )
        plans = PlanServicer(database, subscriptions, changes, deps.control, clock, settings.fee_ppm)
        servicer = InvoiceServicer(database, books, invoices, issuing, collection, clock)
        payouts = PayoutParts(deps, books, settings, issuing, payments.provider)
        self.registrations: list[Registration] = [
            (plans_pb2_grpc.add_PlanServiceServicer_to_server, plans),
            (invoices_pb2_grpc.add_InvoiceServiceServicer_to_server, servicer),
            *payouts.registrations,
        ]
        periods = Periods(database, subscriptions, changes, clock)
        self.tasks: list[Task] = [periods.run, issuing.run, collection.run, collection.hear, *payouts.tasks]
