"""What billing hosts of the proof."""

from mercat.billing.v1 import proof_pb2_grpc

from services.billing.corrections.proof import CorrectionProof
from services.billing.credits.proof import CreditProof
from services.billing.invoices.proof import InvoiceProof
from services.billing.losses.proof import LossProof
from services.billing.payments.outside import ProviderProof
from services.billing.payments.proof import PaymentProof
from services.billing.payments.provider import Provider
from services.billing.payments.store import PaymentStore
from services.billing.payouts.proof import PayoutProof
from services.billing.prices.rerating import Rerating
from services.billing.proof.calls import Calls
from services.billing.proof.hourly import Hourly
from services.billing.proof.ledger import LedgerProof
from services.billing.proof.prover import Prover
from services.billing.proof.service import ProofServicer
from services.billing.proof.store import ProofStore
from services.billing.stores import Stores
from services.common.rpc.server import Registration
from services.common.service import Deps, Task


class ProofParts:
    """Constructs it; `registrations` and `tasks` are the service's."""

    def __init__(self, deps: Deps, stores: Stores, provider: Provider, seconds: float) -> None:
        database, store, payments = deps.database, ProofStore(), PaymentStore()
        calls = Calls(database, stores.books, store, Rerating(database, stores.prices), deps.control, deps.clock)
        areas = (
            LedgerProof(store), CreditProof(stores.credit), CorrectionProof(), InvoiceProof(stores.invoices),
            PaymentProof(payments), LossProof(stores.losses), PayoutProof(stores.books, stores.payouts),
        )  # fmt: skip
        outside = [ProviderProof(database, payments, provider)]
        self.prover = Prover(database, store, calls, areas, outside, stores.budgets, deps.clock)
        hourly = Hourly(self.prover, deps.clock, seconds)
        self.registrations: list[Registration] = [
            (proof_pb2_grpc.add_ProofServiceServicer_to_server, ProofServicer(self.prover, hourly, deps.clock))
        ]
        self.tasks: list[Task] = [hourly.run]
