"""How much a lease gets. Their life is tested over the real tables, in `tests/integration/billing/test_leases.py`."""

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
