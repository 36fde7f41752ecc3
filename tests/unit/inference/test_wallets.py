"""A worker's leases, over a billing in memory and a clock that jumps: calls never spend what was not set aside for
them, and all of it comes back."""

import asyncio
import functools
import logging
from collections.abc import Callable, Coroutine
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mercat.auth.v1 import auth_pb2
from mercat.billing.v1 import billing_pb2

from services.billing import leases
from services.common.clock import SystemClock
from services.common.errors import BudgetExceeded, InsufficientCredit, MercatError, Unavailable
from services.inference.wallets import Lease, Payer, Wallets, payer_of

PAYER, OTHER = Payer("org", "key", "mdl"), Payer("org", "other", "mdl")
LIFETIME = 15.0


class Loop(asyncio.SelectorEventLoop):
    """Where time passes only while everybody waits, and then at once."""

    def __init__(self) -> None:
        self._at = 1000.0
        self.errors: list[dict[str, Any]] = []  # of callbacks, which nobody waits for
        super().__init__()
        self.set_exception_handler(lambda _, context: self.errors.append(context))

    def time(self) -> float:
        return self._at

    def _run_once(self) -> None:
        if not self._ready:
            self._at = max(self._at, min((x.when() for x in self._scheduled if not x.cancelled()), default=0.0))
        super()._run_once()


def timeless(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*args: object, **kwargs: object) -> None:
        with asyncio.Runner(loop_factory=Loop) as runner:
            runner.run(test(*args, **kwargs))
            loop = runner.get_loop()
            assert isinstance(loop, Loop)
            assert loop.errors == []

    return run


class Billing:
    """The leases of an organisation. A channel to itself, over which a call takes `takes` seconds."""

    def __init__(self, balance: int) -> None:
        self.balance = balance
        self.takes = 0.001
        self.reserved_elsewhere = 0
        self.open: dict[str, int] = {}
        self.given = 0
        self.closed: list[dict[str, int]] = []  # what was spent of leases, by call
        self.asked: list[tuple[Any, float]] = []  # and the deadline
        self.lost: set[str] = set()
        self.expire: set[str] = set()  # could not be closed, and so come back when their time is over
        self.ended: set[str] = set()
        self.lasts, self.ends = LIFETIME, 3600.0
        self.by_key = self.by_model = False
        self.refusal: MercatError | None = None
        self.workers: set[str] = set()

    @property
    def acquired(self) -> list[billing_pb2.AcquireLeaseRequest]:
        return [request for request, _ in self.asked if isinstance(request, billing_pb2.AcquireLeaseRequest)]

    def unary_unary(self, path: str, **_: object) -> Callable[..., Coroutine[Any, Any, Any]]:
        method = getattr(self, path.rpartition("/")[2], None)

        async def call(request: Any, timeout: float) -> Any:
            self.asked.append((request, timeout))
            await asyncio.sleep(self.takes)
            if self.refusal is not None:
                if isinstance(request, billing_pb2.CloseLeasesRequest):
                    self.expire.update(x.lease_id for x in request.leases)
                raise self.refusal
            assert method is not None
            return method(request)

        return call

    def AcquireLease(self, request: billing_pb2.AcquireLeaseRequest) -> billing_pb2.AcquireLeaseResponse:  # noqa: N802
        reserved = sum(self.open.values()) + self.reserved_elsewhere
        free = self.balance - reserved
        granted = leases.grant(free, request.minimum_nanos, request.wanted_nanos)
        if not granted:
            raise InsufficientCredit("no", metadata={"reserved_nanos": str(reserved)})
        self.given += 1
        lease_id = f"lse_{self.given}"
        self.open[lease_id] = granted
        answer = billing_pb2.AcquireLeaseResponse(
            lease_id=lease_id, granted_nanos=granted, by_key=self.by_key, by_model=self.by_model
        )
        now = SystemClock().machine()
        answer.expires_at.FromDatetime(now + timedelta(seconds=self.lasts))
        answer.ends_at.FromDatetime(now + timedelta(seconds=self.ends))
        return answer

    def CloseLeases(self, request: billing_pb2.CloseLeasesRequest) -> billing_pb2.CloseLeasesResponse:  # noqa: N802
        self.workers.add(request.worker_id)
        self.closed.append({x.lease_id: x.spent_nanos for x in request.leases})
        for closing in request.leases:
            assert 0 <= closing.spent_nanos <= self.open.pop(closing.lease_id)
            self.balance -= closing.spent_nanos
        return billing_pb2.CloseLeasesResponse()

    def RenewLeases(self, request: billing_pb2.RenewLeasesRequest) -> billing_pb2.RenewLeasesResponse:  # noqa: N802
        self.workers.add(request.worker_id)
        answer = billing_pb2.RenewLeasesResponse(
            lost_lease_ids=self.lost.intersection(request.lease_ids),
            ended_lease_ids=self.ended.intersection(request.lease_ids),
        )
        answer.expires_at.FromDatetime(SystemClock().machine() + timedelta(seconds=self.lasts))
        return answer


