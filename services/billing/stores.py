"""The stores of billing: one of each, for whoever needs it."""

from dataclasses import dataclass, field

from services.billing.budgets.store import BudgetStore
from services.billing.credits.store import CreditStore
from services.billing.invoices.store import InvoiceStore
from services.billing.losses.store import LossStore
from services.billing.payouts.store import PayoutStore
from services.billing.prices.store import PriceStore
from services.billing.store import Store
from services.billing.subscriptions.store import SubscriptionStore


@dataclass(frozen=True, slots=True)
class Stores:
    """None of them keeps anything but its queries, and `books` the ids of accounts."""

    books: Store = field(default_factory=Store)
    prices: PriceStore = field(default_factory=PriceStore)
    credit: CreditStore = field(default_factory=CreditStore)
    budgets: BudgetStore = field(default_factory=BudgetStore)
    subscriptions: SubscriptionStore = field(default_factory=SubscriptionStore)
    invoices: InvoiceStore = field(default_factory=InvoiceStore)
    payouts: PayoutStore = field(default_factory=PayoutStore)
    losses: LossStore = field(default_factory=LossStore)
