"""Wallets, credit and budgets as a state machine over the real tables: whatever happens in whatever order, a wallet is
never overdrawn, no budget is overshot, what is reserved is what the leases hold, and in the end nothing is stranded."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from mercat.billing.v1 import budgets_pb2
from mercat.usage.v1 import usage_pb2

from services.billing import ledger
from services.billing.budgets import periods
from services.billing.budgets.store import BudgetStore, Spending
from services.billing.credits.grants import CreditLimitInUse, Grants
from services.billing.credits.proof import CreditProof
from services.billing.credits.store import CreditStore
from services.billing.leasing import Leasing
from services.billing.ledger import CREDIT, Account
from services.billing.proof import postings
from services.billing.proof.found import Effects, Found, within
from services.billing.proof.ledger import LedgerProof
from services.billing.proof.store import ProofStore
from services.billing.proof.sums import Sums
from services.billing.store import Store
from services.billing.subscriptions.store import SubscriptionStore
from services.common import ids
from services.common.db import Database, migrate
from services.common.errors import BudgetExceeded, InsufficientCredit, MercatError
from services.embedded.postgres import Postgres

# A day ends soon; of the second a month, too.
T0, T1 = (datetime(2026, 1, day, 23, 59, 40, tzinfo=UTC) for day in (30, 31))
LIFETIME, GRACE = timedelta(seconds=20), timedelta(seconds=10)
KEYS, MODELS = ("key_a", "key_b"), ("mdl_a", "mdl_b")
DAILY, MONTHLY = budgets_pb2.BUDGET_PERIOD_DAILY, budgets_pb2.BUDGET_PERIOD_MONTHLY


@pytest.fixture(scope="module")
async def billing_database(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Database]:
    async with Postgres(tmp_path_factory.mktemp("leases") / "postgres") as postgres:
        await migrate(postgres.url, "billing", "services.billing")
        connection = await asyncpg.connect(postgres.url)
        await connection.execute("ALTER ROLE CURRENT_USER SET synchronous_commit = off")  # nothing crashes here
        await connection.close()
        database = await Database.connect(postgres.url, "billing")
        yield database
        await database.close()


class Time:
    """A clock that a test sets."""

    def __init__(self, now: datetime) -> None:
        self.at = now

    def now(self) -> datetime:
        return self.at

    machine = now

    def monotonic(self) -> float:
        return self.at.timestamp()


@dataclass(eq=False)
class Lease:
    """What a worker knows of a lease."""

    lease_id: str
    granted: int
    expires: datetime
    ends: datetime
    keys: tuple[str, ...]  # whose calls may spend from it
    models: tuple[str, ...]
    made: datetime
    recorded: int = 0  # spent by calls that were answered
    held: int = 0  # by calls under way
    alive: bool = True  # its worker neither died nor closed it


@dataclass(eq=False)
class Call:
    """A call under way, or recorded."""

    lease: Lease
    record: usage_pb2.UsageRecord
    began: datetime

    @property
    def cost(self) -> int:
        return self.record.cost_nanos


@dataclass
class Limit:
    """A hard budget as a test knows it. `bound`: the most that its first period may have spent, since leases that were
    there before were made without it."""

    key_id: str
    model_id: str
    period: int
    limit: int
    first: date
    bound: int

    def most(self, start: date) -> int:
        return self.bound if start == self.first else self.limit

    def counts(self, key_id: str, model_id: str) -> bool:
        return self.key_id in ("", key_id) and self.model_id in ("", model_id)


@dataclass
class Counts:
    """What the platform has promised."""

    paid_in: int = 0
    given: int = 0
    spent: dict[Spending, int] = field(default_factory=dict)  # by answered calls


def machine(database: Database, loop: asyncio.AbstractEventLoop) -> type[RuleBasedStateMachine]:
    store, credit, budgets, time = Store(), CreditStore(), BudgetStore(), Time(T0)
    leasing = Leasing(store, credit, budgets, SubscriptionStore(), time, 200_000, LIFETIME)
    grants = Grants(store, credit, time)

    def run(work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(30)

    class Wallets(RuleBasedStateMachine):
        """Of credit, of budgets, or of both: what is rare in all of them is common in one."""

        @initialize(
            of=st.sampled_from(("credit", "budgets", "both")), start=st.sampled_from((T0, T1)),
            paid=st.sampled_from((0, 50)), limit=st.sampled_from((0, 50)),
        )  # fmt: skip
        def open(self, of: str, start: datetime, paid: int, limit: int) -> None:
            self.of = of
            self.org, self.publisher = ids.new("org"), ids.new("org")
            time.at = start
            self.count = Counts()
            self.limit = 0
            self.leases: list[Lease] = []
            self.under_way: list[Call] = []
            self.waiting: list[Call] = []  # recorded, not posted
            self.posted: list[Call] = []
            self.budgets: dict[str, Limit] = {}
            self.expiries: list[datetime] = []  # of grants that were given
            self.top_up(2000 if of == "budgets" else paid)
            if of != "budgets":
                self.set_limit(limit)

        # Money comes

        @rule(amount=st.integers(1, 40))
        def top_up(self, amount: int) -> None:
            async def work() -> None:
                async with database.transaction() as c:
                    await store.lock_or_open_wallets(c, [self.org])
                    if amount:
                        await store.post(c, [ledger.top_up(ids.new("topup"), self.org, amount)], time.at)

            run(work())
            self.count.paid_in += amount

        @precondition(lambda self: self.of != "budgets")
        @rule(amount=st.integers(20, 200), priority=st.integers(0, 2), lasts=st.sampled_from((None, 5, 12, 30)))
        def give(self, amount: int, priority: int, lasts: int | None) -> None:
            expires_at = None if lasts is None else time.at + timedelta(seconds=lasts)

            async def work() -> None:
                async with database.transaction() as c:
                    await grants.give(c, ids.new("crg"), self.org, amount, priority=priority, expires_at=expires_at)

            run(work())
            self.count.given += amount
            if expires_at is not None:
                self.expiries.append(expires_at)

        @precondition(lambda self: self.of != "budgets")
        @rule(limit=st.sampled_from((0, 20, 50)))
        def set_limit(self, limit: int) -> None:
            async def work() -> None:
                async with database.transaction() as c:
                    await grants.set_limit(c, self.org, limit)

            try:
                run(work())
                self.limit = limit
            except CreditLimitInUse:
                assert limit < self.limit

        # Budgets come and go

        @precondition(lambda self: self.of != "credit")
        @rule(
            name=st.sampled_from("xyz"), whose=st.sampled_from((("", ""), ("key_a", ""), ("", "mdl_a"))),
            period=st.sampled_from((DAILY, MONTHLY)), limit=st.integers(1, 300),
        )  # fmt: skip
        def set_budget(self, name: str, whose: tuple[str, str], period: int, limit: int) -> None:
            key_id, model_id = whose

            async def work() -> None:
                async with database.transaction() as c:
                    await store.lock_wallets(c, [self.org])
                    await budgets.put_budget(
                        c, id=ids.new("bdg"), org_id=self.org, name=name, key_id=key_id, model_id=model_id,
                        model=model_id, period=period, limit_nanos=limit, notify_only=False, thresholds=[50, 100],
                        now=time.at,
                    )  # fmt: skip
                    await store.end_leases(c, self.org, time.at)
                    await budgets.tell(c, [self.org], time.at.date(), time.at)

            run(work())
            first = periods.start(period, time.at.date())
            made = self.budgets[name] = Limit(key_id, model_id, period, limit, first, 0)
            out = sum(
                x.granted - x.recorded
                for x in self.alive()
                if periods.start(period, x.made.date()) == first
                and any(made.counts(k, m) for k in x.keys for m in x.models)
            )
            made.bound = max(limit, self.spent_in(made, first) + out)

        @precondition(lambda self: self.budgets)
        @rule(data=st.data())
        def delete_budget(self, data: st.DataObject) -> None:
            name = data.draw(st.sampled_from(sorted(self.budgets)))
            del self.budgets[name]

            async def work() -> str:
                async with database.transaction() as c:
                    await store.lock_wallets(c, [self.org])
                    return await budgets.delete_budget(c, self.org, name)

            assert run(work())

        # Workers

        @rule(
            minimum=st.integers(1, 100), wanted=st.integers(1, 2000), key_id=st.sampled_from(KEYS),
            model_id=st.sampled_from(MODELS),
        )  # fmt: skip
        def acquire(self, minimum: int, wanted: int, key_id: str, model_id: str) -> None:
            async def work() -> Any:
                async with database.transaction() as c:
                    return await leasing.acquire(c, self.org, "wrk", minimum, wanted, key_id=key_id, model_id=model_id)

            try:
                made = run(work())
            except (InsufficientCredit, BudgetExceeded) as e:
                self.refused(e, minimum, key_id, model_id)
                return
            assert minimum <= made.granted <= max(minimum, wanted)
            keys, models = (key_id,) if made.by_key else KEYS, (model_id,) if made.by_model else MODELS
            self.leases.append(Lease(made.lease_id, made.granted, made.expires_at, made.ends_at, keys, models, time.at))

        def refused(self, error: MercatError, minimum: int, key_id: str, model_id: str) -> None:
            """Never for nothing."""
            if isinstance(error, InsufficientCredit):
                assert self.books()[3] < minimum
                return
            budget, told = self.budgets[error.metadata["budget"]], error.metadata
            assert budget.counts(key_id, model_id)
            assert budget.limit - int(told["spent_nanos"]) - int(told["reserved_nanos"]) < minimum
            assert int(told["spent_nanos"]) <= self.spent_in(budget, periods.start(budget.period, time.at.date()))
            assert error.retry_after is not None
            resets = time.at + timedelta(seconds=error.retry_after)
            assert resets == periods.midnight(periods.end(budget.period, time.at.date()))

        @rule(
            least=st.integers(1, 100), key_id=st.sampled_from(KEYS), model_id=st.sampled_from(MODELS), data=st.data(),
            ended=st.booleans(),
        )  # fmt: skip
        def use(self, least: int, key_id: str, model_id: str, data: st.DataObject, ended: bool) -> None:
            """A slice, and a call that takes all of it."""
            before = len(self.leases)
            self.acquire(least, least, key_id, model_id)
            if len(self.leases) > before and self.leases[-1] in self.usable():
                self.begin(self.leases[-1], self.leases[-1].granted, data, ended=ended, late=0)

        def alive(self) -> list[Lease]:
            return [x for x in self.leases if x.alive and x.expires > time.at]

        def usable(self) -> list[Lease]:
            return [x for x in self.alive() if x.ends > time.at and x.granted > x.recorded + x.held]

        @precondition(lambda self: self.usable())
        @rule(data=st.data(), ended=st.booleans(), most=st.booleans(), late=st.sampled_from((0, 10, 90_000)))
        def call(self, data: st.DataObject, ended: bool, most: bool, late: int) -> None:
            """A call begins, and perhaps ends at once. Those of jobs have ids of an earlier time."""
            lease = data.draw(st.sampled_from(self.usable()))
            room = lease.granted - lease.recorded - lease.held
            self.begin(lease, room if most else data.draw(st.integers(1, room)), data, ended=ended, late=late)

        def begin(self, lease: Lease, cost: int, data: st.DataObject, *, ended: bool, late: int) -> None:
            assert lease.made.date() == time.at.date(), "it counts into the day on which it runs"
            arrived = time.at - timedelta(seconds=late)
            record = usage_pb2.UsageRecord(
                request_id=ids.new("req", int(arrived.timestamp() * 1000)), org_id=self.org, cost_nanos=cost,
                publisher_org_id=self.publisher, key_id=data.draw(st.sampled_from(lease.keys)),
                model_id=data.draw(st.sampled_from(lease.models)), lease_id=lease.lease_id,
            )  # fmt: skip
            record.timestamp.FromDatetime(arrived)
            lease.held += cost
            self.under_way.append(Call(lease, record, time.at))
            if ended:
                self.record(self.under_way[-1], paid=True)

        @precondition(lambda self: self.under_way)
        @rule(data=st.data(), paid=st.booleans())
        def end_call(self, data: st.DataObject, paid: bool) -> None:
            self.record(data.draw(st.sampled_from(self.under_way)), paid=paid)

        def record(self, call: Call, *, paid: bool) -> None:
            """It is answered, if its lease lives; a failed call is free."""
            lease, r = call.lease, call.record
            self.under_way.remove(call)
            lease.held -= call.cost
            if paid and lease in self.alive():
                lease.recorded += call.cost
                self.waiting.append(call)
                counted = Spending(self.org, lease.made.date(), r.key_id, r.model_id)
                self.count.spent[counted] = self.count.spent.get(counted, 0) + call.cost

        @precondition(lambda self: self.waiting or self.posted)
        @rule(data=st.data(), again=st.booleans())
        def post(self, data: st.DataObject, again: bool) -> None:
            """Some recorded calls are posted, in any order, perhaps with some that were posted before."""
            some = data.draw(st.lists(st.sampled_from(self.waiting), unique=True)) if self.waiting else []
            old = data.draw(st.lists(st.sampled_from(self.posted), unique=True)) if self.posted and again else []
            self.deliver([*some, *old], len(some))

        def deliver(self, calls: list[Call], fresh: int) -> None:
            async def work() -> int:
                async with database.transaction() as c:
                    return (await leasing.post(c, [call.record for call in calls]))[0]

            assert run(work()) == fresh
            self.posted += [call for call in calls if call in self.waiting]
            self.waiting = [call for call in self.waiting if call not in calls]

        @precondition(lambda self: any(not x.held for x in self.alive()))
        @rule(data=st.data())
        def close(self, data: st.DataObject) -> None:
            self.hand_back(data.draw(st.sampled_from([x for x in self.alive() if not x.held])))

        def hand_back(self, lease: Lease) -> None:
            async def work() -> None:
                async with database.transaction() as c:
                    await store.lock_wallets(c, (), [lease.lease_id])
                    await store.report_leases(c, "wrk", {lease.lease_id: lease.recorded})

            run(work())
            lease.alive = False

        @precondition(lambda self: self.alive())
        @rule(data=st.data())
        def crash(self, data: st.DataObject) -> None:
            lease = data.draw(st.sampled_from(self.alive()))
            lease.alive = False
            self.under_way = [call for call in self.under_way if call.lease is not lease]

        @precondition(lambda self: self.alive())
        @rule()
        def renew(self) -> None:
            own, until = [x.lease_id for x in self.alive()], time.at + LIFETIME

            async def work() -> dict[str, datetime]:
                async with database.transaction() as c:
                    return await store.renew_leases(c, own, "wrk", until)

            kept = run(work())
            assert set(kept) == set(own)
            for lease in self.alive():
                lease.expires = until
                if kept[lease.lease_id] <= time.at:
                    lease.ends = min(lease.ends, time.at)

        # Time passes

        @rule(seconds=st.integers(1, 15))
        def wait(self, seconds: int) -> None:
            time.at += timedelta(seconds=seconds)

        @precondition(lambda self: any(x.expires + GRACE < time.at for x in self.leases))
        @rule()
        def recover(self) -> None:
            """As billing does: only when every call recorded before is posted."""
            if not self.waiting:
                self.take_back()

        def take_back(self) -> None:
            before = time.at - GRACE

            async def work() -> None:
                async with database.transaction() as c:
                    due = [x["id"] for x in await store.expired_leases(c, before) if x["org_id"] == self.org]
                    await store.lock_wallets(c, (), due)
                    await store.close_expired(c, due, before)

            run(work())

        @precondition(lambda self: any(x <= time.at for x in self.expiries))
        @rule()
        def expire(self) -> None:
            async def work() -> None:
                async with database.transaction() as c:
                    due = [r for r in await credit.expired(c, time.at) if r["org_id"] == self.org]
                    await grants.lapse(c, [self.org], [r["id"] for r in due])

            run(work())
            self.expiries = [x for x in self.expiries if x > time.at or self.is_open()]

        def is_open(self) -> bool:
            """Whether a lease may still be open."""
            return any(x.alive for x in self.leases) or bool(self.waiting)

        # What must hold

        def books(self) -> tuple[int, int, int, int]:
            """Balance, reserved, all credit that is left, and what could be set aside now."""

            async def work() -> tuple[int, int, int, int]:
                async with database.connection() as c:
                    wallet = await store.get_wallet(c, self.org)
                    left = await store.get_balance(c, Account(self.org, CREDIT))
                    usable = await credit.usable(c, self.org, time.at)
                    assert wallet is not None
                    free = wallet["balance"] + wallet["credit_limit"] + usable.amount - wallet["reserved"]
                    return wallet["balance"], wallet["reserved"], left, free

            result: tuple[int, int, int, int] = run(work())
            return result

        def spent_in(self, budget: Limit, start: date) -> int:
            return sum(
                n
                for s, n in self.count.spent.items()
                if budget.counts(s.key_id, s.model_id) and periods.start(budget.period, s.day) == start
            )

        @invariant()
        def nothing_is_overdrawn(self) -> None:
            balance, reserved, left, _ = self.books()
            assert balance >= -self.limit
            assert left >= 0
            assert 0 <= reserved <= balance + self.limit + left, "what workers hold is there"
            assert balance + self.limit + left >= sum(call.cost for call in self.waiting), "answered calls can be paid"

        @invariant()
        def no_budget_is_overshot(self) -> None:
            for budget in self.budgets.values():
                for start in {periods.start(budget.period, s.day) for s in self.count.spent}:
                    if start >= budget.first:
                        assert self.spent_in(budget, start) <= budget.most(start)

        def teardown(self) -> None:
            """Everything recorded is posted, live leases are handed back, dead ones run out: nothing stays reserved."""
            if not hasattr(self, "org"):
                return
            for call in list(self.under_way):
                self.record(call, paid=True)
            for lease in self.alive():
                self.hand_back(lease)
            self.deliver(self.waiting, len(self.waiting))
            time.at += timedelta(seconds=60)
            self.take_back()
            self.expire()
            balance, reserved, left, free = self.books()
            spent = sum(self.count.spent.values())
            assert reserved == 0
            assert free == balance + self.limit + left, "what has expired is gone"

            async def work() -> tuple[int, dict[Spending, int]]:
                async with database.connection() as c:
                    burns = await c.fetch(
                        "SELECT b.cause, b.amount, g.expires_at, g.created_at FROM credit_burns b"
                        " JOIN credit_grants g ON g.id = b.grant_id WHERE g.org_id = $1", self.org,
                    )  # fmt: skip
                    calls = {call.record.request_id: call for call in self.posted}
                    for b in burns:
                        call = calls[b["cause"]]
                        # A lease that was there before the grant goes on, until its worker hears that it ends.
                        in_time = b["expires_at"] is None or call.began < b["expires_at"]
                        assert in_time or call.lease.made <= b["created_at"], "a call spends no credit that has expired"
                    burnt = sum(b["amount"] for b in burns)
                    lapsed = await c.fetchval(
                        "SELECT coalesce(sum(lapsed), 0) FROM credit_grants WHERE org_id = $1", self.org
                    )
                    assert burnt + lapsed + left == self.count.given
                    _, table, _ = await budgets.spending(c, date.min)
                    return int(burnt), {s: n for s, n in table.items() if s.org_id == self.org}

            burnt, table = run(work())
            assert balance == self.count.paid_in - (spent - burnt)
            assert table == self.count.spent

    return Wallets


async def test_no_order_of_events_overdraws_overshoots_or_strands_money(billing_database: Database) -> None:
    loop = asyncio.get_running_loop()
    limits = settings(max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck))
    await asyncio.to_thread(run_state_machine_as_test, machine(billing_database, loop), settings=limits)
    async with billing_database.connection() as connection:
        # The top-ups here are no transactions, and the calls are recorded nowhere.
        proofs, found = ProofStore(), Found()
        await postings.prove(connection, proofs, within(T0, T1, whole=True), 0, Sums(), Effects(), found)
        await LedgerProof(proofs).prove_all(connection, found)
        await CreditProof(CreditStore()).prove_all(connection, found)
    assert found.clean, found.discrepancies


async def test_a_month_counts_what_yesterdays_leases_hold(billing_database: Database) -> None:
    store, budgets, time, org = Store(), BudgetStore(), Time(T0), ids.new("org")
    leasing = Leasing(store, CreditStore(), budgets, SubscriptionStore(), time, 0, LIFETIME)
    async with billing_database.transaction() as c:
        await store.lock_or_open_wallets(c, [org])
        await store.post(c, [ledger.top_up(ids.new("topup"), org, 1000)], T0)
        for name, period in (("day", DAILY), ("month", MONTHLY)):
            await budgets.put_budget(
                c, id=ids.new("bdg"), org_id=org, name=name, key_id="", model_id="", model="", period=period,
                limit_nanos=100, notify_only=False, thresholds=[], now=T0,
            )  # fmt: skip
        await leasing.acquire(c, org, "wrk", 60, 60)
    time.at = T0 + timedelta(seconds=30)  # tomorrow, of the same month
    async with billing_database.transaction() as c:
        held = {b.name: b.reserved for b in await budgets.states(c, [org], time.at.date())}
        assert held == {"day": 0, "month": 60}
        with pytest.raises(BudgetExceeded, match="monthly budget month"):
            await leasing.acquire(c, org, "wrk", 41, 41)
        assert (await leasing.acquire(c, org, "wrk", 40, 40)).granted == 40


async def test_fifty_workers_cannot_reserve_more_than_there_is(billing_database: Database) -> None:
    """Of the wallet 300, of credit 300, and 400 below zero; and of a budget less than all that."""
    store, credit, time, org = Store(), CreditStore(), Time(T0), ids.new("org")
    budgets = BudgetStore()
    leasing = Leasing(store, credit, budgets, SubscriptionStore(), time, 0, LIFETIME)
    grants = Grants(store, credit, time)
    async with billing_database.transaction() as c:
        await store.lock_or_open_wallets(c, [org])
        await store.post(c, [ledger.top_up(ids.new("topup"), org, 300)], T0)
        await grants.give(c, ids.new("crg"), org, 300)
        await grants.set_limit(c, org, 400)

    async def acquire(minimum: int) -> int:
        try:
            async with billing_database.transaction() as c:
                return (await leasing.acquire(c, org, ids.new("wrk"), minimum, 500, key_id="key_a")).granted
        except (InsufficientCredit, BudgetExceeded) as e:
            refusals.add(e.reason)
            return 0

    refusals: set[str] = set()

    granted = await asyncio.gather(*(acquire(30) for _ in range(50)))
    assert 970 < sum(granted) <= 1000
    assert refusals == {"INSUFFICIENT_CREDIT"}
    async with billing_database.connection() as c:
        wallet = await store.get_wallet(c, org)
    assert wallet is not None
    assert wallet["reserved"] == sum(granted)
    async with billing_database.transaction() as c:
        await store.lock_wallets(c, [org])
        await store.post(c, [ledger.top_up(ids.new("topup"), org, 10_000)], T0)
        await budgets.put_budget(
            c, id=ids.new("bdg"), org_id=org, name="month", key_id="key_a", model_id="", model="", period=MONTHLY,
            limit_nanos=sum(granted) + 700, notify_only=False, thresholds=[], now=T0,
        )  # fmt: skip
    more = await asyncio.gather(*(acquire(30) for _ in range(50)))
    assert 670 < sum(more) <= 700
    assert refusals == {"INSUFFICIENT_CREDIT", "BUDGET_EXCEEDED"}