async def recalls_of(wallets: Wallets) -> Callable[[str, bytes], Coroutine[Any, Any, None]]:
    """What a message on the subject of recalls does."""
    heard: list[Callable[[Any], Coroutine[Any, Any, None]]] = []

    async def subscribe(subject: str, cb: Callable[[Any], Coroutine[Any, Any, None]]) -> SimpleNamespace:
        assert subject == "mercat.recall.*"
        heard.append(cb)
        return SimpleNamespace(unsubscribe=None)

    await wallets.listen(SimpleNamespace(client=SimpleNamespace(subscribe=subscribe)))
    return lambda org_id, data: heard[0](SimpleNamespace(subject=f"mercat.recall.{org_id}", data=data))


def now() -> float:
    return asyncio.get_running_loop().time()


@timeless
async def test_a_first_lease_is_for_sixteen_calls_and_calls_spend_it_without_asking() -> None:
    billing = Billing(10_000)
    wallets = Wallets(billing, "wrk")
    assert wallets.hold(PAYER, 10) is None
    lease = await wallets.acquire(PAYER, 10)
    asked = billing_pb2.AcquireLeaseRequest(
        org_id="org", worker_id="wrk", minimum_nanos=10, wanted_nanos=160, key_id="key", model_id="mdl"
    )
    assert billing.asked == [(asked, 5)]
    assert (lease.lease_id, lease.granted, lease.spent, lease.held, lease.room) == ("lse_1", 160, 0, 10, 150)
    assert (lease.made, lease.used) == (1000.0, pytest.approx(1000.001))
    assert lease.valid_until == pytest.approx(1000 + LIFETIME, abs=0.5)
    assert lease.ends == pytest.approx(4600, abs=0.5)
    await asyncio.sleep(1)
    assert wallets.hold(PAYER, 70) is await wallets.acquire(PAYER, 0) is lease
    assert (lease.held, lease.used, len(billing.asked)) == (80, now(), 1)
    wallets.settle(lease, 70, 60)
    assert (lease.spent, lease.held, lease.room) == (60, 10, 90)
    wallets.check(lease)
    await wallets.close()
    assert (lease.room, billing.open) == (0, {"lse_1": 160}), "a call holds money of it"
    wallets.settle(lease, 10, 10)
    await asyncio.sleep(1)
    assert (billing.closed, billing.workers, billing.open, billing.balance) == ([{"lse_1": 70}], {"wrk"}, {}, 9930)
    assert billing.asked[-1][1] == 5
    assert wallets.hold(PAYER, 1) is None


@timeless
async def test_credit_for_ten_calls_is_enough_for_ten_of_two_hundred() -> None:
    billing = Billing(100)
    wallets = Wallets(billing, "wrk")

    async def call() -> bool:
        try:
            lease = wallets.hold(PAYER, 10) or await wallets.acquire(PAYER, 10)
        except InsufficientCredit:
            return False
        await asyncio.sleep(0.01)
        wallets.settle(lease, 10, 10)
        return True

    assert sum(await asyncio.gather(*(call() for _ in range(200)))) == 10
    await wallets.close()
    assert (billing.balance, billing.open) == (0, {})


