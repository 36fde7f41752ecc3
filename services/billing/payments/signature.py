"""Signatures of Stripe's webhooks, pure: https://docs.stripe.com/webhooks#verify-manually"""

import hashlib
import hmac
from collections.abc import Sequence

TOLERANCE = 300  # seconds


class NotGenuine(Exception):
    """Nobody with the secret signed this, or not lately."""


def verify(payload: bytes, header: str, secrets: Sequence[str], now: float) -> None:
    """Checks the header `Stripe-Signature` of a body. `now`: seconds since 1970. There are several secrets
    while one is replaced.

    Raises:
        NotGenuine: it was not signed under any of the secrets, or more than five minutes from now.
    """
    parts = [part.strip() for part in header.split(",")]
    times = [part[2:] for part in parts if part.startswith("t=")]
    given = [part[3:].encode() for part in parts if part.startswith("v1=")]
    if len(times) != 1 or not times[0].isascii() or not times[0].isdigit() or len(times[0]) > 12:
        raise NotGenuine("the signature has no time")
    signed = times[0].encode() + b"." + payload
    expected = [hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest().encode() for secret in secrets if secret]
    if not any(hmac.compare_digest(one, two) for one in expected for two in given):
        raise NotGenuine("nobody with the secret signed this")
    if abs(now - int(times[0])) > TOLERANCE:
        raise NotGenuine("it was signed more than five minutes ago")
