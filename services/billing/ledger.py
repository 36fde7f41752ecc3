"""Double entry, pure: what a cause does to which accounts. Every posting's entries sum to zero.

Accounts hold what the platform owes: a wallet's balance is money owed to the customer, so a top-up credits it (+)
against clearing (−), and a call debits it (−) in favour of the publisher and the platform (+). Credit that was given is
owed too, in an account beside the wallet; a wallet below zero is what the customer owes."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, TypeVar

from services.common import money

CURRENCY = "USD"
WALLET, PAYABLE, FEE, CLEARING = "customer_wallet", "publisher_payable", "platform_fee", "sandbox_clearing"
CREDIT = "promotional_credit"  # given by the platform: its expense; what expires of it is breakage
EXPENSE, BREAKAGE = "promotion_expense", "breakage"
PLATFORM = ""  # the organisation of the platform's own accounts

Key = TypeVar("Key")


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
        amounts: dict[Account, int] = dict(self.entries)
        if len(amounts) != len(self.entries):
            raise ValueError(f"the posting of {self.cause} names an account twice")
        if not amounts or sum(amounts.values()) != 0:
            raise ValueError(f"the posting of {self.cause} does not sum to zero")


_FEES = Account(PLATFORM, FEE)
LOSS = Account(PLATFORM, "platform_loss")


@lru_cache(10_000)
def parties(consumer: str, publisher: str) -> tuple[Account, Account, Account, Account]:
    """The accounts of calls between the two: wallet, credit, publisher, platform."""
    return Account(consumer, WALLET), Account(consumer, CREDIT), Account(publisher, PAYABLE), _FEES


def split(cost: int, fee_ppm: int, credit: int = 0) -> tuple[int, int, int, int]:
    """What a call does to its `parties`: promotional credit pays `credit` nanos of its cost and the consumer's wallet
    the rest, the platform keeps its share, the publisher earns the rest. Together that is zero.

    Raises:
        ValueError: the cost is not positive, or the credit not a part of it.
    """
    if cost <= 0:
        raise ValueError("only a call that costs something is posted")
    if not 0 <= credit <= cost:
        raise ValueError("credit pays no more than the cost")
    fee = money.share(cost, fee_ppm)
    return credit - cost, -credit, cost - fee, fee


def charges(entries: Iterable[tuple[Account, int]], consumer: str, publisher: str, cost: int) -> bool:
    """Whether entries are those of a call of this cost between these two, at whatever fee was in force and whatever
    part of it credit paid."""
    moved: dict[Account, int] = {}
    for account, amount in entries:
        moved[account] = moved.get(account, 0) + amount
    paid, credit = moved.pop(Account(consumer, WALLET), 0), moved.pop(Account(consumer, CREDIT), 0)
    earned, fee = moved.pop(Account(publisher, PAYABLE), 0), moved.pop(Account(PLATFORM, FEE), 0)
    taken = paid <= 0 and credit <= 0 and paid + credit == -cost
    return not moved and taken and earned >= 0 and fee >= 0 and earned + fee == cost


def correction(cause: str, consumer: str, publisher: str, cost: int, fee: int, credit: int = 0) -> Posting:
    """What a call costs more (negative: less) than was posted, and the platform's part of that. `credit` nanos of what
    is given back are credit again.

    Raises:
        ValueError: that is more than is given back.
    """
    if not 0 <= credit <= max(-cost, 0):
        raise ValueError("no more becomes credit than is given back")
    parts = (
        (Account(consumer, WALLET), -cost - credit), (Account(consumer, CREDIT), credit),
        (Account(publisher, PAYABLE), cost - fee), (_FEES, fee),
    )  # fmt: skip
    return Posting(cause, "correction", tuple(part for part in parts if part[1]))


def corrects(entries: Iterable[tuple[Account, int]], consumer: str, publisher: str, cost: int) -> bool:
    """Whether entries are those of a correction between these two by so much."""
    moved = dict(entries)
    paid, credit = moved.pop(Account(consumer, WALLET), 0), moved.pop(Account(consumer, CREDIT), 0)
    earned, fee = moved.pop(Account(publisher, PAYABLE), 0), moved.pop(_FEES, 0)
    given_back = 0 <= credit <= max(-cost, 0)
    return not moved and given_back and paid + credit == -cost and earned + fee == cost


def top_up(cause: str, org_id: str, amount: int) -> Posting:
    """Money that came in through the sandbox."""
    if amount <= 0:
        raise ValueError("a top-up is positive")
    return Posting(cause, "top_up", ((Account(org_id, WALLET), amount), (Account(PLATFORM, CLEARING), -amount)))


def credit_grant(cause: str, org_id: str, amount: int) -> Posting:
    """Credit that the platform gives."""
    if amount <= 0:
        raise ValueError("a grant is positive")
    return Posting(cause, "credit_grant", ((Account(org_id, CREDIT), amount), (Account(PLATFORM, EXPENSE), -amount)))


def credit_expiry(cause: str, org_id: str, amount: int) -> Posting:
    """What was left of a grant when it expired."""
    if amount <= 0:
        raise ValueError("nothing is left to expire")
    return Posting(cause, "credit_expiry", ((Account(org_id, CREDIT), -amount), (Account(PLATFORM, BREAKAGE), amount)))


def forfeit(cause: str, org_id: str, amounts: Mapping[str, int]) -> Posting:
    """What an organisation that is closed gives up, by the kinds of its accounts: the platform's breakage."""
    parts = [(Account(org_id, kind), -amount) for kind, amount in amounts.items() if amount]
    if not parts or any(amount < 0 for amount in amounts.values()):
        raise ValueError("nothing is left to give up")
    total = -sum(amount for _, amount in parts)
    return Posting(cause, "forfeit", (*parts, (Account(PLATFORM, BREAKAGE), total)))


def digest(cause: str, kind: str, entries: Iterable[tuple[str, int]]) -> bytes:
    """SHA-256 over a posting with its account ids, in any order: an edited row no longer fits it."""
    return digest_in_order(cause, kind, sorted(entries, key=lambda e: f"{e[0]} {e[1]}"))


def digest_in_order(cause: str, kind: str, entries: Iterable[tuple[str, int]]) -> bytes:
    """The same over entries that are stored in an order of their own, as those of a charge are."""
    lines = [cause, kind, *[f"{account_id} {amount}" for account_id, amount in entries]]
    return hashlib.sha256("\n".join(lines).encode()).digest()


def totals(entries: Iterable[tuple[Key, int]]) -> dict[Key, int]:
    """What entries together do to each account, whatever it is named by."""
    sums: dict[Key, int] = {}
    for account, amount in entries:
        sums[account] = sums.get(account, 0) + amount
    return sums