@timeless
async def test_a_refusal_stands_for_a_moment_for_calls_as_dear() -> None:
    billing = Billing(100)
    billing.takes = 0
    wallets = Wallets(billing, "wrk")
    with pytest.raises(InsufficientCredit):
        await wallets.acquire(PAYER, 101)
    for cost in (101, 102):
        with pytest.raises(InsufficientCredit):
            await wallets.acquire(PAYER, cost)
    assert len(billing.asked) == 1, "billing said so just now"
    assert (await wallets.acquire(PAYER, 100)).granted == 100
    await asyncio.sleep(0.25)
    with pytest.raises(InsufficientCredit):
        await wallets.acquire(PAYER, 101)
    assert len(billing.asked) > 2


@timeless
async def test_what_other_workers_hold_is_waited_for() -> None:
    billing = Billing(100)
    billing.reserved_elsewhere = 60
    wallets = Wallets(billing, "wrk")
    began = now()
    with pytest.raises(InsufficientCredit):
        await wallets.acquire(PAYER, 50)
    assert len(billing.asked) == 6
    assert now() - began == pytest.approx(0.54 + 0.006)
    await asyncio.sleep(0.25)
    began = now()
    waiting = asyncio.create_task(wallets.acquire(PAYER, 50))
    await asyncio.sleep(0.07)
    billing.reserved_elsewhere = 0
    assert (await waiting).granted == 50
    assert now() - began == pytest.approx(0.03 + 0.06 + 0.003)


@timeless
async def test_a_call_that_waits_takes_what_another_one_leaves() -> None:
    billing = Billing(100)
    wallets = Wallets(billing, "wrk")
    lease = await wallets.acquire(PAYER, 100)
    waiting = asyncio.create_task(wallets.acquire(PAYER, 60))
    await asyncio.sleep(0.01)
    wallets.settle(lease, 100, 40)
    assert await waiting is lease
    assert (lease.held, lease.spent) == (60, 40)


@timeless
async def test_of_a_budget_it_is_waited_for_longer() -> None:
    billing = Billing(100)
    billing.refusal = BudgetExceeded("no", metadata={"reserved_nanos": "1"})
    wallets, began = Wallets(billing, "wrk"), now()
    with pytest.raises(BudgetExceeded):
        await wallets.acquire(PAYER, 50)
    assert (len(billing.asked), now() - began) == (10, pytest.approx(3.04 + 0.010))
    billing.refusal = BudgetExceeded("no", metadata={"reserved_nanos": "0"})
    with pytest.raises(BudgetExceeded):
        await Wallets(billing, "wrk").acquire(PAYER, 50)
    billing.refusal = BudgetExceeded("no")
    with pytest.raises(BudgetExceeded):
        await Wallets(billing, "wrk").acquire(PAYER, 50)
    assert len(billing.asked) == 12


@timeless
async def test_own_idle_slices_are_given_back_for_a_call_that_needs_them() -> None:
    billing = Billing(100)
    billing.by_key = True
    wallets = Wallets(billing, "wrk")
    mine, other = PAYER, OTHER
    lease = await wallets.acquire(other, 5)
    wallets.settle(lease, 5, 5)
    assert (await wallets.acquire(mine, 80)).granted == 80
    assert billing.closed == [{"lse_1": 5}]
    busy = await wallets.acquire(other, 10)
    assert busy.granted == 10
    with pytest.raises(InsufficientCredit):
        await wallets.acquire(mine, 10)
    assert not busy.retired, "a call holds money of it"


