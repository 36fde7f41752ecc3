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
    with pytest.raises(NotGenuine, match=r"^it was signed more than five minutes ago$"):
        verify(b"{}", header("{}", NOW - age), [SECRET], NOW)


@given(payload=st.binary(), text=st.text(max_size=200))
def test_nothing_else_is_genuine(payload: bytes, text: str) -> None:
    with pytest.raises(NotGenuine):
        verify(payload, text, [SECRET], NOW)


@pytest.mark.parametrize(
    "text",
    [
        "", "v1=ab", "t=,v1=ab", "t=-1,v1=ab", "t=²,v1=ab", f"t={'9' * 5000},v1=ab", f"t={'9' * 13},v1=ab", "t,v1=ab",
        f"t={NOW},t={NOW},v1=ab", f"T={NOW},v1=ab", f"xt={NOW},v1=ab",
    ],
)  # fmt: skip
def test_headers_without_one_time_are_refused(text: str) -> None:
    with pytest.raises(NotGenuine, match=r"^the signature has no time$"):
        verify(b"{}", text, [SECRET], NOW)


@pytest.mark.parametrize("text", ["t=1", f"t={NOW},v0=ab", f"t={NOW},v1=", f"t={'9' * 12},v1=ab", f"t={NOW},v1=²"])
def test_headers_without_a_signature_are_refused(text: str) -> None:
    with pytest.raises(NotGenuine, match=r"^nobody with the secret signed this$"):
        verify(b"{}", text, [SECRET], NOW)


def test_times_are_read_as_long_as_stripe_could_write_them() -> None:
    far = 10**12 - 1
    verify(b"{}", header("{}", far), [SECRET], far)
    verify(b"{}", header("{}").replace(",", " , "), [SECRET], NOW)
    verify(b"{}", f"v0=ab,{header('{}')},v1=ab", [SECRET], NOW)


def test_other_bodies_secrets_and_two_times_are_refused() -> None:
    good = header("{}")
    nobody, timeless = r"^nobody with the secret signed this$", r"^the signature has no time$"
    for payload, text, secrets, refusal in (
        (b"{} ", good, [SECRET], nobody), (b"{}", good, ["whsec_two"], nobody), (b"{}", good, [], nobody),
        (b"{}", header("{}", secret=""), [""], nobody), (b"{}", f"t={NOW - 9999},{good}", [SECRET], timeless),
    ):  # fmt: skip
        with pytest.raises(NotGenuine, match=refusal):
            verify(payload, text, secrets, NOW)
