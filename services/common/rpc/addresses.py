"""The caller's network address: what the front door saw, or the web edge behind it; else the peer's.

Neither is taken on a header's word, since whoever reaches a process beside the front door can write any. The front door
adds `mercat-internal-door`, which outsiders cannot send through it: a token and the address. The web edge's calls
pass the front door, which would take such a header away, so it sends `mercat-edge`, which nobody without the
installation's internal token can make and which is good for a minute."""

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from typing import Any

DOOR_KEY = "mercat-internal-door"
EDGE_KEY = "mercat-edge"
_GOOD = 60.0  # seconds


def door_token(internal_token: str) -> str:
    """What the front door is given to prove itself by: of no use for anything else. Empty for no token."""
    return _derived(internal_token, b"front door").hex() if internal_token else ""


class Edge:
    """Says and reads what the web edge knows of a request. Both sides have the installation's internal token."""

    def __init__(self, internal_token: str) -> None:
        self._key = _derived(internal_token, b"web edge") if internal_token else b""

    def say(self, known: Mapping[str, Any]) -> str:
        """The value of `mercat-edge` for what is known, plain JSON."""
        body = json.dumps({**known, "at": time.time()}).encode()
        return base64.b64encode(hmac.digest(self._key, body, "sha256") + body).decode()

    def read(self, value: str) -> dict[str, Any] | None:
        """What was said; None for what the web edge did not say in the last minute."""
        if not self._key:
            return None
        try:
            raw = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            return None
        if not hmac.compare_digest(hmac.digest(self._key, raw[32:], "sha256"), raw[:32]):
            return None
        said: dict[str, Any] = json.loads(raw[32:])
        return said if abs(time.time() - said["at"]) <= _GOOD else None


class Addresses:
    """Reads the caller's address from a call's metadata."""

    def __init__(self, internal_token: str) -> None:
        self._token = door_token(internal_token).encode()
        self.edge = Edge(internal_token)

    def door(self, metadata: Mapping[str, str | bytes]) -> str:
        """The address that the front door saw; empty when the call did not come through it."""
        token, _, address = str(metadata.get(DOOR_KEY, "")).partition(" ")
        return address if self._token and hmac.compare_digest(token.encode(), self._token) else ""

    def of(self, metadata: Mapping[str, str | bytes], peer: str) -> str:
        """`peer`: as gRPC names it, `ipv4:127.0.0.1:4711`. `local` for a socket in a folder."""
        if EDGE_KEY in metadata and (said := self.edge.read(str(metadata[EDGE_KEY]))) is not None:
            return str(said["address"])
        if seen := self.door(metadata):
            return seen
        kind, _, rest = peer.partition(":")
        return rest.rpartition(":")[0].strip("[]") if kind in ("ipv4", "ipv6") else "local"


def _derived(internal_token: str, purpose: bytes) -> bytes:
    return hmac.digest(internal_token.encode(), purpose, hashlib.sha256)
