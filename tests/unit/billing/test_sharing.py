"""Whose loss disputed money is: the newest calls first, no more than was lost, nobody more than it earned."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.billing import ledger
from services.billing.ledger import LOSS, PAYABLE, Account
from services.billing.losses import sharing
from services.billing.losses.sharing import Paid, Tracing
from services.common import ids

parts = st.integers(0, 10**12)


def _calls(drawn: list[tuple[int, int, int, str]]) -> list[Paid]:
    """Newest first; of each what the wallet and credit paid, the fee in millionths, and the publisher."""
    return [
        Paid(
            f"pst_{len(drawn) - n:02}",
            publisher,
            wallet,
            wallet + credit - (wallet + credit) * fee // 10**6,
            wallet + credit,
        )
        for n, (wallet, credit, fee, publisher) in enumerate(drawn)
    ]


calls = st.lists(st.tuples(parts, parts, st.integers(0, 10**6), st.sampled_from("pqr")), max_size=20).map(_calls)


@given(calls, st.integers(1, 10**13), st.integers(1, 7))
def test_what_is_found_is_what_was_lost_and_the_newest_come_first(some: list[Paid], amount: int, page: int) -> None:
    found = Tracing(amount)
    for at in range(0, len(some), page):
        found.follow(some[at : at + page])
    paid = sum(call.paid for call in some)
    assert found.left == max(amount - paid, 0)
    shares = {org_id: share.amount for org_id, share in found.shares.items()}
    assert sum(shares.values()) <= min(amount, paid)
    for org_id, share in shares.items():
        mine = [call for call in some if call.publisher_org_id == org_id]
        assert 0 <= share <= sum(call.earned for call in mine)
    if not found.left and some:
        looked = [call for call in some if found.first <= call.posting_id <= found.last]
        assert sum(call.paid for call in looked) >= amount
        assert sum(call.paid for call in looked[:-1]) < amount
        assert looked == some[: len(looked)]
    counted = sum(share.calls for share in found.shares.values())
    assert counted == sum(1 for call in some if call.paid and found.first and call.posting_id >= found.first)


def test_a_part_of_a_call_is_a_part_of_what_it_brought() -> None:
    found = Tracing(50)
    found.follow([Paid("pst_3", "p", 20, 16, 20), Paid("pst_2", "q", 60, 80, 100), Paid("pst_1", "p", 9, 9, 9)])
    # Twenty of the newest; thirty of the sixty that the wallet paid of a hundred, of which eighty were earned.
    assert {org_id: (s.calls, s.amount) for org_id, s in found.shares.items()} == {"p": (1, 16), "q": (1, 24)}
    assert (found.first, found.last, found.left) == ("pst_2", "pst_3", 0)


@given(st.integers(1, 10**18))
def test_a_share_is_taken_and_returned(amount: int) -> None:
    taken, back = sharing.charged("dsp_1", "org_p", amount), sharing.returned("dsp_1", "org_p", amount)
    assert dict(taken.entries) == {Account("org_p", PAYABLE): -amount, LOSS: amount}
    assert not any(ledger.totals([*taken.entries, *back.entries]).values())
    assert taken.cause != back.cause
    assert sharing.causes("dsp_1", "org_p") == (taken.cause, back.cause)
    assert ids.sibling("pst", taken.cause) != ids.sibling("pst", sharing.charged("dsp_2", "org_p", amount).cause)
    for posting in (sharing.charged, sharing.returned):
        with pytest.raises(ValueError, match="positive"):
            posting("dsp_1", "org_p", 0)
