"""What is on an invoice, pure: calls folded into lines, and what is posted when it is paid. Amounts in nanos."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from services.billing.ledger import PAYABLE, PLATFORM, WALLET, Account, Posting
from services.common import ids, money, pricing
from services.common.months import month_of, next_month
from services.common.pricing import PLAIN, Price, Rated

REVENUE = "subscription_revenue"
SUBSCRIPTION, PRORATION, USAGE = "subscription", "proration", "usage"
EARNINGS, PLATFORM_FEE = "earnings", "platform_fee"
CORRECTION = "correction"
COLLECTED = (SUBSCRIPTION, PRORATION)
_FREE = Price()
_PERIOD = datetime.min.replace(tzinfo=UTC)  # in place of a month: what belongs to the period itself
OUTLIVED = "models of calls whose records are not kept"


@dataclass(frozen=True, slots=True)
class Line:
    """One line. `publisher_org_id` has the amount of a model's subscription, but for `fee_ppm` of it."""

    kind: str
    description: str
    amount: int
    start: datetime
    end: datetime
    subscription_id: str = ""
    model_id: str = ""
    model: str = ""
    publisher_org_id: str = ""
    fee_ppm: int = 0
    meter: str = ""
    price_id: str = ""
    quantity: int = 0
    calls: int = 0


@dataclass(frozen=True, slots=True)
class Part:
    """Of a call: what it has in the line of a meter. `calls`: how many calls more have a part there by it."""

    meter: str
    quantity: int
    amount: int
    calls: int = 1


_NOTHING = Part("", 0, 0, 0)


def split(amount: int, weights: Sequence[int]) -> list[int]:
    """Parts of an amount in proportion to weights (0 or more, not all of them 0), which add up to it: each is the
    difference of two rounded sums."""
    total, so_far, before, parts = sum(weights), 0, 0, []
    for weight in weights:
        so_far += weight
        upto = money.divide_half_even(amount * so_far, total)
        parts.append(upto - before)
        before = upto
    return parts


class State(NamedTuple):
    """What a call counts and costs, nanos."""

    units: Mapping[str, int]
    cost: int


@dataclass(frozen=True, slots=True)
class Call:
    """A paid call, its refund, or a correction of it; of a correction `units` and `cost` are what the call has from
    then on, and `before` what it had. `moved`: what the posting brought the account it was found by, less than 0: took.
    `late`: the call was charged in a period that is closed."""

    request_id: str
    model_id: str
    model: str
    price_id: str
    cost: int
    moved: int
    units: Mapping[str, int]
    refund: bool = False
    rated: Rated = PLAIN
    before: State | None = None
    correction_id: str = ""
    late: bool = False

    @property
    def charge(self) -> bool:
        """Whether it is the call itself."""
        return not self.refund and self.before is None

    @property
    def change(self) -> int:
        """What it adds to what the call cost before, nanos."""
        if self.before is not None:
            return self.cost - self.before.cost
        return -self.cost if self.refund else self.cost

    @property
    def month(self) -> datetime:
        """When the month of the call begins, UTC."""
        return month_of(ids.timestamp(self.request_id))


def parts(call: Call, price: Price) -> list[Part]:
    """What a call has in the line of each meter. Its cost is divided in proportion to what its price makes of each
    meter; a cost that the price does not explain is one of requests. A refund takes that back, and a correction adds
    what the call has by it and takes back what it had."""
    own = _parts(State(call.units, call.cost), call.rated, price)
    if call.charge:
        return own
    had, has = (own, []) if call.before is None else (_parts(call.before, call.rated, price), own)
    before, after = ({p.meter: p for p in some} for some in (had, has))
    made = []
    for meter in after | before:
        a, b = after.get(meter, _NOTHING), before.get(meter, _NOTHING)
        made.append(Part(meter, a.quantity - b.quantity, a.amount - b.amount, a.calls - b.calls))
    return [p for p in made if p.quantity or p.amount or p.calls]


def _parts(state: State, rated: Rated, price: Price) -> list[Part]:
    if not state.cost:
        return []  # what costs nothing is on no invoice
    weights: dict[str, int] = {}
    for line in pricing.bill(price, state.units, rated)[1]:
        if line.meter and line.millionths > 0:
            weights[line.meter] = weights.get(line.meter, 0) + line.millionths
    if not weights:
        return [Part("requests", state.units.get("requests", 1), state.cost)]
    shares = split(state.cost, list(weights.values()))
    return [Part(meter, state.units[meter], shares[n]) for n, meter in enumerate(weights)]