@timeless
async def test_the_next_lease_is_taken_while_there_is_room_in_this_one() -> None:
    billing = Billing(10**6)
    wallets = Wallets(billing, "wrk")
    lease = await wallets.acquire(PAYER, 10)
    assert wallets.hold(PAYER, 70) is lease
    await asyncio.sleep(0.1)
    assert len(billing.asked) == 1, "half of it is left"
    assert wallets.hold(PAYER, 1) is wallets.hold(PAYER, 1) is lease
    await asyncio.sleep(0.1)
    # At the rate of the first one the next lasts eight seconds: 82 in 0.1 s.
    assert [x.wanted_nanos for x in billing.acquired] == [160, pytest.approx(82 / 0.101 * 8, rel=0.01)]
    assert wallets.hold(PAYER, 78) is lease
    await asyncio.sleep(0.1)
    assert len(billing.asked) == 2, "there is room in the next one"
    following = wallets.hold(PAYER, 10)
    assert following is not None
    assert following.lease_id == "lse_2"


@timeless
async def test_the_next_lease_is_taken_when_half_of_the_newest_is_left_of_all() -> None:
    for held, asked in ((567, 2), (568, 3)):
        billing = Billing(10**6)
        wallets = Wallets(billing, "wrk")
        lease = await wallets.acquire(PAYER, 10)
        await asyncio.sleep(1)
        assert wallets.hold(PAYER, 71) is lease
        await asyncio.sleep(0.01)
        assert billing.open == {"lse_1": 160, "lse_2": 1136}
        following = wallets.hold(PAYER, held)
        assert following is not None
        assert wallets.hold(PAYER, 79) is lease
        assert (lease.room, following.room) == (0, 1136 - held)
        await asyncio.sleep(0.01)
        assert len(billing.asked) == asked


@timeless
async def test_nothing_is_held_of_a_lease_at_its_end() -> None:
    wallets = Wallets(Billing(10_000), "wrk")
    lease = await wallets.acquire(PAYER, 10)
    for valid, ends, holds in ((4.0, 1.0, True), (3.0, 1.0, False), (4.0, 0.0, False)):
        lease.valid_until, lease.ends = now() + valid, now() + ends
        assert (wallets.hold(PAYER, 1) is lease) == holds
    lease.valid_until = now() + 0.001
    wallets.check(lease)
    lease.valid_until = now()
    with pytest.raises(Unavailable):
        wallets.check(lease)


@timeless
async def test_stopping_takes_no_longer_than_five_seconds_each_for_what_is_under_way() -> None:
    billing = Billing(10_000)
    wallets = Wallets(billing, "wrk")
    lease = await wallets.acquire(PAYER, 10)
    billing.takes = 100.0
    assert wallets.hold(PAYER, 80) is lease
    wallets.settle(lease, 90, 0)
    began = now()
    await wallets.close()
    assert now() - began == 10.0


@timeless
async def test_a_lease_is_for_eight_seconds_at_the_rate_of_the_one_before() -> None:
    for cost, wanted in ((1, 100_000), (10**6, 12_800 * 10**6), (10**9, 16 * 10**9)):
        billing = Billing(10**12)
        wallets = Wallets(billing, "wrk")
        lease = await wallets.acquire(PAYER, 10**6)
        assert billing.acquired[-1].wanted_nanos == 16 * 10**6
        wallets.settle(lease, 10**6, 10**6)
        billing.refusal = Unavailable("away")
        assert wallets.hold(PAYER, 15 * 10**6) is lease
        await asyncio.sleep(0.005)
        billing.refusal = None
        await wallets.acquire(PAYER, cost)  # 16 million in less than a hundredth of a second
        assert billing.acquired[-1].wanted_nanos == wanted


@timeless
async def test_billing_that_is_away_is_asked_again_a_second_later() -> None:
    billing = Billing(10**6)
    billing.takes = 0
    wallets = Wallets(billing, "wrk")
    lease = await wallets.acquire(PAYER, 10)
    billing.refusal = Unavailable("away")
    for at, asked in ((0, 2), (0.5, 2), (1.0, 2), (1.1, 3)):
        await asyncio.sleep(1000.0 + at - now())
        assert wallets.hold(PAYER, 1 if at else 80) is lease
        await asyncio.sleep(0.001)
        assert len(billing.asked) == asked
    with pytest.raises(Unavailable, match="away"):
        await wallets.acquire(PAYER, 1000)


