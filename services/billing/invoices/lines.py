"""What is on an invoice, pure: calls folded into lines, and what is posted when it is paid. Amounts in nanos."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from services.billing.ledger import PAYABLE, PLATFORM, WALLET, Account, Posting
from services.common import money, pricing
from services.common.pricing import PLAIN, Price, Rated

REVENUE = "subscription_revenue"
SUBSCRIPTION, PRORATION, USAGE = "subscription", "proration", "usage"
EARNINGS, PLATFORM_FEE = "earnings", "platform_fee"
COLLECTED = (SUBSCRIPTION, PRORATION)
_FREE = Price()
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
    """Of a call: what it has in the line of a meter."""

    meter: str
    quantity: int
    amount: int


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


@dataclass(frozen=True, slots=True)
class Call:
    """A paid call, or its refund. `moved`: what its posting brought the account it was found by, less than 0: took."""

    request_id: str
    model_id: str
    model: str
    price_id: str
    cost: int
    moved: int
    units: Mapping[str, int]
    refund: bool = False
    rated: Rated = PLAIN

    @property
    def sign(self) -> int:
        return -1 if self.refund else 1


def parts(call: Call, price: Price) -> list[Part]:
    """A call's cost by meter, in proportion to what its price makes of each; a cost that the price does not explain is
    one of requests."""
    weights: dict[str, int] = {}
    for line in pricing.bill(price, call.units, call.rated)[1]:
        if line.meter and line.millionths > 0:
            weights[line.meter] = weights.get(line.meter, 0) + line.millionths
    if not weights:
        return [Part("requests", call.units.get("requests", 1), call.cost)]
    shares = split(call.cost, list(weights.values()))
    return [Part(meter, call.units[meter], shares[n]) for n, meter in enumerate(weights)]


@dataclass(slots=True)
class _Sum:
    quantity: int = 0
    calls: int = 0
    amount: int = 0


@dataclass(slots=True)
class UsageLines:
    """Folds calls, one after the other, into lines by model, meter and price."""

    prices: Mapping[str, Price]
    _sums: dict[tuple[str, str, str, str], _Sum] = field(default_factory=dict)

    def add(self, call: Call) -> None:
        for part in parts(call, self.prices.get(call.price_id, _FREE)):
            found = self._sums.setdefault((call.model, part.meter, call.price_id, call.model_id), _Sum())
            found.quantity += call.sign * part.quantity
            found.calls += 1
            found.amount += call.sign * part.amount

    def lines(self, start: datetime, end: datetime) -> list[Line]:
        return [
            Line(
                USAGE, f"{model or OUTLIVED}: {meter.replace('_', ' ')}", s.amount, start, end, model_id=model_id,
                model=model, meter=meter, price_id=price_id, quantity=s.quantity, calls=s.calls,
            )
            for (model, meter, price_id, model_id), s in sorted(self._sums.items())
        ]  # fmt: skip


@dataclass(slots=True)
class EarningLines:
    """Folds calls to a publisher's models into what each brought and what the platform kept of it."""

    _sums: dict[tuple[str, str], _Sum] = field(default_factory=dict)

    def add(self, call: Call) -> None:
        found = self._sums.setdefault((call.model, call.model_id), _Sum())
        found.quantity += call.sign * call.cost - call.moved
        found.calls += 1
        found.amount += call.sign * call.cost

    def lines(self, start: datetime, end: datetime) -> list[Line]:
        made: list[Line] = []
        for (model, model_id), s in sorted(self._sums.items()):
            made.append(
                Line(
                    EARNINGS, f"Calls to {model or OUTLIVED}", s.amount, start, end, model_id=model_id, model=model,
                    quantity=s.calls, calls=s.calls,
                )
            )  # fmt: skip
            if s.quantity:
                made.append(fee_line(model, model_id, s.quantity, start, end))
        return made


def fee_line(model: str, model_id: str, fee: int, start: datetime, end: datetime) -> Line:
    return Line(PLATFORM_FEE, f"Platform fee, {model or OUTLIVED}", -fee, start, end, model_id=model_id, model=model)


def due(lines: Iterable[Line]) -> int:
    """What is collected for lines; less than 0: credited."""
    return sum(line.amount for line in lines if line.kind in COLLECTED)


def prepaid(lines: Iterable[Line]) -> int:
    """What was paid from the wallet already."""
    return sum(line.amount for line in lines if line.kind == USAGE)


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
