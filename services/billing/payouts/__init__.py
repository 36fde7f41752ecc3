"""What publishers earned on its way to them: held, paid out when it is due, and taken back where a call is refunded."""

from mercat.billing.v1 import payouts_pb2_grpc

from services.billing.corrections.following import Following
from services.billing.invoices.issuing import Issuing
from services.billing.losses.store import LossStore
from services.billing.payments.provider import Provider
from services.billing.payouts.refunds import Refunds
from services.billing.payouts.saga import Payouts
from services.billing.payouts.service import PayoutServicer
from services.billing.payouts.store import PayoutStore
from services.billing.settings import BillingSettings
from services.billing.store import Store
from services.common.rpc.server import Registration
from services.common.service import Deps, Task


class PayoutParts:
    """What billing hosts of this."""

    def __init__(
        self, deps: Deps, books: Store, store: PayoutStore, losses: LossStore, settings: BillingSettings,
        issuing: Issuing, following: Following, provider: Provider,
    ) -> None:  # fmt: skip
        payouts = Payouts(deps.database, books, store, losses, issuing, provider, deps.clock, settings)
        refunds = Refunds(deps.database, books, store, following, deps.control, deps.clock)
        servicer = PayoutServicer(deps.database, store, payouts, refunds, issuing, provider, deps.clock)
        self.payouts = payouts
        self.registrations: list[Registration] = [(payouts_pb2_grpc.add_PayoutServiceServicer_to_server, servicer)]
        self.tasks: list[Task] = [payouts.run]
