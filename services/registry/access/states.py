"""What becomes of an access when somebody asks and when somebody decides, and what identifies terms."""

import hashlib
import json

from mercat.registry.v1 import access_pb2, visibility_pb2

from services.common.errors import FailedPrecondition

REQUESTED = access_pb2.ACCESS_STATE_REQUESTED
GRANTED = access_pb2.ACCESS_STATE_GRANTED
DENIED = access_pb2.ACCESS_STATE_DENIED
REVOKED = access_pb2.ACCESS_STATE_REVOKED
_DECISIONS = {GRANTED: {REQUESTED, DENIED, REVOKED}, DENIED: {REQUESTED}, REVOKED: {GRANTED}}


class AccessState(FailedPrecondition, reason="ACCESS_STATE"):
    """The decision does not start from the state that the access is in."""


def name_of(state: int) -> str:
    """`ACCESS_STATE_GRANTED` as a person writes it: granted."""
    return access_pb2.AccessState.Name(state).removeprefix("ACCESS_STATE_").lower()  # type: ignore[arg-type]


def asked(state: int, approval: int, *, new: bool) -> int:
    """The state after a request. Who was turned away is looked at again by people, whatever the approval."""
    if not new and state != REQUESTED:
        return GRANTED if state == GRANTED else REQUESTED
    return GRANTED if approval == visibility_pb2.APPROVAL_AUTOMATIC else REQUESTED


def decided(state: int, to: int) -> int:
    """The state after a decision. Raises AccessState."""
    if state not in _DECISIONS[to]:  # type: ignore[index]
        raise AccessState(
            f"the access is {name_of(state)} and cannot be {name_of(to)}", metadata={"state": name_of(state)}
        )
    return to


def digest_of(gate: visibility_pb2.Gate) -> str:
    """Of its terms: their version, address and text; empty where there are none."""
    if not (gate.terms or gate.terms_url):
        return ""
    text = json.dumps([gate.terms_version, gate.terms_url, gate.terms], ensure_ascii=False, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
