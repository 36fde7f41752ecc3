"""What billing hosts of plans, subscriptions, invoices and payouts."""

from mercat.billing.v1 import invoices_pb2_grpc, plans_pb2_grpc

from services.billing.corrections.following import Following
from services.billing.credits.grants import Grants
from services.billing.invoices.collection import Collection
from services.billing.invoices.issuing import Issuing
from services.billing.invoices.service import InvoiceServicer
from services.billing.payments import PaymentParts
from services.billing.payouts import PayoutParts
from services.billing.settings import BillingSettings
from services.billing.stores import Stores
from services.billing.subscriptions.changes import Changes
from services.billing.subscriptions.periods import Periods
from services.billing.subscriptions.service import PlanServicer
from services.common.rpc.server import Registration
from services.common.service import Deps, Task


class RecurringParts:
    """Constructs them; `registrations` and `tasks` are the service's, `following` is what corrections use too, and
    `changes` erasures."""

    def __init__(
        self, deps: Deps, stores: Stores, settings: BillingSettings, payments: PaymentParts, grants: Grants
    ) -> None:
        database, clock, books = deps.database, deps.clock, stores.books
        invoices, subscriptions = stores.invoices, stores.subscriptions
        issuing = Issuing(database, books, invoices, deps.control, clock)
        self.following = Following(grants, stores.budgets, issuing)
        changes = self.changes = Changes(books, subscriptions, issuing, settings.fee_ppm)
        retry_days = [int(days) for days in settings.invoice_retry_days.split(",")]
        collection = Collection(
            database, books, invoices, subscriptions, stores.credit, issuing, payments.payments, deps.events, clock,
            retry_days,
        )  # fmt: skip
        plans = PlanServicer(database, subscriptions, changes, deps.control, clock, settings.fee_ppm)
        servicer = InvoiceServicer(database, books, invoices, issuing, collection, clock)
        payouts = PayoutParts(
            deps, books, stores.payouts, stores.losses, settings, issuing, self.following, payments.provider
        )
        self.registrations: list[Registration] = [
            (plans_pb2_grpc.add_PlanServiceServicer_to_server, plans),
            (invoices_pb2_grpc.add_InvoiceServiceServicer_to_server, servicer),
            *payouts.registrations,
        ]
        periods = Periods(database, subscriptions, changes, clock)
        self.tasks: list[Task] = [periods.run, issuing.run, collection.run, collection.hear, *payouts.tasks]
