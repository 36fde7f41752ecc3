"""Oracle L: what the callers saw, what usage recorded and what the ledger posted must be the same calls, once each."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mercat.billing.v1 import billing_pb2
from mercat.usage.v1 import usage_pb2

from tests.platform import Account, Platform
from tests.robustness.traffic import Seen

MINIMUM_RATE = 50  # calls/s under which a run proves nothing
RESOLVED_IN = 60  # seconds


@dataclass(frozen=True)
class Verdict:
    """Counts of one case."""

    ok: int
    errors: int
    unknown: int
    rows: int
    postings: int
    spent: int
    drained: float  # seconds from the last call until no record waited to be stored and posted

    def __str__(self) -> str:
        return (
            f"OK {self.ok}, ERROR {self.errors}, UNKNOWN {self.unknown}; usage rows {self.rows}, postings"
            f" {self.postings}, spent {self.spent} nanos; nothing waited after {self.drained:.1f} s"
        )


def usage_rows(consumer: Account) -> Iterator[usage_pb2.UsageRecord]:
    """Every record of the consumer's calls."""
    token = ""
    while True:
        page = consumer.usage.ListUsage(usage_pb2.ListUsageRequest(page_size=1000, page_token=token))
        yield from page.records
        token = page.next_page_token
        if not token:
            return


def postings(consumer: Account) -> Counter[str]:
    """Wallet entries of the consumer, counted by the call that caused them."""
    causes: Counter[str] = Counter()
    token = ""
    while True:
        page = consumer.billing.GetStatement(billing_pb2.GetStatementRequest(page_size=1000, page_token=token))
        causes.update(e.cause for e in page.entries if e.cause.startswith("req_") and e.amount_nanos < 0)
        token = page.next_page_token
        if not token:
            return causes


def drained(platform: Platform, *, within: float = RESOLVED_IN) -> float:
    """Waits until no usage record waits to be stored and posted; answers the seconds."""
    started = time.monotonic()
    while waiting := platform.backlog():
        assert time.monotonic() < started + within, f"{waiting} messages of usage still wait after {within:.0f} s"
        time.sleep(0.1)
    return time.monotonic() - started


def valid(seen: Seen) -> None:
    """Refuses a run with too few calls a second."""
    assert seen.per_second >= MINIMUM_RATE, f"only {seen.per_second:.0f} calls/s: the run proves nothing"


def taken(platform: Platform) -> int:
    """What the sandbox took by its own records, by card or for nothing; nanos."""
    return int(
        platform.value(
            "SELECT (SELECT coalesce(sum(CASE kind WHEN 'refund' THEN -cents ELSE cents END), 0) * 10000000"
            " FROM billing.sandbox_objects WHERE status = 'succeeded' AND kind IN ('payment_intent', 'refund'))"
            " + (SELECT coalesce(sum(amount), 0) FROM billing.transactions WHERE cause LIKE 'topup:%')"
        )
    )


def judge(
    platform: Platform, consumer: Account, seen: Seen, *, credit: int, price: int, rate: bool = True,
    backlog: float = RESOLVED_IN, settle: Callable[[], None] = lambda: None,
) -> Verdict:  # fmt: skip
    """Waits until everything is settled (at most 60 s), then asserts Oracle L and answers the counts.

    `credit` is what the consumer had at first and `price` what a call costs, nanos. Records may wait for `backlog`
    seconds; `settle` is called when none does. `rate`: whether there were so many calls that those a second mean
    something; else the caller sees to it."""
    seconds = drained(platform, within=backlog)
    settle()
    deadline = time.monotonic() + RESOLVED_IN
    while True:
        rows = list(usage_rows(consumer))
        posted = postings(consumer)
        balance = consumer.balance()
        settled = len(posted) == len(rows) and credit - balance == price * len(rows) and len(rows) >= len(seen.ok)
        if settled or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    ids = Counter(r.request_id for r in rows)
    verdict = Verdict(
        len(seen.ok), sum(seen.errors.values()), seen.unknown, len(rows), len(posted), credit - balance, seconds
    )
    print(f"\noracle L: {verdict}; {seen.per_second:.0f} calls/s; errors {dict(seen.errors)}")
    assert not seen.twice
    assert all(n == 1 for n in ids.values()), "a call has two usage rows"
    assert all(n == 1 for n in posted.values()), "a call was charged twice"
    assert seen.ok <= ids.keys(), f"{len(seen.ok - ids.keys())} answered calls are not recorded"
    assert not seen.refused & ids.keys() - seen.ok, "a refused call was recorded"
    assert set(posted) == set(ids), "usage and ledger name different calls"
    assert len(ids) - len(seen.ok) <= seen.unknown
    assert credit - balance == price * len(ids)
    assert balance >= 0
    checked = platform.admin().check_ledger()
    assert checked.clean, checked.discrepancies
    assert taken(platform) == -checked.balances_nanos["sandbox_clearing"]
    if rate:
        valid(seen)
    return verdict
