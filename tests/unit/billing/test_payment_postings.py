"""What payments and their reversals do to the books."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.billing.ledger import LOSS, PLATFORM, WALLET, Account, Posting, totals
from services.billing.payments import amounts, postings
from services.billing.payments.postings import HELD, clearing

ORG = "org_1"
nanos = st.integers(1, amounts.MOST)
kinds = st.sampled_from(sorted(HELD))
providers = st.sampled_from(sorted(postings.CLEARINGS))
wallet = Account(ORG, WALLET)


def held(*made: Posting) -> dict[Account, int]:
    """What the postings did together, without what they left at zero."""
    assert all(sum(m for _, m in p.entries) == 0 for p in made)
    return {a: m for a, m in totals(e for p in made for e in p.entries).items() if m}


@given(amount=nanos, provider=providers)
def test_what_is_paid_in_lies_with_the_provider(amount: int, provider: str) -> None:
    assert held(postings.paid_in("pay_1", ORG, amount, provider)) == {wallet: amount, clearing(provider): -amount}


@given(amount=nanos, share=st.floats(0, 1), kind=kinds, provider=providers)
def test_a_reversal_ends_paid_or_as_if_it_had_never_been(amount: int, share: float, kind: str, provider: str) -> None:
    taken = min(amount, int(amount * share))
    lost = amount - taken
    begun = postings.withheld("rfd_1", kind, ORG, amount, taken)
    assert held(begun) == {a: m for a, m in ((wallet, -taken), (LOSS, -lost), (HELD[kind], amount)) if m}
    paid = postings.paid_back("rfd_1", kind, amount, provider)
    ended = {a: m for a, m in ((wallet, -taken), (LOSS, -lost), (clearing(provider), amount)) if m}
    assert held(begun, paid) == ended
    back = postings.returned("rfd_1", kind, ORG, amount, taken, provider, was_paid=False)
    assert held(begun, back) == {}
    again = postings.returned("rfd_1", kind, ORG, amount, taken, provider, was_paid=True)
    assert held(begun, paid, again) == {}
    assert len({begun.cause, paid.cause, back.cause}) == 3
    assert back.cause == again.cause, "returned once, from wherever it was"


@pytest.mark.parametrize(("amount", "taken"), [(0, 0), (-1, 0), (5, 6), (5, -1)])
def test_impossible_amounts_are_refused(amount: int, taken: int) -> None:
    refusal = r"^money that goes back is positive, and no more of it comes from the wallet$"
    with pytest.raises(ValueError, match=refusal):
        postings.withheld("rfd_1", "refund", ORG, amount, taken)
    with pytest.raises(ValueError, match=refusal):
        postings.returned("rfd_1", "refund", ORG, amount, taken, "stripe", was_paid=True)
    if amount <= 0:
        with pytest.raises(ValueError, match=r"^a payment is positive$"):
            postings.paid_in("pay_1", ORG, amount, "stripe")
        with pytest.raises(ValueError, match=refusal):
            postings.paid_back("rfd_1", "refund", amount, "stripe")


def test_the_platforms_accounts_are_its_own() -> None:
    assert (clearing("stripe"), clearing("sandbox")) == (
        Account("", "stripe_clearing"),
        Account("", "sandbox_clearing"),
    )
    assert {a.org_id for a in (LOSS, clearing("stripe"), clearing("sandbox"), *HELD.values())} == {PLATFORM}


@given(amount=nanos)
def test_what_is_charged_brings_in_the_amount_and_less_than_a_cent_more(amount: int) -> None:
    charged = amounts.chargeable(amount)
    assert amounts.whole(charged)
    assert amount <= charged
    assert charged == amounts.LEAST or charged < amount + amounts.CENT
    assert amounts.from_cents(amounts.to_cents(charged)) == charged


@pytest.mark.parametrize("amount", [0, -1, amounts.MOST + 1])
def test_what_no_card_can_be_charged_is_refused(amount: int) -> None:
    with pytest.raises(ValueError, match=f"^no card is charged {amount} nanos$"):
        amounts.chargeable(amount)


def test_parts_of_a_cent_are_never_dropped() -> None:
    with pytest.raises(ValueError, match=r"^10000001 nanos are no whole cents$"):
        amounts.to_cents(amounts.CENT + 1)


def test_each_posting_is_exact() -> None:
    held_back, sandbox = HELD["refund"], clearing("sandbox")
    assert postings.paid_in("pay_1", ORG, 1, "sandbox") == Posting("pay_1", "payment", ((wallet, 1), (sandbox, -1)))
    for taken, begun, back in (
        (0, ((LOSS, -5), (held_back, 5)), ((LOSS, 5), (held_back, -5))),
        (2, ((wallet, -2), (LOSS, -3), (held_back, 5)), ((wallet, 2), (LOSS, 3), (held_back, -5))),
        (5, ((wallet, -5), (held_back, 5)), ((wallet, 5), (held_back, -5))),
    ):
        assert postings.withheld("rfd_1", "refund", ORG, 5, taken) == Posting("rfd_1", "refund", begun)
        assert postings.returned("rfd_1", "refund", ORG, 5, taken, "sandbox", was_paid=False) == Posting(
            "rfd_1:returned", "refund_returned", back
        )
    assert postings.returned("rfd_1", "refund", ORG, 1, 1, "sandbox", was_paid=True) == Posting(
        "rfd_1:returned", "refund_returned", ((wallet, 1), (sandbox, -1))
    )
    assert postings.paid_back("rfd_1", "refund", 1, "sandbox") == Posting(
        "rfd_1:paid", "refund_paid", ((held_back, -1), (sandbox, 1))
    )


def test_cards_are_charged_whole_cents() -> None:
    cent = amounts.CENT
    assert [amounts.chargeable(n) for n in (1, amounts.LEAST, amounts.LEAST + 1, amounts.MOST)] == [
        amounts.LEAST, amounts.LEAST, amounts.LEAST + cent, amounts.MOST,
    ]  # fmt: skip
    assert (amounts.LEAST, amounts.MOST) == (500_000_000, 999_999_990_000_000)  # 0.50 and 999,999.99 USD
    cents = amounts.to_cents(7 * cent)
    assert (cents, type(cents)) == (7, int)
    assert amounts.from_cents(7) == 70_000_000
