"""Calls folded into lines: every nano of every call is in exactly one of them."""

from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from services.billing.invoices import lines
from services.billing.invoices.lines import (
    CORRECTION,
    PRORATION,
    REVENUE,
    SUBSCRIPTION,
    USAGE,
    Call,
    EarningLines,
    Line,
    Part,
    State,
    UsageLines,
)
from services.billing.ledger import PAYABLE, PLATFORM, WALLET, Account, Posting
from services.common import ids
from services.common.pricing import Component, Price, Rated, Tier, cost

START, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)
METERS = ("requests", "input_tokens", "output_tokens", "rows")
prices = st.dictionaries(st.sampled_from(METERS), st.integers(0, 10**12), max_size=4).map(
    lambda d: Price(tuple(Component(meter, nanos) for meter, nanos in d.items()))
)
units = st.dictionaries(st.sampled_from(METERS), st.integers(0, 10**6), max_size=4)


@given(st.integers(0, 10**18), st.lists(st.integers(0, 10**18), min_size=1, max_size=6).filter(any))
def test_parts_of_an_amount_add_up_to_it(amount: int, weights: list[int]) -> None:
    parts = lines.split(amount, weights)
    assert sum(parts) == amount
    assert all(part >= 0 for part in parts)
    assert all(part == 0 for part, weight in zip(parts, weights, strict=True) if weight == 0)


@given(st.lists(st.tuples(prices, units, st.sampled_from("ab"), st.integers(0, 3)), max_size=20))
def test_the_lines_of_calls_are_what_the_calls_cost(made: list[tuple]) -> None:
    known = {f"prc_{n}": price for n, (price, *_) in enumerate(made)}
    folded = UsageLines(known)
    calls = []
    for n, (price, counted, model, extra) in enumerate(made):
        paid = cost(price, counted) + extra
        calls.append(Call(f"req_{n}", f"mdl_{model}", model, f"prc_{n}", paid, -paid, counted))
        folded.add(calls[-1])
    found = folded.lines(START, END)
    assert sum(line.amount for line in found) == sum(call.cost for call in calls) == lines.prepaid(found)
    assert lines.due(found) == 0
    for line in found:
        opened = [
            part
            for call in calls
            if (call.model, call.price_id) == (line.model, line.price_id)
            for part in lines.parts(call, known[call.price_id])
            if part.meter == line.meter
        ]
        assert (sum(p.amount for p in opened), sum(p.quantity for p in opened), len(opened)) == (
            line.amount, line.quantity, line.calls,
        )  # fmt: skip


def test_a_call_is_split_by_what_its_price_makes_of_each_meter() -> None:
    price = Price(
        (Component("input_tokens", 1_000_000), Component("output_tokens", 3_000_000), Component("requests", 0))
    )
    counted = {"input_tokens": 10, "output_tokens": 10, "requests": 1}

    def parts(cost: int, price: Price, rated: Rated = Rated()) -> list[Part]:  # noqa: B008
        return lines.parts(Call("req", "mdl", "model", "prc", cost, -cost, counted, rated=rated), price)

    assert parts(40, price) == [Part("input_tokens", 10, 10), Part("output_tokens", 10, 30)]
    assert parts(20, price) == [Part("input_tokens", 10, 5), Part("output_tokens", 10, 15)]
    assert parts(7, Price()) == [Part("requests", 1, 7)]
    tiers = (Tier(15, 2_000_000), Tier(0, 1_000_000))
    tiered = Price((Component("input_tokens", tiers=tiers), Component("output_tokens", 1_000_000, free_units=5)))
    # Of the ten input tokens five lie in each tier, and five of the output tokens are free.
    assert parts(20, tiered, Rated({"input_tokens": 10})) == [
        Part("input_tokens", 10, 15),
        Part("output_tokens", 10, 5),
    ]


states = st.tuples(
    st.dictionaries(st.sampled_from(METERS), st.integers(0, 10**6), min_size=1, max_size=4), st.integers(0, 3)
)


