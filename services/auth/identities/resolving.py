"""Whom somebody from elsewhere is here. Pure.

An account is never given to an address alone. Who is linked signs in; who is not and has no account gets one; where
there is an account of the same address, it is theirs only if the provider owns the address and the account's was
verified: an account whose address nobody verified may have been made by anybody, in wait for its owner, and so may a
provider's record of an address that is not its own (Sudhodanan and Paverd, Pre-hijacked accounts, USENIX Security
2022)."""

import re
import secrets
from collections.abc import Callable
from enum import Enum

from services.auth.identities.protocol import Found
from services.auth.store import Row

_LONGEST = 39


class Way(Enum):
    SIGN_IN = "sign in"  # as whom it is linked with
    LINK = "link"  # with the account of its address, and sign in
    CREATE = "create"  # an account
    PROVE = "prove"  # first that the account of its address is theirs
    UNKNOWN = "unknown"  # without an address there is no account


def way(found: Found, linked: bool, account: Row | None) -> Way:
    """`account`: the user who has the address, if anybody."""
    if linked:
        return Way.SIGN_IN
    if not found.email:
        return Way.UNKNOWN
    if account is None:
        return Way.CREATE
    return Way.LINK if found.owned and account["is_verified"] else Way.PROVE


def usernames(found: Found, reserved: Callable[[str], bool]) -> list[str]:
    """Names for a new account, the nicest first; the later ones are hardly anybody's."""
    nice = re.sub(r"[^a-z0-9]+", "-", (found.username or found.email.partition("@")[0]).lower())
    nice = nice[: _LONGEST - 7].strip("-") or "user"
    numbered = [f"{nice}-{secrets.token_hex(3)}" for _ in range(3)]
    return numbered if reserved(nice) else [nice, *numbered]