@timeless
async def test_leases_are_renewed_and_idle_ones_given_back() -> None:
    billing = Billing(10_000)
    wallets = Wallets(billing, "wrk")
    keeping = asyncio.create_task(wallets.keep())
    await asyncio.sleep(6)
    assert billing.asked == [], "there is nothing to renew"
    lease = await wallets.acquire(PAYER, 10)
    billing.asked.clear()
    await asyncio.sleep(30)
    renewal = billing_pb2.RenewLeasesRequest(worker_id="wrk", lease_ids=["lse_1"])
    assert billing.asked == [(renewal, 4)] * 6, "a call holds money of it"
    assert lease.valid_until == pytest.approx(now() - now() % 5 + LIFETIME, abs=0.5)
    assert wallets.hold(PAYER, 1) is lease
    wallets.settle(lease, 11, 5)
    await asyncio.sleep(9)
    assert billing.open == {"lse_1": 160}
    await asyncio.sleep(6)
    assert (billing.open, billing.closed) == ({}, [{"lse_1": 5}])
    assert not wallets._organizations["org"].accounts, "nobody calls from them"
    keeping.cancel()


@timeless
async def test_a_lease_is_idle_after_ten_seconds_and_ends_on_time() -> None:
    billing = Billing(10_000)
    billing.takes = 0  # so that leases are looked at every five seconds to the bit
    wallets = Wallets(billing, "wrk")
    keeping = asyncio.create_task(wallets.keep())
    idle = await wallets.acquire(PAYER, 10)
    wallets.settle(idle, 10, 0)
    await asyncio.sleep(12)
    assert (idle.used, idle.retired) == (1000.0, False), "when it was looked at, that was ten seconds before"
    await asyncio.sleep(4)
    assert not billing.open
    ending = await wallets.acquire(PAYER, 10)
    ending.ends = 1020.0
    await asyncio.sleep(5)
    assert ending.retired
    keeping.cancel()


@timeless
async def test_a_lease_that_was_taken_ahead_for_nothing_is_given_back() -> None:
    billing = Billing(10_000)
    wallets = Wallets(billing, "wrk")
    keeping = asyncio.create_task(wallets.keep())
    lease = await wallets.acquire(PAYER, 10)
    assert wallets.hold(PAYER, 75) is lease
    await asyncio.sleep(1)
    assert len(billing.open) == 2
    assert wallets.hold(PAYER, 75) is lease, "what is left of it is enough for a call more"
    wallets.settle(lease, 160, 1)
    await asyncio.sleep(16)
    assert (billing.open, billing.balance) == ({}, 9999)
    keeping.cancel()


@timeless
async def test_who_waits_for_a_first_lease_is_not_forgotten() -> None:
    billing = Billing(10_000)
    wallets = Wallets(billing, "wrk")
    keeping = asyncio.create_task(wallets.keep())
    await asyncio.sleep(4)
    billing.takes = 3.0
    first = asyncio.create_task(wallets.acquire(PAYER, 10))
    await asyncio.sleep(2)
    assert await wallets.acquire(PAYER, 10) is await first
    assert len(billing.acquired) == 1
    keeping.cancel()


@timeless
async def test_a_lease_that_ended_is_spent_only_by_calls_under_way() -> None:
    billing = Billing(10_000)
    billing.ends = 7.0
    wallets = Wallets(billing, "wrk")
    keeping = asyncio.create_task(wallets.keep())
    lease = await wallets.acquire(PAYER, 10)
    await asyncio.sleep(6)
    assert wallets.hold(PAYER, 1) is lease
    await asyncio.sleep(2)
    assert wallets.hold(PAYER, 1) is None
    assert not lease.retired
    await asyncio.sleep(3)
    assert lease.retired
    wallets.check(lease)
    wallets.settle(lease, 11, 11)
    await asyncio.sleep(1)
    assert billing.closed == [{"lse_1": 11}]

    billing.ends = 3600.0
    moved = await wallets.acquire(PAYER, 10)
    billing.ended = {moved.lease_id}  # the clock was moved: billing knows
    await asyncio.sleep(6)
    assert (moved.retired, wallets.hold(PAYER, 1)) == (True, None)
    wallets.settle(moved, 10, 10)
    await asyncio.sleep(1)
    assert (billing.open, billing.closed[1:]) == ({}, [{moved.lease_id: 10}])
    keeping.cancel()