@given(st.lists(st.tuples(prices, st.lists(states, min_size=1, max_size=5), st.booleans(), st.booleans()), max_size=8))
def test_corrections_change_lines_to_what_calls_cost_in_truth(made: list[tuple]) -> None:
    known = {f"prc_{n}": price for n, (price, *_) in enumerate(made)}
    folded, earned = UsageLines(known), EarningLines()
    truth: dict[tuple[str, str], tuple[int, int]] = {}
    seen: list[Call] = []
    for n, (price, history, late, refunded) in enumerate(made):
        request_id, price_id = ids.new("req", n), f"prc_{n}"
        had = None
        for counted, extra in history:
            now = State(counted, cost(price, counted) + extra)
            call = Call(request_id, "mdl", "m", price_id, now.cost, -now.cost, counted, before=had)
            if had is None or now.cost != had.cost:
                seen.append(replace(call, late=late and had is not None))
                had = now
        if refunded and len(history) == 1:
            seen.append(replace(seen[-1], refund=True, late=late))
            had = State({}, 0)
        assert had is not None
        for part in lines.parts(Call(request_id, "mdl", "m", price_id, had.cost, -had.cost, had.units), price):
            truth[price_id, part.meter] = (part.quantity, part.amount)
    for call in seen:
        folded.add(call)
        earned.add(replace(call, moved=call.change))
    found = folded.lines(START, END)
    sums: dict[tuple[str, str], tuple[int, int]] = {}
    for line in found:
        quantity, amount = sums.get((line.price_id, line.meter), (0, 0))
        sums[line.price_id, line.meter] = (quantity + line.quantity, amount + line.amount)
        assert (line.kind == CORRECTION) == line.description.startswith("Correction of ")
        assert line.start == (START if line.kind == USAGE else datetime(1970, 1, 1, tzinfo=UTC))
        parts = [
            p
            for c in seen
            if c.price_id == line.price_id and c.late == (line.kind == CORRECTION)
            for p in lines.parts(c, known[c.price_id])
            if p.meter == line.meter
        ]
        assert (sum(p.quantity for p in parts), sum(p.amount for p in parts)) == (line.quantity, line.amount)
        assert line.calls == (sum(p.calls for p in parts) if line.kind == USAGE else len(parts))
    assert {key: of for key, of in sums.items() if any(of)} == {key: of for key, of in truth.items() if any(of)}
    assert lines.prepaid(found) == sum(call.change for call in seen) == lines.prepaid(earned.lines(START, END))
    assert lines.due(found) == 0


def test_corrections_of_a_month_are_named_by_their_call_or_how_many_they_are() -> None:
    one, two = (ids.new("req", 86_400_000 * day) for day in (3, 4))
    folded = UsageLines({})
    for request_id, amount in ((one, 5), (one, 7)):
        folded.add(Call(request_id, "mdl", "m", "p", amount, -amount, {}, before=State({}, 0), late=True))
    (line,) = folded.lines(START, END)
    assert line.description == f"Correction of {one}, 1970-01: m: requests"
    assert (line.start, line.end, line.calls, line.amount) == (
        datetime(1970, 1, 1, tzinfo=UTC), datetime(1970, 2, 1, tzinfo=UTC), 2, 12,
    )  # fmt: skip
    folded.add(Call(two, "mdl", "m", "p", 1, 1, {}, refund=True, late=True))
    (line,) = folded.lines(START, END)
    assert line.description == "Correction of 3 calls, 1970-01: m: requests"


@given(st.lists(st.tuples(st.integers(1, 10**12), st.integers(0, 10**6), st.sampled_from("ab")), max_size=20))
def test_earnings_and_fees_are_what_was_earned(made: list[tuple[int, int, str]]) -> None:
    folded, earned = EarningLines(), 0
    for n, (paid, ppm, model) in enumerate(made):
        part = paid - paid * ppm // 10**6
        folded.add(Call(f"req_{n}", f"mdl_{model}", model, "prc", paid, part, {}))
        earned += part
    found = folded.lines(START, END)
    assert sum(line.amount for line in found) == earned
    assert sum(line.calls for line in found) == len(made)


@given(
    st.lists(st.tuples(st.integers(-(10**15), 10**15), st.sampled_from(["", "org_p", "org_q"]), st.integers(0, 10**6)))
)
def test_what_is_posted_is_what_is_due(made: list[tuple[int, str, int]]) -> None:
    kinds = (SUBSCRIPTION, PRORATION)
    some = [
        Line(kinds[n % 2], "", amount, START, END, publisher_org_id=org, fee_ppm=ppm)
        for n, (amount, org, ppm) in enumerate(made)
    ]
    some.append(Line(USAGE, "", 5, START, END))
    posting = lines.posting("inv_1", "org_c", some)
    moved = dict(posting.entries) if posting else {}
    assert moved.get(Account("org_c", WALLET), 0) == -lines.due(some)
    assert sum(moved.values()) == 0
    own = sum(amount for amount, org, _ in made if not org)
    if all(not org for _, org, _ in made):
        assert moved.get(Account(PLATFORM, REVENUE), 0) == own


