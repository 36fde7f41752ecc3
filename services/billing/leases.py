"""Wallet leases, pure: the rules that the store's statements follow, in a form that can be tested by itself.

A wallet has a balance (ledger) and a reserved part (leases). What can be spent anew is `balance − reserved`. A lease
reserves `granted − posted` until it is closed."""

from dataclasses import dataclass

SLICES = 4  # a lease takes at most this part of what is free, so that several workers can serve one account


@dataclass
class Wallet:
    """Nanos."""

    balance: int = 0
    reserved: int = 0

    @property
    def free(self) -> int:
        return self.balance - self.reserved


@dataclass
class Lease:
    """Nanos. `reported` is what its worker says it spent in all, once it is done with it."""

    granted: int
    posted: int = 0
    reported: int | None = None
    closed: bool = False


def grant(free: int, minimum: int, wanted: int) -> int:
    """How much of what is free a lease gets; 0 when the minimum is not to be had."""
    if free < minimum:
        return 0
    return min(free, max(minimum, min(wanted, free // SLICES)))


def post(wallet: Wallet, lease: Lease, cost: int) -> None:
    """A call of the lease was posted: the money left the wallet, and is no longer reserved."""
    wallet.balance -= cost
    if not lease.closed:
        lease.posted += cost
        wallet.reserved -= cost
        settle(wallet, lease)


def report(wallet: Wallet, lease: Lease, spent: int) -> None:
    """The worker is done with the lease."""
    if not lease.closed and lease.reported is None:
        lease.reported = spent
        settle(wallet, lease)


def settle(wallet: Wallet, lease: Lease) -> None:
    """Closes a lease whose worker is done and whose calls are all posted; the rest is free again."""
    if not lease.closed and lease.reported is not None and lease.posted >= lease.reported:
        recover(wallet, lease)


def recover(wallet: Wallet, lease: Lease) -> None:
    """Takes back what is left of a lease."""
    if not lease.closed:
        lease.closed = True
        wallet.reserved -= lease.granted - lease.posted