@timeless
async def test_a_lost_lease_is_nobodys() -> None:
    billing = Billing(10_000)
    billing.by_key = True
    wallets = Wallets(billing, "wrk")
    keeping = asyncio.create_task(wallets.keep())
    idle, busy = await wallets.acquire(PAYER, 10), await wallets.acquire(OTHER, 10)
    wallets.settle(idle, 10, 0)
    billing.lost = {idle.lease_id, busy.lease_id}
    await asyncio.sleep(6)
    assert (idle.retired, busy.retired) == (True, True)
    for lease in (idle, busy):
        with pytest.raises(Unavailable, match=r"^the wallet lease ran out during the call$") as refused:
            wallets.check(lease)
        assert (refused.value.reason, refused.value.retry_after) == ("LEASE_LOST", 1)
    assert wallets.hold(PAYER, 1) is None
    billing.asked.clear()
    await asyncio.sleep(5)
    assert [request.lease_ids for request, _ in billing.asked] == [[busy.lease_id]], "a call holds money of it"
    wallets.settle(busy, 10, 10)
    keeping.cancel()


@timeless
async def test_what_cannot_be_renewed_or_closed_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    billing = Billing(10_000)
    wallets = Wallets(billing, "wrk")
    keeping = asyncio.create_task(wallets.keep())
    lease = await wallets.acquire(PAYER, 10)
    billing.refusal = Unavailable("away")
    await asyncio.sleep(11)
    valid_until = lease.valid_until
    assert wallets.hold(PAYER, 1) is lease
    await asyncio.sleep(valid_until - 3 - now())
    assert wallets.hold(PAYER, 1) is None, "nobody knows for how long it is this worker's"
    wallets.check(lease)
    await asyncio.sleep(3)
    with pytest.raises(Unavailable):
        wallets.check(lease)
    keeping.cancel()
    wallets.settle(lease, 11, 11)
    await wallets.close()
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert warnings == ["leases could not be renewed: away"] * 2 + ["1 leases could not be closed: away"]


@timeless
async def test_leases_are_apart_where_budgets_are() -> None:
    billing = Billing(10**6)
    wallets = Wallets(billing, "wrk")
    shared = await wallets.acquire(PAYER, 10)
    assert wallets.hold(Payer("org", "other", "mdl_2"), 10) is shared
    assert wallets.hold(Payer("org_2", "key", "mdl"), 10) is None
    billing.by_model = True
    own = await wallets.acquire(Payer("org", "key", "mdl_2"), 200)
    assert shared.retired, "billing says that models have budgets"
    assert wallets.hold(Payer("org", "other", "mdl_2"), 10) is own
    assert wallets.hold(PAYER, 10) is None
    billing.by_model, billing.by_key = False, True
    own = await wallets.acquire(PAYER, 10)
    assert wallets.hold(Payer("org", "key", "mdl_2"), 10) is own
    assert wallets.hold(OTHER, 10) is None


@timeless
async def test_calls_that_wait_for_one_lease_have_their_own_where_budgets_are() -> None:
    billing = Billing(10**6)
    billing.by_key = True
    wallets = Wallets(billing, "wrk")
    mine, others = await asyncio.gather(wallets.acquire(PAYER, 10), wallets.acquire(OTHER, 10))
    assert (mine.held, others.held) == (10, 10)
    assert wallets.hold(PAYER, 1) is mine
    assert wallets.hold(OTHER, 1) is others


