"""Money from outside: cards, payments as sagas, automatic top-ups, and the providers that move it. What is owed and
when is for others to say; they begin a payment with `Payments.start` and hear of its end by PaymentSettled."""

from mercat.billing.v1 import payments_pb2_grpc

from services.billing.payments.auto_top_up import AutoTopUps
from services.billing.payments.customers import Customers
from services.billing.payments.saga import Payments
from services.billing.payments.sandbox import SandboxProvider
from services.billing.payments.service import PaymentServicer
from services.billing.payments.store import PaymentStore
from services.billing.settings import BillingSettings
from services.billing.store import Store
from services.common.rpc.server import Registration
from services.common.service import Deps, Task


class PaymentParts:
    """What billing hosts of this: `payments` is what others begin payments with."""

    def __init__(self, deps: Deps, books: Store, settings: BillingSettings) -> None:
        store, provider = PaymentStore(), SandboxProvider(deps.database)
        customers = Customers(deps.database, store, provider, deps.clock)
        self.payments = Payments(
            deps.database, books, store, provider, customers, deps.clock, settings.payment_claim_seconds
        )
        auto = AutoTopUps(deps.database, store, self.payments, deps.clock, settings.auto_top_up_seconds)
        servicer = PaymentServicer(deps.database, store, provider, customers, self.payments, deps.clock)
        self.registrations: list[Registration] = [(payments_pb2_grpc.add_PaymentServiceServicer_to_server, servicer)]
        self.tasks: list[Task] = [self.payments.run, customers.forget_cards, auto.run]
