"""The pure parts of the proof: times and digits of ids, sums, what a provider and the books say of each other."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mercat.billing.v1 import proof_pb2
from mercat.usage.v1 import usage_pb2

from services.billing.budgets.spent import Spent
from services.billing.budgets.store import Spending
from services.billing.ledger import Account
from services.billing.payments.outside import Owned, mistake
from services.billing.payments.provider import Kind, Movement, Status
from services.billing.proof.found import MOST, USAGE, Effects, Found, months, within
from services.billing.proof.service import asked
from services.billing.proof.sums import Sums, time_of
from services.common import ids
from services.common.months import month_of

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
moments = st.datetimes(datetime(2000, 1, 2), datetime(2200, 1, 1)).map(  # noqa: DTZ001 - made aware here
    lambda m: m.replace(tzinfo=UTC, microsecond=m.microsecond // 1000 * 1000)
)


def test_the_middle_of_many_calls_has_half_of_them_before_it() -> None:
    sums, made = Sums(), [NOW + timedelta(minutes=n) for n in range(5)]
    for n, at in enumerate(made):
        digits = ids.new("req", int(at.timestamp() * 1000))[4:11]
        for _ in range(2):  # as of two prices
            sums.add(digits, 20_000 * (n + 1), 1, 1)
    middle = sums.middle()
    assert middle is not None
    assert made[3] < middle <= made[3] + timedelta(milliseconds=2**15), "the first three made 40 % of them"


def test_few_calls_have_no_middle() -> None:
    sums = Sums()
    assert sums.middle() is None
    sums.add("0123456", 199_999, 1, 1)
    assert sums.middle() is None


def test_calls_of_no_time_have_no_middle() -> None:
    sums = Sums()
    sums.add("~~~~~~~", 200_000, 1, 1)
    assert sums.middle() is None


@given(moments, st.timedeltas(timedelta(milliseconds=1), timedelta(days=400)))
def test_a_time_holds_the_ids_that_are_made_in_it(start: datetime, length: timedelta) -> None:
    length -= timedelta(microseconds=length.microseconds % 1000)
    span = within(start, start + length)

    def made(at: datetime) -> str:
        return ids.new("req", (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1))

    assert span.holds(made(start))
    assert not span.holds(made(start + length))
    assert not span.holds(made(start - timedelta(milliseconds=1)))
    assert span.holds(made(start + length - timedelta(milliseconds=1))) or not length


@given(moments, st.timedeltas(timedelta(0), timedelta(days=400)))
def test_months_are_the_time_without_a_gap(start: datetime, length: timedelta) -> None:
    parts = list(months(start, start + length))
    assert sum((end - begin for begin, end in parts), timedelta()) == length
    assert all(a[1] == b[0] and b[0] == month_of(b[0]) for a, b in pairwise(parts))
    assert all((end - timedelta(microseconds=1)).month == begin.month for begin, end in parts)


@given(moments)
def test_digits_are_half_a_minute(moment: datetime) -> None:
    request_id = ids.new("req", int(moment.timestamp() * 1000))
    time = time_of(request_id[4:11])
    assert time is not None
    assert time[0] <= ids.timestamp(request_id) < time[1]
    assert time[1] - time[0] == timedelta(milliseconds=2**15)


@pytest.mark.parametrize("digits", ["hello!!", "012345", "zzzzzzz", ""])
def test_digits_of_no_id_are_of_no_time(digits: str) -> None:
    assert time_of(digits) is None


calls = st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 9), st.integers(-(2**63), 2**63 - 1)), max_size=8)


@given(calls, st.randoms())
def test_sums_are_alike_in_any_order_and_parts(rows: list[tuple[str, int, int]], random: object) -> None:
    one, other, shuffled = Sums(), Sums(), list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    for digits, nanos, checksum in rows:
        one.add(digits, 1, nanos, checksum)
    for digits, nanos, checksum in shuffled:
        other.add(digits, 1, nanos, checksum)
    assert one.unlike(other) == []
    other.add("b", 1, 5, 77)
    assert one.unlike(other) == ["b"]


def test_what_is_not_named_is_counted() -> None:
    found = Found()
    for n in range(MOST + 5):
        found.add(USAGE, "X", str(n), "")
    found.add(USAGE, "X", "many", "", rows=10)
    assert len(found.discrepancies) == MOST
    assert found.full
    assert not found.clean
    assert {s.name: s.differences for s in found.sections()}["usage"] == MOST + 15


def test_what_could_not_be_asked_is_not_clean() -> None:
    assert not Found(unproven=["payments"]).clean


def test_effects_are_found_by_whose_and_what_kind() -> None:
    effects = Effects({"pay_1": {Account("org_1", "customer_wallet"): 5, Account("", "stripe_clearing"): -5}})
    assert effects.to("org_1", "pay_1", "pay_2") == 5
    assert effects.to("org_1", "pay_1", kind="publisher_payable") == 0
    assert effects.on("pay_1", ending="_clearing") == -5
    assert effects.on("pay_1", kinds=("customer_wallet",)) == 5
    assert effects.unexplained() == {"pay_1"}
    effects.explain("pay_1")
    assert not effects.unexplained()


def own(status: Status, nanos: int = 50_000_000, ref: str | None = "pi_1") -> Owned:
    return Owned(Kind.PAYMENT, "pay_1", ref, nanos, status)


def there(status: Status, cents: int = 5, kind: Kind = Kind.PAYMENT) -> Movement:
    return Movement(kind, "pi_1", cents, status, NOW)


@pytest.mark.parametrize(
    ("ours", "theirs", "code"),
    [
        (own(Status.SUCCEEDED), there(Status.SUCCEEDED), None),
        (own(Status.SUCCEEDED), there(Status.SUCCEEDED, 6), "PROVIDER_DIFFERS"),
        (own(Status.SUCCEEDED), there(Status.PENDING), "PROVIDER_DIFFERS"),
        (own(Status.SUCCEEDED), there(Status.FAILED), "PROVIDER_DIFFERS"),
        (own(Status.SUCCEEDED), None, "PROVIDER_MISSING"),
        (own(Status.SUCCEEDED, ref=None), None, "PROVIDER_MISSING"),
        (own(Status.FAILED), there(Status.SUCCEEDED), "PROVIDER_DIFFERS"),
        (own(Status.FAILED), there(Status.FAILED, 6), None),
        (own(Status.FAILED), there(Status.PENDING), None),
        (own(Status.FAILED), None, None),
        (own(Status.PENDING), there(Status.SUCCEEDED, 6), None),
        (own(Status.PENDING), None, None),
        (None, there(Status.SUCCEEDED), "PROVIDER_ONLY"),
        (None, there(Status.PENDING), None),
        (None, there(Status.FAILED), None),
        (None, there(Status.PENDING, kind=Kind.DISPUTE), "PROVIDER_ONLY"),
    ],
)
def test_a_provider_and_the_books(ours: Owned | None, theirs: Movement | None, code: str | None) -> None:
    wrong = mistake(ours, theirs, "stripe")
    assert (wrong and wrong[0]) == code


@pytest.mark.parametrize(
    ("least", "table", "most", "wrong"),
    [(5, 5, 5, False), (5, 6, 7, False), (5, 4, 7, True), (5, 8, 7, True), (0, 3, 0, True), (5, 0, 5, True)],
)
def test_spending_lies_between_what_was_posted_and_what_is_recorded(
    least: int, table: int, most: int, wrong: bool
) -> None:
    day = date(2026, 11, 3)

    def sums(nanos: int) -> usage_pb2.SumSpendingResponse:
        response = usage_pb2.SumSpendingResponse()
        if nanos:
            one = response.spending.add(org_id="org_1", key_id="key_1", model_id="mdl_1", cost_nanos=nanos)
            one.day.FromDatetime(datetime(2026, 11, 3, tzinfo=UTC))
        return response

    key = Spending("org_1", day, "key_1", "mdl_1")
    spent = Spent(date(2026, 11, 1), {key: table} if table else {}, {}, sums(least))
    assert spent.unlike() == ({"org_1"} if least != table else set())
    assert [org_id for org_id, _ in spent.differences(sums(most))] == (["org_1"] if wrong else [])
    older = Spent(date(2026, 12, 1), spent.table, {}, sums(least))
    assert not older.unlike(), "of days before, not all is known"
    for change in (-2, 3):  # by corrections and refunds
        changed = Spent(date(2026, 11, 1), {key: table + change}, {key: change}, sums(least))
        assert changed.unlike() == spent.unlike()
        assert [org_id for org_id, _ in changed.differences(sums(most))] == (["org_1"] if wrong else [])
    untold = Spent(date(2026, 11, 1), {}, {key: -2}, sums(0))
    assert untold.unlike() == {"org_1"}
    assert [org_id for org_id, _ in untold.differences(sums(0))] == ["org_1"]


def test_this_month_is_asked_for_when_nothing_is_said() -> None:
    start = datetime(2026, 11, 1, tzinfo=UTC)
    assert asked(proof_pb2.ProveLedgerRequest(), NOW) == (start, datetime(2026, 12, 1, tzinfo=UTC))
    assert asked(proof_pb2.ProveLedgerRequest(period="2026-02"), NOW)[1] == datetime(2026, 3, 1, tzinfo=UTC)
    request = proof_pb2.ProveLedgerRequest()
    request.start_time.FromDatetime(start)
    assert asked(request, NOW) == (start, NOW)
    request.end_time.FromDatetime(datetime(9999, 12, 31, tzinfo=UTC))
    assert asked(request, NOW) == (start, datetime(2026, 12, 1, tzinfo=UTC))  # nothing was begun after that