def test_a_models_fee_goes_to_its_publisher_but_for_the_platforms_share() -> None:
    line = Line(SUBSCRIPTION, "", 1000, START, END, publisher_org_id="org_p", fee_ppm=200_000)
    posting = lines.posting("inv_1", "org_c", [line])
    assert posting is not None
    assert dict(posting.entries) == {
        Account("org_c", WALLET): -1000, Account("org_p", PAYABLE): 800, Account(PLATFORM, REVENUE): 200,
    }  # fmt: skip
    assert lines.posting("inv_1", "org_c", [Line(USAGE, "", 5, START, END)]) is None


def test_an_amount_is_split_to_the_nano() -> None:
    assert lines.split(10, [1, 1, 1]) == [3, 4, 3]
    assert lines.split(7, [0, 3, 0, 1]) == [0, 5, 0, 2]
    assert lines.split(-7, [3, 1]) == [-5, -2]


def call(
    cost: int, moved: int, *, model: str = "a/b", price: str = "prc", refund: bool = False, **counted: int
) -> Call:
    return Call("req", f"mdl_{model}" if model else "", model, price, cost, moved, counted, refund)


def test_lines_of_usage_are_exact() -> None:
    price = Price((Component("input_tokens", 1_000_000), Component("rows", 3_000_000)))
    folded = UsageLines({"prc": price})
    for one in (
        call(10, -10, input_tokens=4, rows=2), call(5, -5, input_tokens=5),
        call(10, 10, refund=True, input_tokens=4, rows=2), call(7, -7, requests=2), call(6, -6),
        call(9, -9, price="gone", rows=1), call(8, -8, model="", price="prc"),
    ):  # fmt: skip
        folded.add(one)
    a, none = {"model": "a/b", "model_id": "mdl_a/b"}, {"model": "", "model_id": ""}
    assert folded.lines(START, END) == [
        Line(
            USAGE, f"{lines.OUTLIVED}: requests", 8, START, END, meter="requests", price_id="prc", quantity=1, calls=1,
            **none,
        ),
        Line(
            USAGE, "a/b: input tokens", 5, START, END, meter="input_tokens", price_id="prc", quantity=5, calls=1, **a
        ),
        Line(USAGE, "a/b: requests", 9, START, END, meter="requests", price_id="gone", quantity=1, calls=1, **a),
        Line(USAGE, "a/b: requests", 13, START, END, meter="requests", price_id="prc", quantity=3, calls=2, **a),
    ]  # fmt: skip


def test_lines_of_earnings_are_exact() -> None:
    folded = EarningLines()
    for one in (
        call(10, 8), call(5, 4), call(5, -4, refund=True), call(7, 7, model="c/d"), call(9, 8, model=""),
    ):  # fmt: skip
        folded.add(one)
    a, c, none = ({"model": m, "model_id": f"mdl_{m}" if m else ""} for m in ("a/b", "c/d", ""))
    assert folded.lines(START, END) == [
        Line(lines.EARNINGS, f"Calls to {lines.OUTLIVED}", 9, START, END, quantity=1, calls=1, **none),
        Line(lines.PLATFORM_FEE, f"Platform fee, {lines.OUTLIVED}", -1, START, END, **none),
        Line(lines.EARNINGS, "Calls to a/b", 10, START, END, quantity=1, calls=1, **a),
        Line(lines.PLATFORM_FEE, "Platform fee, a/b", -2, START, END, **a),
        Line(lines.EARNINGS, "Calls to c/d", 7, START, END, quantity=1, calls=1, **c),
    ]


def test_a_part_of_every_meter_that_costs_and_of_no_other() -> None:
    price = Price((Component("requests", 5), Component("rows", 0), Component("input_tokens", 1, free_units=9)), 7)
    assert lines.parts(call(7, -7, requests=1, rows=3, input_tokens=2), price) == [Part("requests", 1, 7)]
    assert lines.parts(call(700, -700, requests=1, rows=3, input_tokens=11), price) == [
        Part("requests", 1, 500), Part("input_tokens", 11, 200),
    ]  # fmt: skip
    tiers = Price((Component("rows", tiers=(Tier(1, 1), Tier(0, 3))), Component("requests", 1)))
    assert lines.parts(call(5, -5, requests=1, rows=2), tiers) == [Part("rows", 2, 4), Part("requests", 1, 1)]


