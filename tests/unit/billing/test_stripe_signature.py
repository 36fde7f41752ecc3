"""Signatures of webhooks, beside Stripe's own library."""

import pytest
import stripe
from hypothesis import given
from hypothesis import strategies as st

from services.billing.payments.signature import TOLERANCE, NotGenuine, verify

SECRET, NOW = "whsec_one", 1_800_000_000


def header(payload: str, at: int = NOW, secret: str = SECRET) -> str:
    return stripe.WebhookSignature.generate_signature_header(payload, secret, at)


@given(payload=st.text(st.characters(exclude_categories=["Cs"])))
def test_what_stripes_library_signs_is_genuine(payload: str) -> None:
    verify(payload.encode(), header(payload), ["whsec_other", SECRET], NOW)


@given(age=st.integers(-TOLERANCE, TOLERANCE))
def test_five_minutes_are_tolerated(age: int) -> None:
    verify(b"{}", header("{}", NOW - age), [SECRET], NOW)


@pytest.mark.parametrize("age", [TOLERANCE + 1, -TOLERANCE - 1, 86_400])
def test_older_ones_and_those_of_the_future_are_refused(age: int) -> None:
    with pytest.raises(NotGenuine, match="five minutes"):
        verify(b"{}", header("{}", NOW - age), [SECRET], NOW)


@given(payload=st.binary(), text=st.text(max_size=200))
def test_nothing_else_is_genuine(payload: bytes, text: str) -> None:
    with pytest.raises(NotGenuine):
        verify(payload, text, [SECRET], NOW)


@pytest.mark.parametrize(
    "text",
    ["", "t=1", "v1=ab", "t=,v1=ab", "t=-1,v1=ab", "t=²,v1=ab", f"t={'9' * 5000},v1=ab", f"t={NOW},v0=ab"],
)
def test_malformed_headers_are_refused(text: str) -> None:
    with pytest.raises(NotGenuine):
        verify(b"{}", text, [SECRET], NOW)


def test_other_bodies_secrets_and_two_times_are_refused() -> None:
    good = header("{}")
    for payload, text, secrets in (
        (b"{} ", good, [SECRET]), (b"{}", good, ["whsec_two"]), (b"{}", good, []), (b"{}", good, [""]),
        (b"{}", f"t={NOW - 9999},{good}", [SECRET]),
    ):  # fmt: skip
        with pytest.raises(NotGenuine):
            verify(payload, text, secrets, NOW)
