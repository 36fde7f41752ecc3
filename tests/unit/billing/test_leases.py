"""The rules of wallet leases, driven through every order of events that workers, deaths and late records can make."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from services.billing import leases
from services.billing.leases import Lease, Wallet


@given(st.integers(-10, 10**6), st.integers(1, 10**6), st.integers(1, 10**6))
def test_a_grant_is_to_be_had_and_of_use(free: int, minimum: int, wanted: int) -> None:
    granted = leases.grant(free, minimum, wanted)
    if free < minimum:
        assert granted == 0
    else:
        assert minimum <= granted <= free
        assert granted <= max(minimum, wanted)


@pytest.mark.parametrize(
    ("free", "minimum", "wanted", "granted"),
    [(100, 1, 1000, 25), (100, 1, 10, 10), (100, 60, 1000, 60), (100, 100, 100, 100), (99, 100, 100, 0), (3, 1, 9, 1)],
)
def test_a_lease_leaves_some_for_others(free: int, minimum: int, wanted: int, granted: int) -> None:
    assert leases.grant(free, minimum, wanted) == granted


@dataclass(eq=False)
class Held:
    """A lease as its worker knows it: what it recorded, and which of that is not posted yet."""

    lease: Lease
    spent: int = 0
    stopped: bool = False  # reported, or its worker died
    on_the_way: list[int] = field(default_factory=list)


class Leasing(RuleBasedStateMachine):
    """Any order of: top up, acquire, spend, post, close, die and recover."""

    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.wallet = Wallet()
        self.everything: list[Held] = []
        self.paid_in = self.recorded = 0

    @rule(amount=st.integers(1, 1000))
    def top_up(self, amount: int) -> None:
        self.wallet.balance += amount
        self.paid_in += amount

    @rule(target=held, minimum=st.integers(1, 300), wanted=st.integers(1, 1000))
    def acquire(self, minimum: int, wanted: int) -> object:
        granted = leases.grant(self.wallet.free, minimum, wanted)
        if not granted:
            return multiple()
        self.wallet.reserved += granted
        self.everything.append(Held(Lease(granted)))
        return self.everything[-1]

    @rule(held=held, part=st.floats(0.01, 1))
    def spend(self, held: Held, part: float) -> None:
        cost = int((held.lease.granted - held.spent) * part)
        if not held.stopped and cost:
            held.spent += cost
            self.recorded += cost
            held.on_the_way.append(cost)

    @rule(held=held)
    def post(self, held: Held) -> None:
        if held.on_the_way:
            leases.post(self.wallet, held.lease, held.on_the_way.pop(0))

    @rule(held=held)
    def close(self, held: Held) -> None:
        held.stopped = True
        leases.report(self.wallet, held.lease, held.spent)

    @rule(held=consumes(held))
    def die_and_recover(self, held: Held) -> None:
        """Recovery waits until all that was recorded is posted."""
        held.stopped = True
        while held.on_the_way:
            self.post(held)
        leases.recover(self.wallet, held.lease)

    @invariant()
    def never_overdrawn(self) -> None:
        assert self.wallet.free >= 0
        assert self.wallet.balance >= self.wallet.reserved >= 0
        assert self.recorded <= self.paid_in

    @invariant()
    def reserved_is_what_leases_hold(self) -> None:
        open_leases = [h.lease for h in self.everything if not h.lease.closed]
        assert self.wallet.reserved == sum(x.granted - x.posted for x in open_leases)
        assert all(x.posted <= x.granted for x in open_leases)

    @invariant()
    def a_closed_lease_has_nothing_on_the_way(self) -> None:
        assert not any(h.on_the_way for h in self.everything if h.lease.closed)

    def teardown(self) -> None:
        """Once every worker is done and every record posted, nothing is stranded and nothing was lost."""
        for held in self.everything:
            if not held.stopped:
                self.close(held)
            while held.on_the_way:
                self.post(held)
            assert held.lease.closed
        assert self.wallet.reserved == 0
        assert self.wallet.balance == self.paid_in - self.recorded


TestLeasing = Leasing.TestCase


def test_a_record_after_its_lease_moves_money_and_no_reservation() -> None:
    wallet, lease = Wallet(balance=100, reserved=40), Lease(40)
    leases.recover(wallet, lease)
    leases.post(wallet, lease, 30)
    assert (wallet.balance, wallet.reserved, lease.posted) == (70, 0, 0)


def test_a_second_report_or_recovery_changes_nothing() -> None:
    wallet, lease = Wallet(balance=100, reserved=40), Lease(40)
    leases.report(wallet, lease, 30)
    leases.report(wallet, lease, 0)
    assert not lease.closed
    leases.post(wallet, lease, 30)
    leases.recover(wallet, lease)
    assert (wallet.balance, wallet.reserved, lease.closed) == (70, 0, True)
