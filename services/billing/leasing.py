"""What happens to money between a wallet and the ledger, in transactions that the caller opens: slices are set aside
for workers, and what their calls cost is posted. The wallet is locked first, and all else is read under its lock.

What may be set aside is what nobody holds of wallet, credit limit and credit that has not expired, and of every budget
that counts the calls. It is so at every moment after, since whatever is spent leaves what was set aside for it."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from mercat.usage.v1 import usage_pb2

from services.billing import leases, ledger
from services.billing.budgets import periods
from services.billing.budgets.spent import counts_as
from services.billing.budgets.store import Budget, BudgetStore, Spending
from services.billing.credits import burning
from services.billing.credits.burning import Grant
from services.billing.credits.store import CreditStore
from services.billing.ledger import Account
from services.billing.store import Charges, Row, Store
from services.billing.subscriptions.store import SubscriptionStore
from services.common import money
from services.common.clock import Clock
from services.common.db import Connection
from services.common.errors import BudgetExceeded, InsufficientCredit

Record = usage_pb2.UsageRecord


@dataclass(frozen=True, slots=True)
class Slice:
    """A lease as it was made; nanos. `by_key`, `by_model`: only calls of the key or the model asked for spend it."""

    lease_id: str
    granted: int
    expires_at: datetime
    ends_at: datetime
    by_key: bool
    by_model: bool


class Leasing:
    """The rules; the tables are the stores'. The time is read under the wallet's lock: of two transactions the later
    one must not be the one with the earlier time, or it might count on credit that the other took to have expired."""

    def __init__(
        self, store: Store, credit: CreditStore, budgets: BudgetStore, subscriptions: SubscriptionStore, clock: Clock,
        fee_ppm: int, lifetime: timedelta,
    ) -> None:  # fmt: skip
        self._store = store
        self._credit = credit
        self._budgets = budgets
        self._subscriptions = subscriptions
        self._clock = clock
        self._fee_ppm = fee_ppm
        self._lifetime = lifetime

    async def acquire(
        self, c: Connection, org_id: str, worker_id: str, minimum: int, wanted: int, *, key_id: str = "",
        model_id: str = "",
    ) -> Slice:  # fmt: skip
        """Sets aside at least `minimum` nanos for calls of a key and a model.

        Raises:
            BudgetExceeded: a budget has not that much left.
            InsufficientCredit: the wallet, with credit and credit limit, has not that much.
        """
        await self._store.lock_or_open_wallets(c, [org_id])
        now = self._clock.now()
        wallet = await self._store.get_wallet(c, org_id)
        assert wallet is not None
        credit = await self._credit.usable(c, org_id, now)
        day = now.astimezone(UTC).date()
        hard = [b for b in await self._budgets.states(c, [org_id], day) if not b.notify_only]
        counting = [b for b in hard if b.counts(key_id, model_id)]
        free = leases.available(wallet, credit.amount)
        tightest = min(counting, key=lambda b: b.free, default=None)
        granted = leases.grant(min([free, *(b.free for b in counting)]), minimum, wanted)
        if not granted:
            if tightest is not None and tightest.free < minimum:
                raise exceeded(tightest, minimum, now)
            raise _insufficient(wallet, credit.amount, minimum)
        by_key, by_model = any(b.key_id for b in hard), any(b.model_id for b in hard)
        # Spending from it counts into this day, and what credit it was made with may be gone after that expires.
        ends = min(periods.midnight(day) + timedelta(days=1), credit.until or datetime.max.replace(tzinfo=UTC))
        expires = self._clock.machine() + self._lifetime
        lease_id = await self._store.add_lease(
            c, org_id, worker_id, granted, expires, now, ends_at=ends, key_id=key_id if by_key else "",
            model_id=model_id if by_model else "",
        )  # fmt: skip
        return Slice(lease_id, granted, expires, ends, by_key, by_model)

    async def post(self, c: Connection, records: Iterable[Record]) -> tuple[int, dict[Account, str]]:
        """Posts calls, each once: credit pays before the wallet. Answers how many were posted now, and the accounts for
        the store to remember when the transaction has committed."""
        # Calls that cost nothing, and those of test keys, move no money: there is nothing to post.
        paid = {r.request_id: r for r in records if r.cost_nanos > 0 and not r.test}
        if not paid:
            return 0, {}
        # What calls cost, of those that are alike in all that their money depends on.
        alike: dict[tuple[str, str, str, Spending], dict[str, int]] = defaultdict(dict)
        for cause, r in paid.items():
            alike[r.org_id, r.publisher_org_id, r.lease_id, counts_as(r)][cause] = r.cost_nanos
        org_ids = {org_id for org_id, *_ in alike}
        lease_ids = {lease_id for _, _, lease_id, _ in alike if lease_id}
        await self._store.lock_or_open_wallets(c, org_ids, list(lease_ids))
        now = self._clock.now()
        left = await self._credit.left(c, org_ids)
        burnt = await self._burn(c, paid, left) if left else {}
        credit = {cause: sum(n for _, n in parts) for cause, parts in burnt.items()}
        fees = await self._subscriptions.fees_of(c, {publisher for _, publisher, _, _ in alike})
        charges: list[Charges] = []
        for (org_id, publisher, _, _), costs in alike.items():
            fee = fees.get(publisher, self._fee_ppm)
            calls = {cause: ledger.split(cost, fee, credit.get(cause, 0)) for cause, cost in costs.items()}
            charges.append((ledger.parties(org_id, publisher), calls))
        new, moves, known = await self._store.add_charges(c, charges, now)
        leased: dict[str, int] = defaultdict(int)
        spent: dict[Spending, int] = defaultdict(int)
        for (_, _, lease_id, counted), costs in alike.items():
            if cost := sum(cost for cause, cost in costs.items() if cause in new):
                leased[lease_id] += cost
                spent[counted] += cost
        leased.pop("", None)
        if leased:
            await self._store.post_to_leases(c, leased)
        await self._credit.burn(c, [(grant, cause, n) for cause, parts in burnt.items() for grant, n in parts])
        await self._budgets.count(c, spent, now)
        await self._store.move_balances(c, moves)
        return len(new), known

    async def _burn(
        self, c: Connection, paid: Mapping[str, Record], left: Mapping[str, list[Grant]]
    ) -> dict[str, Sequence[tuple[str, int]]]:
        """What each call that is not posted yet spends of which grants."""
        mine = sorted(r.request_id for r in paid.values() if r.org_id in left)
        posted = await self._store.posted(c, mine)
        burnt: dict[str, Sequence[tuple[str, int]]] = {}
        for cause in mine:
            r = paid[cause]
            if cause not in posted:
                moment, _ = periods.set_aside(r)
                if parts := burning.burn(left[r.org_id], r.cost_nanos, moment):
                    burnt[cause] = parts
        return burnt


def exceeded(budget: Budget, minimum: int, now: datetime) -> BudgetExceeded:
    """The refusal that names a budget, and when its period ends."""
    whose = f" of the key {budget.key_id}" if budget.key_id else f" of {budget.model}" if budget.model_id else ""
    resets = budget.resets_at.strftime("%Y-%m-%dT%H:%M:%SZ")
    period = periods.NAMES[budget.period]
    return BudgetExceeded(
        f"the {period} budget {budget.name}{whose} has {money.show(max(budget.free, 0))} left of"
        f" {money.show(budget.limit)} and this call needs {money.show(minimum)}; it begins anew at {resets}",
        metadata={
            "budget": budget.name, "budget_id": budget.budget_id,
            "scope": "key" if budget.key_id else "model" if budget.model_id else "organization", "period": period,
            "limit_nanos": str(budget.limit), "spent_nanos": str(budget.spent),
            "reserved_nanos": str(budget.reserved), "reset_time": resets,
        },
        retry_after=max((budget.resets_at - now).total_seconds(), 0.0),
    )  # fmt: skip


def _insufficient(wallet: Row, credit: int, minimum: int) -> InsufficientCredit:
    free = leases.available(wallet, credit)
    return InsufficientCredit(
        f"the wallet has {money.show(free)} free and this call needs {money.show(minimum)}; add credit with"
        " `mercat topup`",
        metadata={"balance_nanos": str(wallet["balance"]), "reserved_nanos": str(wallet["reserved"])},
    )
