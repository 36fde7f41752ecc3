"""Receipts are checked by what is signed, with nothing but public keys."""

import base64
import json
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from mercat.billing.v1 import billing_pb2

from services.common.receipts import TYPE, NotGenuine, recomputed, sign, verify
from services.common.signing import SigningKey

NOW = datetime(2026, 5, 1, tzinfo=UTC)
KEY, OTHER = (SigningKey.of(Ed25519PrivateKey.generate()) for _ in range(2))


def receipt(cost: int = 3_000) -> billing_pb2.Receipt:
    made = billing_pb2.Receipt(
        request_id="req_1", model="a/b", version="1.0.0", units={"requests": 1, "rows": 3}, cost_nanos=cost,
        currency="USD",
    )  # fmt: skip
    made.price.components.add(meter="rows", nanos_per_million=1_000_000_000)
    return made


def signed(by: SigningKey = KEY) -> str:
    return sign(receipt(), by, NOW)


def altered(text: str, part: int, **changes: object) -> str:
    """With other claims, or another header, under the same signature."""
    parts = text.split(".")
    said = json.loads(base64.urlsafe_b64decode(parts[part] + "=="))
    said.update(changes)
    parts[part] = base64.urlsafe_b64encode(json.dumps(said).encode()).decode().rstrip("=")
    return ".".join(parts)


def test_what_was_signed_comes_back() -> None:
    text = signed()
    back = verify(text, [OTHER.public_jwk(), KEY.public_jwk()])
    assert back.signed == text
    back.ClearField("signed")
    assert back == receipt()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (altered(signed(), 1, receipt={"costNanos": "1"}), "changed after it was signed"),
        (altered(signed(), 1, iss="somebody"), "changed after it was signed"),
        (altered(signed(OTHER), 0, kid=KEY.kid), "changed after it was signed"),
        (altered(signed(), 0, alg="none"), "no receipt"),
        (altered(signed(), 0, alg="HS256"), "no receipt"),
        (signed(OTHER), "not among these"),
        (KEY.sign({"iss": "mercat", "iat": NOW, "receipt": {}}, "at+jwt"), "not as a receipt"),
        (KEY.sign({"iss": "mercat", "iat": NOW}, TYPE), "no receipt"),
        (KEY.sign({"iss": "mercat", "iat": NOW, "receipt": {"costNanos": "x"}}, TYPE), "no receipt"),
        (KEY.sign({"iss": "mercat", "iat": NOW, "receipt": 5}, TYPE), "no receipt"),
        (KEY.sign({"iss": "else", "iat": NOW, "receipt": {}}, TYPE), "no receipt"),
        ("nothing", "no receipt"),
        ("", "no receipt"),
        ("a.b.c", "no receipt"),
    ],
)
def test_all_else_is_not_genuine(text: str, why: str) -> None:
    with pytest.raises(NotGenuine, match=why):
        verify(text, [KEY.public_jwk()])


def test_the_cost_is_computed_again() -> None:
    assert recomputed(receipt()) == 3_000
    test, cached, free = receipt(), receipt(), billing_pb2.Receipt(units={"requests": 1})
    test.test = True
    cached.units["cache_hits"] = 1
    assert [recomputed(r) for r in (test, cached, free)] == [0, None, 0]
    cached.rating.share_ppm = 500_000
    assert recomputed(cached) == 1_500


def test_a_cost_that_depends_on_what_was_used_before_is_computed_again() -> None:
    tiered = receipt()
    del tiered.price.components[:]
    component = tiered.price.components.add(meter="rows", tier_mode=billing_pb2.TIER_MODE_GRADUATED, free_units=10)
    component.tiers.add(up_to=2, nanos_per_million=1_000_000_000)
    component.tiers.add(nanos_per_million=500_000_000)
    tiered.rating.positions["rows"] = 11
    tiered.rating.discount_ppm = 100_000
    back = verify(sign(tiered, KEY, NOW), [KEY.public_jwk()])
    assert recomputed(back) == (1_000 + 2 * 500) * 9 // 10
