"""Wallet leases as a state machine over the real tables: whatever happens in whatever order, a wallet is never
overdrawn, what is reserved is what the leases hold, and in the end nothing is stranded."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

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

from services.billing import leases, ledger
from services.billing.ledger import PAYABLE, Account
from services.billing.store import Store
from services.common import ids
from services.common.db import Database, migrate
from services.embedded.postgres import Postgres

T0 = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
async def billing_database(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Database]:
    async with Postgres(tmp_path_factory.mktemp("leases") / "postgres") as postgres:
        await migrate(postgres.url, "billing", "services.billing")
        database = await Database.connect(postgres.url, "billing")
        yield database
        await database.close()


class Lease:
    """What a worker knows of a lease."""

    def __init__(self, lease_id: str, granted: int, expires: datetime) -> None:
        self.lease_id, self.granted, self.expires = lease_id, granted, expires
        self.recorded = 0  # spent by calls that were answered
        self.alive = True  # its worker neither died nor closed it


def machine(database: Database, loop: asyncio.AbstractEventLoop) -> type[RuleBasedStateMachine]:
    store = Store()

    def run(work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(30)

    class Wallets(RuleBasedStateMachine):
        @initialize()
        def open(self) -> None:
            self.org, self.publisher = ids.new("org"), ids.new("org")
            self.now = T0
            self.paid_in = self.charged = 0
            self.leases: list[Lease] = []
            self.waiting: list[tuple[Lease, str, int]] = []  # recorded, not posted
            self.posted: list[tuple[Lease, str, int]] = []
            self.top_up(0)

        @rule(amount=st.integers(1, 1000))
        def top_up(self, amount: int) -> None:
            async def work() -> None:
                async with database.transaction() as c:
                    await store.ensure_wallet(c, self.org)
                    await store.lock_wallets(c, [self.org])
                    if amount:
                        await store.post(c, [ledger.top_up(ids.new("topup"), self.org, amount)], self.now)

            run(work())
            self.paid_in += amount

        @rule(minimum=st.integers(1, 200), wanted=st.integers(1, 2000))
        def acquire(self, minimum: int, wanted: int) -> None:
            expires = self.now + timedelta(seconds=20)

            async def work() -> tuple[str, int]:
                async with database.transaction() as c:
                    await store.lock_wallets(c, [self.org])
                    wallet = await store.get_wallet(c, self.org)
                    assert wallet is not None
                    granted = leases.grant(wallet["balance"] - wallet["reserved"], minimum, wanted)
                    made = await store.add_lease(c, self.org, "wrk", granted, expires, self.now) if granted else ""
                    return made, granted

            lease_id, granted = run(work())
            if granted:
                self.leases.append(Lease(lease_id, granted, expires))

        def alive(self) -> list[Lease]:
            return [x for x in self.leases if x.alive and x.expires > self.now]

        @precondition(lambda self: self.alive())
        @rule(data=st.data())
        def spend(self, data: st.DataObject) -> None:
            lease = data.draw(st.sampled_from(self.alive()))
            if lease.recorded < lease.granted:
                cost = data.draw(st.integers(1, lease.granted - lease.recorded))
                lease.recorded += cost
                self.waiting.append((lease, ids.new("req"), cost))

        @precondition(lambda self: self.waiting or self.posted)
        @rule(data=st.data(), again=st.booleans())
        def post(self, data: st.DataObject, again: bool) -> None:
            """Some recorded calls are posted, in any order, perhaps with some that were posted before."""
            fresh = data.draw(st.lists(st.sampled_from(self.waiting), unique=True)) if self.waiting else []
            old = data.draw(st.lists(st.sampled_from(self.posted), max_size=3)) if again and self.posted else []
            self.deliver([*fresh, *dict.fromkeys(old)])
            self.waiting = [x for x in self.waiting if x not in fresh]
            self.posted += fresh
            self.charged += sum(cost for _, _, cost in fresh)

        def deliver(self, calls: list[tuple[Lease, str, int]]) -> None:
            if not calls:
                return
            costs = {cause: (lease, cost) for lease, cause, cost in calls}
            postings = [ledger.charge(cause, self.org, self.publisher, cost, 200_000) for _, cause, cost in calls]

            async def work() -> None:
                async with database.transaction() as c:
                    await store.lock_wallets(c, [self.org])
                    await store.lock_owners(c, [lease.lease_id for lease, _ in costs.values()])
                    spent: dict[str, int] = {}
                    for cause in await store.post(c, postings, self.now):
                        lease, cost = costs[cause]
                        spent[lease.lease_id] = spent.get(lease.lease_id, 0) + cost
                    if spent:
                        await store.post_to_leases(c, spent)

            run(work())

        @precondition(lambda self: self.alive())
        @rule(data=st.data())
        def close(self, data: st.DataObject) -> None:
            self.hand_back(data.draw(st.sampled_from(self.alive())))

        def hand_back(self, lease: Lease) -> None:
            async def work() -> None:
                async with database.transaction() as c:
                    await store.lock_owners(c, [lease.lease_id])
                    await store.report_leases(c, "wrk", {lease.lease_id: lease.recorded})

            run(work())
            lease.alive = False

        @precondition(lambda self: self.alive())
        @rule(data=st.data())
        def crash(self, data: st.DataObject) -> None:
            data.draw(st.sampled_from(self.alive())).alive = False

        @precondition(lambda self: self.alive())
        @rule()
        def renew(self) -> None:
            own, until = [x.lease_id for x in self.alive()], self.now + timedelta(seconds=20)

            async def work() -> set[str]:
                async with database.transaction() as c:
                    return await store.renew_leases(c, own, "wrk", until)

            kept = run(work())
            assert kept == set(own)
            for lease in self.alive():
                lease.expires = until

        @rule(seconds=st.integers(1, 15))
        def wait(self, seconds: int) -> None:
            self.now += timedelta(seconds=seconds)

        @rule()
        def recover(self) -> None:
            """As billing does: only when every call recorded before is posted."""
            if not self.waiting:
                self.take_back()

        def take_back(self) -> None:
            before = self.now - timedelta(seconds=10)

            async def work() -> None:
                async with database.transaction() as c:
                    due = [x["id"] for x in await store.expired_leases(c, before) if x["org_id"] == self.org]
                    await store.lock_owners(c, due)
                    await store.close_expired(c, due, before)

            run(work())

        def books(self) -> tuple[int, int, int]:
            async def work() -> tuple[int, int, int]:
                async with database.connection() as c:
                    wallet = await store.get_wallet(c, self.org)
                    earned = await store.get_balance(c, Account(self.publisher, PAYABLE))
                    assert wallet is not None
                    return wallet["balance"], wallet["reserved"], earned

            result: tuple[int, int, int] = run(work())
            return result

        @invariant()
        def nothing_is_overdrawn(self) -> None:
            balance, reserved, _ = self.books()
            assert balance == self.paid_in - self.charged
            assert balance >= reserved >= 0
            assert balance - sum(cost for _, _, cost in self.waiting) >= 0

        def teardown(self) -> None:
            """Everything recorded is posted, live leases are handed back, dead ones run out: nothing stays reserved."""
            if not hasattr(self, "org"):
                return
            for lease in self.alive():
                self.hand_back(lease)
            self.deliver(self.waiting)
            self.charged += sum(cost for _, _, cost in self.waiting)
            self.now += timedelta(seconds=60)
            self.take_back()
            balance, reserved, _ = self.books()
            assert (balance, reserved) == (self.paid_in - self.charged, 0)

    return Wallets


async def test_no_order_of_events_overdraws_or_strands_money(billing_database: Database) -> None:
    loop = asyncio.get_running_loop()
    limits = settings(max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck))
    await asyncio.to_thread(run_state_machine_as_test, machine(billing_database, loop), settings=limits)
    store = Store()
    async with billing_database.connection() as connection:
        found = await store.findings(connection)
    assert not any(found[name] for name in ("unbalanced_postings", "wrong_balances", "wrong_reservations"))


async def test_fifty_workers_cannot_reserve_more_than_there_is(billing_database: Database) -> None:
    store, org, now = Store(), ids.new("org"), datetime.now(UTC)
    async with billing_database.transaction() as c:
        await store.ensure_wallet(c, org)
        await store.post(c, [ledger.top_up(ids.new("topup"), org, 1000)], now)

    async def acquire() -> int:
        async with billing_database.transaction() as c:
            await store.lock_wallets(c, [org])
            wallet = await store.get_wallet(c, org)
            assert wallet is not None
            granted = leases.grant(wallet["balance"] - wallet["reserved"], 30, 500)
            if granted:
                await store.add_lease(c, org, ids.new("wrk"), granted, now + timedelta(seconds=20), now)
            return granted

    granted = await asyncio.gather(*(acquire() for _ in range(50)))
    assert 970 < sum(granted) <= 1000
    async with billing_database.connection() as c:
        wallet = await store.get_wallet(c, org)
        assert wallet is not None
        assert wallet["reserved"] == sum(granted)
