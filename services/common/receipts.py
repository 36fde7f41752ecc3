"""Receipts: what is said of one call, as a compact JWS (RFC 7515) that anyone can check who has the public keys."""

from collections.abc import Iterable
from datetime import datetime

import jwt
from google.protobuf import json_format
from mercat.auth.v1 import auth_pb2
from mercat.billing.v1 import billing_pb2

from services.common import pricing
from services.common.signing import ALGORITHM, SigningKey

TYPE = "mercat-receipt+jwt"
ISSUER = "mercat"
_CLAIM = "receipt"


class NotGenuine(Exception):
    """The text is no receipt that one of the keys signed; says why."""


def sign(receipt: billing_pb2.Receipt, key: SigningKey, now: datetime) -> str:
    """The receipt, but for `signed`, in the JSON of the contract."""
    said = billing_pb2.Receipt()
    said.CopyFrom(receipt)
    said.ClearField("signed")
    return key.sign({"iss": ISSUER, "iat": now, _CLAIM: json_format.MessageToDict(said)}, TYPE)


def verify(signed: str, keys: Iterable[auth_pb2.JsonWebKey]) -> billing_pb2.Receipt:
    """What was signed; needs nothing but the keys. Raises NotGenuine."""
    try:
        header = jwt.get_unverified_header(signed)
        if header.get("typ") != TYPE:
            raise NotGenuine("it is signed, but not as a receipt")
        known = {key.kid: key for key in keys}
        if (key := known.get(header.get("kid", ""))) is None:
            raise NotGenuine(f"it names the key {header.get('kid')}, which is not among these: {', '.join(known)}")
        public = jwt.PyJWK(json_format.MessageToDict(key), ALGORITHM)
        claims = jwt.decode(
            signed, public, algorithms=[ALGORITHM], issuer=ISSUER,
            options={"require": ["iss", "iat", _CLAIM], "verify_iat": False},
        )  # fmt: skip
        receipt = json_format.ParseDict(claims[_CLAIM], billing_pb2.Receipt(), ignore_unknown_fields=True)
    except jwt.InvalidSignatureError:
        raise NotGenuine("it was changed after it was signed, or another key signed it") from None
    except (jwt.PyJWTError, json_format.ParseError, TypeError) as e:
        raise NotGenuine(f"it is no receipt: {e}") from None
    receipt.signed = signed
    return receipt


def recomputed(receipt: billing_pb2.Receipt) -> int | None:
    """What the price makes of units and rating, nanos; None of an answer from the cache whose receipt does not say
    which share of the price it costs, as older ones. Raises TooDear for what no call costs."""
    if receipt.test:
        return 0
    if "cache_hits" in receipt.units and not receipt.rating.HasField("share_ppm"):
        return None
    return pricing.cost(pricing.read(receipt.price), receipt.units, pricing.rated_of(receipt.rating))