@dataclass(slots=True)
class _Sum:
    quantity: int = 0
    calls: int = 0
    amount: int = 0
    first: str = ""  # of the calls
    several: bool = False

    def add(self, call: Call, quantity: int, amount: int, calls: int) -> None:
        self.quantity += quantity
        self.amount += amount
        self.calls += 1 if call.late else calls
        self.first = self.first or call.request_id
        self.several = self.several or call.request_id != self.first

    def correction(self, month: datetime, what: str) -> str:
        which = f"{self.calls} calls" if self.several else self.first
        return f"Correction of {which}, {month:%Y-%m}: {what}"


def _month(call: Call) -> datetime:
    return call.month if call.late else _PERIOD


@dataclass(slots=True)
class UsageLines:
    """Folds calls, one after the other, into lines by model, meter and price: those of the period and, by month, what
    changed of calls before it."""

    prices: Mapping[str, Price]
    _sums: dict[tuple[datetime, str, str, str, str], _Sum] = field(default_factory=dict)

    def add(self, call: Call) -> None:
        for part in parts(call, self.prices.get(call.price_id, _FREE)):
            key = (_month(call), call.model, part.meter, call.price_id, call.model_id)
            self._sums.setdefault(key, _Sum()).add(call, part.quantity, part.amount, part.calls)

    def lines(self, start: datetime, end: datetime) -> list[Line]:
        made: list[Line] = []
        for key in sorted(self._sums):
            (month, model, meter, price_id, model_id), s = key, self._sums[key]
            if not (s.quantity or s.amount or s.calls):
                continue  # all of it was taken back
            kind, text, span = USAGE, f"{model or OUTLIVED}: {meter.replace('_', ' ')}", (start, end)
            if month != _PERIOD:
                kind, text, span = CORRECTION, s.correction(month, text), (month, next_month(month))
            made.append(
                Line(
                    kind, text, s.amount, *span, model_id=model_id, model=model, meter=meter, price_id=price_id,
                    quantity=s.quantity, calls=s.calls,
                )
            )  # fmt: skip
        return made


@dataclass(slots=True)
class EarningLines:
    """Folds calls to a publisher's models into what each brought and what the platform kept of it, those of the period
    and, by month, what changed of calls before it."""

    _sums: dict[tuple[datetime, str, str], _Sum] = field(default_factory=dict)

    def add(self, call: Call) -> None:
        key = (_month(call), call.model, call.model_id)
        had = call.before.cost if call.before is not None else call.cost if call.refund else 0
        calls = (had + call.change > 0) - (had > 0)
        self._sums.setdefault(key, _Sum()).add(call, call.change - call.moved, call.change, calls)

    def lines(self, start: datetime, end: datetime) -> list[Line]:
        made: list[Line] = []
        for key in sorted(self._sums):
            (month, model, model_id), s = key, self._sums[key]
            if not (s.quantity or s.amount or s.calls):
                continue
            kind, text, span = EARNINGS, f"Calls to {model or OUTLIVED}", (start, end)
            if month != _PERIOD:
                kind, text, span = CORRECTION, s.correction(month, model or OUTLIVED), (month, next_month(month))
            made.append(
                Line(kind, text, s.amount, *span, model_id=model_id, model=model, quantity=s.calls, calls=s.calls)
            )
            if s.quantity:
                made.append(fee_line(model, model_id, s.quantity, *span))
        return made


def fee_line(model: str, model_id: str, fee: int, start: datetime, end: datetime) -> Line:
    return Line(PLATFORM_FEE, f"Platform fee, {model or OUTLIVED}", -fee, start, end, model_id=model_id, model=model)


def due(lines: Iterable[Line]) -> int:
    """What is collected for lines; less than 0: credited."""
    return sum(line.amount for line in lines if line.kind in COLLECTED)


def prepaid(lines: Iterable[Line]) -> int:
    """What the postings of calls moved already: taken from who called, or brought whose models they were."""
    return sum(line.amount for line in lines if line.kind not in COLLECTED)


def posting(invoice_id: str, org_id: str, lines: Iterable[Line]) -> Posting | None:
    """What paying (or crediting) an invoice does to the books: the wallet pays fees to the platform, and those of
    models to their publishers, but for the platform's share. None when nothing moves."""
    moved: dict[Account, int] = {}
    for line in lines:
        if line.kind not in COLLECTED:
            continue
        kept = line.amount
        if line.publisher_org_id:
            kept = money.share(line.amount, line.fee_ppm)
            _move(moved, Account(line.publisher_org_id, PAYABLE), line.amount - kept)
        _move(moved, Account(PLATFORM, REVENUE), kept)
        _move(moved, Account(org_id, WALLET), -line.amount)
    entries = tuple((account, amount) for account, amount in moved.items() if amount)
    return Posting(invoice_id, "invoice", entries) if entries else None


def _move(moved: dict[Account, int], account: Account, amount: int) -> None:
    moved[account] = moved.get(account, 0) + amount