def test_what_is_due_and_what_was_paid() -> None:
    some = [
        Line(kind, "", amount, START, END)
        for kind, amount in ((SUBSCRIPTION, 1), (PRORATION, -20), (USAGE, 300), (lines.EARNINGS, 4000))
    ]
    assert (lines.due(some), lines.prepaid(some)) == (-19, 4300)
    wallet, revenue = Account("org_c", WALLET), Account(PLATFORM, REVENUE)
    assert lines.posting("inv_1", "org_c", some) == Posting("inv_1", "invoice", ((revenue, -19), (wallet, 19)))
    theirs = Line(PRORATION, "", -10, START, END, publisher_org_id="org_p", fee_ppm=300_000)
    assert lines.posting("inv_1", "org_c", [*some, theirs]) == Posting(
        "inv_1", "invoice", ((revenue, -22), (wallet, 29), (Account("org_p", PAYABLE), -7))
    )
    back = Line(PRORATION, "", -1, START, END)
    assert lines.posting("inv_1", "org_c", [some[0], back]) is None


def test_a_call_itself_is_neither_its_refund_nor_a_correction() -> None:
    assert call(5, -5).charge
    assert not call(5, 5, refund=True).charge
    assert not replace(call(3, 2), before=State({}, 5)).charge


def test_a_correction_adds_what_the_call_has_and_takes_back_what_it_had() -> None:
    price = Price((Component("rows", 1_000_000), Component("images", 1_000_000), Component("input_tokens", 1_000_000)))
    had = State({"rows": 2, "images": 3}, 5)
    corrected = replace(call(11, 0, rows=5, input_tokens=6), before=had)
    assert lines.parts(corrected, price) == [
        Part("rows", 3, 3, 0), Part("input_tokens", 6, 6, 1), Part("images", -3, -3, -1),
    ]  # fmt: skip
    assert lines.parts(replace(call(5, 0, rows=2, images=3), before=had), price) == []
    assert lines.parts(call(5, 5, refund=True, rows=2, images=3), price) == [
        Part("rows", -2, -2, -1), Part("images", -3, -3, -1),
    ]  # fmt: skip
    folded = UsageLines({"prc": price})
    folded.add(replace(call(7, 0, rows=2), before=State({"rows": 2}, 5)))
    assert folded.lines(START, END) == [
        Line(
            USAGE, "a/b: rows", 2, START, END, model="a/b", model_id="mdl_a/b", meter="rows", price_id="prc", calls=0,
        )
    ]  # fmt: skip


def test_corrections_of_several_calls_are_several_whichever_comes_last() -> None:
    one, two = (ids.new("req", 86_400_000 * day) for day in (3, 4))
    folded = UsageLines({})
    for request_id in (one, two, one):
        folded.add(Call(request_id, "mdl", "m", "p", 5, -5, {}, before=State({}, 0), late=True))
    (line,) = folded.lines(START, END)
    assert line.description == "Correction of 3 calls, 1970-01: m: requests"


def test_earnings_are_corrected_to_the_call() -> None:
    folded = EarningLines()
    folded.add(call(1, 1, refund=False, model="c/d"))
    folded.add(call(1, -1, refund=True, model="c/d"))  # nothing is left of it
    folded.add(replace(call(7, 2, model="e/f"), before=State({}, 5)))  # it was paid before, in whole to the publisher
    folded.add(replace(call(5, 4, model="g/h"), before=State({}, 0)))
    late = ids.new("req", 86_400_000 * 40)
    for model in ("a/b", ""):
        folded.add(replace(call(6, 3, model=model), request_id=late, before=State({}, 2), late=True))
    g = {"model": "g/h", "model_id": "mdl_g/h"}
    assert folded.lines(START, END)[:3] == [
        Line(lines.EARNINGS, "Calls to e/f", 2, START, END, model="e/f", model_id="mdl_e/f"),
        Line(lines.EARNINGS, "Calls to g/h", 5, START, END, quantity=1, calls=1, **g),
        Line(lines.PLATFORM_FEE, "Platform fee, g/h", -1, START, END, **g),
    ]
    span = datetime(1970, 2, 1, tzinfo=UTC), datetime(1970, 3, 1, tzinfo=UTC)
    assert [
        (line.kind, line.description, line.amount, line.start, line.end) for line in folded.lines(START, END)[3:]
    ] == [
        (CORRECTION, f"Correction of {late}, 1970-02: {lines.OUTLIVED}", 4, *span),
        (lines.PLATFORM_FEE, f"Platform fee, {lines.OUTLIVED}", -1, *span),
        (CORRECTION, f"Correction of {late}, 1970-02: a/b", 4, *span),
        (lines.PLATFORM_FEE, "Platform fee, a/b", -1, *span),
    ]
