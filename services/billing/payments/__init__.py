"""Money from outside: cards, payments as sagas, automatic top-ups, and the providers that move it. What is owed and
when is for others to say; they begin a payment with `Payments.start` and hear of its end by PaymentSettled."""

from mercat.billing.v1 import payments_pb2_grpc

from services.billing.losses.saga import Losses
from services.billing.losses.store import LossStore
from services.billing.payments.auto_top_up import AutoTopUps
from services.billing.payments.customers import Customers
from services.billing.payments.inbox import Inbox, WebhookServicer
from services.billing.payments.provider import Provider
from services.billing.payments.reversals import Reversals
from services.billing.payments.saga import Payments
from services.billing.payments.sandbox import SandboxProvider
from services.billing.payments.service import PaymentServicer
from services.billing.payments.store import PaymentStore
from services.billing.payments.stripe_provider import StripeProvider
from services.billing.settings import BillingSettings
from services.billing.store import Store
from services.common.rpc.server import Registration
from services.common.service import Deps, Task


class PaymentParts:
    """What billing hosts of this: `payments` is what others begin payments with."""

    def __init__(self, deps: Deps, books: Store, losses: LossStore, settings: BillingSettings) -> None:
        database, clock, store = deps.database, deps.clock, PaymentStore()
        self._stripe: StripeProvider | None = None
        provider: Provider = SandboxProvider(database)
        if settings.stripe_secret_key:
            provider = self._stripe = StripeProvider(settings.stripe_secret_key, settings.stripe_api_base)
        claim = settings.payment_claim_seconds
        customers = Customers(database, store, provider, clock)
        self.provider = provider
        self.payments = Payments(database, books, store, provider, customers, clock, claim)
        reversals = Reversals(database, books, store, losses, provider, clock, claim)
        auto = AutoTopUps(database, store, self.payments, clock, settings.auto_top_up_seconds)
        servicer = PaymentServicer(database, store, provider, customers, self.payments, reversals, clock)
        secrets = [secret.strip() for secret in settings.stripe_webhook_secret.split(",") if secret.strip()]
        webhooks = WebhookServicer(database, store, clock, secrets)
        self.registrations: list[Registration] = [
            (payments_pb2_grpc.add_PaymentServiceServicer_to_server, servicer),
            (payments_pb2_grpc.add_WebhookServiceServicer_to_server, webhooks),
        ]
        bearing = Losses(database, books, losses, clock)
        self.tasks: list[Task] = [self.payments.run, reversals.run, customers.forget_cards, auto.run, bearing.run]
        if self._stripe is not None:
            seconds = settings.stripe_replay_seconds
            inbox = Inbox(database, store, self._stripe, self.payments, reversals, clock, seconds)
            self.tasks += [inbox.run, inbox.replay]

    async def close(self) -> None:
        if self._stripe is not None:
            await self._stripe.close()
