"""Codes of authenticator apps: TOTP with SHA-1, 6 digits and 30 seconds (RFC 6238), which every app knows."""

import hmac
from datetime import datetime

import pyotp

STEP = 30  # seconds
_EITHER_SIDE = 1  # steps, for clocks that differ
ISSUER = "Mercat"


def generate() -> str:
    """A secret of 160 bits, base32."""
    return pyotp.random_base32(32)


def uri(secret: str, email: str) -> str:
    """What apps read from a QR code."""
    return pyotp.TOTP(secret).provisioning_uri(name=email, issuer_name=ISSUER)


def step_of(secret: str, code: str, now: datetime, after: int) -> int | None:
    """The step whose code it is, of those near now and later than `after`: a code is not accepted twice, nor one that
    is older than one accepted before. None when it is of none."""
    current, totp, found = int(now.timestamp()) // STEP, pyotp.TOTP(secret), None
    for step in range(current - _EITHER_SIDE, current + _EITHER_SIDE + 1):
        if hmac.compare_digest(totp.at(step * STEP).encode(), code.encode()) and step > after:
            found = step
    return found
