"""Double entry, pure: what a cause does to which accounts. Every posting's entries sum to zero.

Accounts hold what the platform owes: a wallet's balance is money owed to the customer, so a top-up credits it (+)
against clearing (−), and a call debits it (−) in favour of the publisher and the platform (+)."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from services.common import money

CURRENCY = "USD"
WALLET, PAYABLE, FEE, CLEARING = "customer_wallet", "publisher_payable", "platform_fee", "sandbox_clearing"
PLATFORM = ""  # the organisation of the platform's own accounts


class Account(NamedTuple):
    """An account by what it is: whose, and what kind. A tuple, since each call's entries are looked up by it."""

    org_id: str
    kind: str


@dataclass(slots=True)
class Posting:
    """Entries that belong together; `cause` makes the posting unique. Amounts in nanos."""

    cause: str
    kind: str
    entries: tuple[tuple[Account, int], ...]

    def __post_init__(self) -> None:
        accounts, amounts = zip(*self.entries, strict=True) if self.entries else ((), (1,))
        if sum(amounts):
            raise ValueError(f"the posting of {self.cause} does not sum to zero")
        if len(set(accounts)) != len(accounts):
            raise ValueError(f"the posting of {self.cause} names an account twice")


_FEES = Account(PLATFORM, FEE)


def charge(cause: str, consumer: str, publisher: str, cost: int, fee_ppm: int) -> Posting:
    """A call: the consumer's wallet pays its cost, the platform keeps its share, the publisher earns the rest.

    Raises:
        ValueError: the cost is not positive.
    """
    if cost <= 0:
        raise ValueError("only a call that costs something is posted")
    fee = money.share(cost, fee_ppm)
    parts = ((Account(consumer, WALLET), -cost), (Account(publisher, PAYABLE), cost - fee), (_FEES, fee))
    return Posting(cause, "charge", parts if 0 < fee < cost else tuple(part for part in parts if part[1]))


def charges(entries: Iterable[tuple[Account, int]], consumer: str, publisher: str, cost: int) -> bool:
    """Whether entries are those of a call of this cost between these two, at whatever fee was in force."""
    moved: dict[Account, int] = {}
    for account, amount in entries:
        moved[account] = moved.get(account, 0) + amount
    paid = moved.pop(Account(consumer, WALLET), 0)
    earned, fee = moved.pop(Account(publisher, PAYABLE), 0), moved.pop(Account(PLATFORM, FEE), 0)
    return not moved and paid == -cost and earned >= 0 and fee >= 0 and earned + fee == cost


def correction(cause: str, consumer: str, publisher: str, cost: int, fee: int) -> Posting:
    """What a call costs more (negative: less) than was posted, and the platform's part of that."""
    parts = ((Account(consumer, WALLET), -cost), (Account(publisher, PAYABLE), cost - fee), (_FEES, fee))
    return Posting(cause, "correction", tuple(part for part in parts if part[1]))


def corrects(entries: Iterable[tuple[Account, int]], consumer: str, publisher: str, cost: int) -> bool:
    """Whether entries are those of a correction between these two by so much."""
    moved = dict(entries)
    paid = moved.pop(Account(consumer, WALLET), 0)
    earned, fee = moved.pop(Account(publisher, PAYABLE), 0), moved.pop(_FEES, 0)
    return not moved and paid == -cost and earned + fee == cost


def top_up(cause: str, org_id: str, amount: int) -> Posting:
    """Money that came in through the sandbox."""
    if amount <= 0:
        raise ValueError("a top-up is positive")
    return Posting(cause, "top_up", ((Account(org_id, WALLET), amount), (Account(PLATFORM, CLEARING), -amount)))


def digest(cause: str, kind: str, entries: Iterable[tuple[str, int]]) -> bytes:
    """SHA-256 over a posting with its account ids, in any order: an edited row no longer fits it."""
    lines = [cause, kind, *sorted(f"{account_id} {amount}" for account_id, amount in entries)]
    return hashlib.sha256("\n".join(lines).encode()).digest()


def totals(postings: Iterable[Posting]) -> dict[Account, int]:
    """What the postings together do to each account."""
    sums: dict[Account, int] = {}
    for posting in postings:
        for account, amount in posting.entries:
            sums[account] = sums.get(account, 0) + amount
    return sums