@timeless
async def test_recalls_bring_idle_slices_back_and_all_of_them_where_that_is_meant() -> None:
    billing = Billing(10**6)
    billing.by_key = True
    wallets = Wallets(billing, "wrk")
    recall = await recalls_of(wallets)
    idle, busy = await wallets.acquire(PAYER, 10), await wallets.acquire(OTHER, 10)
    wallets.settle(idle, 10, 3)
    await recall("org_2", b"all")
    assert not idle.retired
    await recall("org", b"")
    assert (idle.retired, busy.retired) == (True, False)
    await recall("org", b"all")
    assert busy.retired
    wallets.settle(busy, 10, 10)
    await asyncio.sleep(0.1)
    assert billing.closed == [{"lse_1": 3}, {"lse_2": 10}]


@timeless
async def test_a_lease_that_is_always_recalled_is_not_waited_for_for_ever() -> None:
    billing = Billing(10**6)
    billing.lasts = 3.0  # none is ever spent from
    wallets = Wallets(billing, "wrk")
    with pytest.raises(Unavailable, match=r"^the wallet lease was recalled at once$") as refused:
        await wallets.acquire(PAYER, 10)
    assert (refused.value.reason, refused.value.retry_after, len(billing.asked)) == ("LEASE_LOST", 0.2, 7)


@timeless
async def test_who_pays_is_the_key_or_else_the_user() -> None:
    session = auth_pb2.Principal(org_id="org", user_id="usr")
    assert payer_of(session, "mdl") == Payer("org", "usr", "mdl")
    session.key_id = "key"
    assert payer_of(session, "mdl") == PAYER


steps = st.one_of(
    st.tuples(st.just("call"), st.integers(1, 60), st.integers(0, 60), st.sampled_from(["key", "other"])),
    st.tuples(st.just("end"), st.integers(0, 5)),
    st.tuples(st.just("wait"), st.sampled_from([0.001, 0.1, 4.0, 11.0])),
    st.tuples(st.just("recall"), st.booleans()),
    st.tuples(st.just("budgets"), st.booleans(), st.booleans()),
    st.tuples(st.just("lose"), st.integers(0, 5)),
    st.tuples(st.just("away"), st.booleans()),
)


@given(st.integers(0, 500), st.lists(steps, max_size=30))
@timeless
async def test_whatever_happens_no_more_is_spent_than_was_set_aside(balance: int, happens: list[tuple]) -> None:
    billing = Billing(balance)
    wallets = Wallets(billing, "wrk")
    keeping = asyncio.create_task(wallets.keep())
    recall = await recalls_of(wallets)
    calls: list[tuple[Lease, int, int]] = []
    seen: set[Lease] = set()
    for what, *how in happens:
        match what:
            case "call":
                cost, used, key = how
                try:
                    lease = wallets.hold(Payer("org", key, "mdl"), cost) or await wallets.acquire(
                        Payer("org", key, "mdl"), cost
                    )
                except (InsufficientCredit, Unavailable):
                    continue
                calls.append((lease, cost, min(cost, used)))
                seen.add(lease)
            case "end" if calls:
                wallets.settle(*calls.pop(how[0] % len(calls)))
            case "wait":
                await asyncio.sleep(how[0])
            case "recall":
                await recall("org", b"all" if how[0] else b"")
            case "budgets":
                billing.by_key, billing.by_model = how
            case "lose" if billing.open:
                billing.lost.add(sorted(billing.open)[how[0] % len(billing.open)])
            case "away":
                billing.refusal = Unavailable("away") if how[0] else None
        for lease in seen:
            assert 0 <= lease.held <= lease.granted - lease.spent
        assert sum(billing.open.values()) <= billing.balance
    billing.refusal = None
    for call in calls:
        wallets.settle(*call)
    keeping.cancel()
    await wallets.close()
    assert all(lease.retired and not lease.held for lease in seen)
    assert billing.open.keys() <= billing.lost | billing.expire
    assert billing.balance >= 0
