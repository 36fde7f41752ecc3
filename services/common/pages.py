"""Opaque page tokens: the sort key of the last row, so that a page is stable while rows come and go."""

import base64
import binascii
import json
from collections.abc import Sequence

from services.common.errors import InvalidFields, Violation

MOST = 1000


def size(requested: int, default: int = 50) -> int:
    """Rows of a page: what was asked for, `default` when nothing was, at most 1,000."""
    return min(requested or default, MOST)


def encode(key: Sequence[str | int]) -> str:
    """The token of the page after the row with this sort key."""
    return base64.urlsafe_b64encode(json.dumps(list(key)).encode()).decode().rstrip("=")


def decode(token: str, *kinds: type) -> list[str | int] | None:
    """The sort key in a token; None for the first page. Raises InvalidFields for a token nobody here made."""
    if not token:
        return None
    try:
        key = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except (ValueError, binascii.Error):
        key = None
    if not isinstance(key, list) or [type(k) for k in key] != list(kinds) or not all(map(_storable, key)):
        raise InvalidFields(violations=[Violation("page_token", "is not a token of this list; start without one")])
    return key


def _storable(value: str | int) -> bool:
    """Whether PostgreSQL has such a text or bigint: not so for NUL, lone surrogates and larger numbers."""
    return value.isprintable() if isinstance(value, str) else -(2**63) <= value < 2**63
