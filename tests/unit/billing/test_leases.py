"""How much a lease gets. Their life is tested over the real tables, in `tests/integration/billing/test_leases.py`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.billing import leases


@given(st.integers(-1000, 10**6), st.integers(1, 1000), st.integers(1, 10**7))
def test_a_grant_suffices_or_is_none_and_is_never_more_than_there_is(free: int, minimum: int, wanted: int) -> None:
    granted = leases.grant(free, minimum, wanted)
    if free < minimum:
        assert granted == 0
    else:
        assert minimum <= granted <= free
        assert granted <= max(minimum, wanted)


@pytest.mark.parametrize(
    ("free", "minimum", "wanted", "granted"),
    [
        (1001, 1, 10**6, 250), (1001, 10, 100, 100), (1001, 400, 10, 400), (1001, 1001, 1, 1001), (1001, 1002, 1, 0),
        (0, 1, 1, 0), (-5, 1, 1, 0), (3, 1, 10, 1),
    ],
)  # fmt: skip
def test_a_grant_is_what_is_wanted_but_a_quarter_at_most_unless_one_call_needs_more(
    free: int, minimum: int, wanted: int, granted: int
) -> None:
    assert leases.grant(free, minimum, wanted) == granted


def test_what_nobody_holds_is_available() -> None:
    wallet = {"balance": 1000, "credit_limit": 200, "reserved": 30}
    assert leases.available(wallet, 4) == 1174
    assert leases.available({**wallet, "balance": -300}, 0) == -130
