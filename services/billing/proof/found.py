"""What a proof counts and finds, and the time that it is about. Pure."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from mercat.billing.v1 import billing_pb2, proof_pb2

from services.billing.ledger import Account
from services.common import ids
from services.common.months import next_month

USAGE, LEDGER, INVOICES, PAYMENTS, PAYOUTS = SECTIONS = ("usage", "ledger", "invoices", "payments", "payouts")
MOST = 100  # discrepancies named
OF_CALLS = ("req_", "cor_")  # causes that usage has a record of
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST = "~"  # sorts after every digit

Discrepancy = billing_pb2.Discrepancy


class Range(NamedTuple):
    """A time, and the digits of ids between which everything lies that was begun in it."""

    start: datetime
    end: datetime
    after: str
    until: str

    def ids(self, prefix: str) -> dict[str, str]:
        """`after` and `until` as ids with a prefix."""
        return {"after": f"{prefix}_{self.after}", "until": f"{prefix}_{self.until}"}

    def holds(self, identifier: str) -> bool:
        return self.after <= identifier.rpartition("_")[2] < self.until


def digits(moment: datetime) -> str:
    """Those of ids that are made at an instant, to the millisecond, or later."""
    return ids.first("", (moment - _EPOCH) // timedelta(milliseconds=1))[1:]


def within(start: datetime, end: datetime, *, whole: bool = False) -> Range:
    """A time; `whole`: also what was made, by its id, before and after it."""
    return Range(start, end, "" if whole else digits(start), _LAST if whole else digits(end))


def beyond(first_digits: str) -> str:
    """What sorts after every id that begins so."""
    return first_digits + _LAST


def months(start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime]]:
    """A time in parts of which none goes over the end of a month."""
    while start < end:
        until = min(end, next_month(start))
        yield start, until
        start = until


@dataclass
class Found:
    """What was counted, by section and name, and what disagrees: how many rows by section, and the first of them."""

    discrepancies: list[Discrepancy] = field(default_factory=list)
    differences: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SECTIONS, 0))
    unproven: list[str] = field(default_factory=list)  # what could not be asked
    _counts: dict[tuple[str, str], list[int]] = field(default_factory=dict)

    def add(self, section: str, code: str, subject: str, message: str, rows: int = 1) -> None:
        """A row that disagrees, or so many alike of which this is one."""
        self.differences[section] += rows
        if len(self.discrepancies) < MOST:
            self.discrepancies.append(Discrepancy(code=code, subject=subject, message=message, section=section))

    def count(self, section: str, name: str, rows: int, nanos: int = 0) -> None:
        counted = self._counts.setdefault((section, name), [0, 0])
        counted[0] += rows
        counted[1] += nanos

    def counted(self, section: str, name: str) -> int:
        """How many rows."""
        return self._counts.get((section, name), [0])[0]

    @property
    def full(self) -> bool:
        """Whether nothing more is named."""
        return len(self.discrepancies) >= MOST

    @property
    def clean(self) -> bool:
        return not any(self.differences.values()) and not self.unproven

    def sections(self) -> list[proof_pb2.ProofSection]:
        return [
            proof_pb2.ProofSection(
                name=section, differences=self.differences[section],
                counts=[
                    proof_pb2.ProofCount(name=name, rows=rows, nanos=nanos)
                    for (of, name), (rows, nanos) in self._counts.items() if of == section
                ],
            )
            for section in SECTIONS
        ]  # fmt: skip


@dataclass
class Effects:
    """What every posting but those of calls did to which account, by its cause."""

    moved: dict[str, dict[Account, int]] = field(default_factory=dict)
    posting_ids: dict[str, str] = field(default_factory=dict)
    explained: set[str] = field(default_factory=set)

    def explain(self, *causes: str) -> None:
        """These are of something that happened."""
        self.explained.update(causes)

    def unexplained(self) -> set[str]:
        return self.moved.keys() - self.explained

    def of(self, cause: str) -> Mapping[Account, int]:
        return self.moved.get(cause, {})

    def to(self, org_id: str, *causes: str, kind: str = "") -> int:
        """What they brought an organisation, in accounts of a kind or in all, nanos."""
        return self._sum(causes, lambda account: account.org_id == org_id and kind in ("", account.kind))

    def on(self, *causes: str, kinds: tuple[str, ...] = (), ending: str = "") -> int:
        """What they brought accounts of some kinds, whosever, or of kinds that end so."""
        return self._sum(causes, lambda a: a.kind in kinds or (bool(ending) and a.kind.endswith(ending)))

    def _sum(self, causes: Iterable[str], counts: Callable[[Account], bool]) -> int:
        return sum(amount for cause in causes for account, amount in self.of(cause).items() if counts(account))


def entries_of(posting: Mapping[str, Any]) -> list[tuple[Account, int]]:
    """A posting's accounts and amounts, of its columns; an account that there is not is nobody's."""
    org_ids, kinds = posting["org_ids"] or (), posting["kinds"] or ()
    accounts = [Account(o or "", k or "") for o, k in zip(org_ids, kinds, strict=True)]
    return list(zip(accounts, posting["amounts"] or (), strict=True))
