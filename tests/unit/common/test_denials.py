"""Refused attempts: which are kept, and how many."""

import time
from typing import Any

import pytest
from mercat.auth.v1 import auth_pb2

from services.common.errors import (
    CredentialInvalid,
    CredentialMissing,
    MercatError,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    StepUpRequired,
)
from services.common.key_rules import AddressDenied
from services.common.rpc.context import Call
from services.common.rpc.denials import IN_ALL, OF_CALLER, OF_CHAIN, Denials

METHOD = "/mercat.auth.v1.AuthService/CreateApiKey"
SCOPE = PermissionDenied("no", reason="SCOPE_MISSING")


@pytest.fixture
def denials() -> Denials:
    return Denials(None)  # type: ignore[arg-type] - nothing is written here


def call(user: str = "usr_1", org: str = "org_1", address: str = "192.0.2.1", method: str = METHOD) -> Call:
    return Call("req_1", method, 0, auth_pb2.Principal(user_id=user, org_id=org), address, "agent")


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + seconds)


@pytest.mark.parametrize(
    ("error", "audited", "kept"),
    [
        (SCOPE, True, True),
        (SCOPE, False, False),
        (AddressDenied("no"), False, True),
        (CredentialInvalid("no"), True, True),
        (ResourceExhausted("no", reason="ACCOUNT_LOCKED"), True, True),
        (ResourceExhausted("no", reason="RATE_LIMITED"), True, False),
        (CredentialMissing("no"), True, False),
        (StepUpRequired("no"), True, False),
        (NotFound("no"), True, False),
    ],
)
def test_what_is_a_refusal(denials: Denials, error: MercatError, audited: bool, kept: bool) -> None:
    denials.note(call(), error, audited=audited)
    assert bool(denials.take()) == kept


def test_who_what_from_where_and_why(denials: Denials) -> None:
    denials.note(call(), SCOPE, audited=True)
    (event,) = denials.take()
    assert (event.user_id, event.org_id, event.ip_address, event.user_agent) == ("usr_1", "org_1", "192.0.2.1", "agent")
    assert (event.action, event.request_id) == (METHOD, "req_1")
    denied = {"reason": "SCOPE_MISSING", "code": "PERMISSION_DENIED", "attempts": "1"}
    assert dict(event.metadata["denied"].items()) == denied


def test_equal_attempts_of_a_minute_are_two_entries(denials: Denials, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(1000):
        denials.note(call(), SCOPE, audited=True)
    (first,) = denials.take()
    assert denials.take() == []
    later(monkeypatch, 61)
    (rest,) = denials.take()
    assert rest.metadata["denied"]["attempts"] == "999"
    assert rest.audit_id != first.audit_id
    later(monkeypatch, 61)
    assert denials.take() == []


@pytest.mark.parametrize(
    ("most", "vary"),
    [
        (OF_CALLER, lambda n: {"method": f"/m/{n}"}),
        (OF_CALLER, lambda n: {"user": "", "address": "192.0.2.1", "method": f"/m/{n}"}),
        (OF_CALLER, lambda n: {"user": "", "org": "", "address": f"2001:db8::{n:x}"}),  # one subscriber's network
        (OF_CHAIN, lambda n: {"user": f"usr_{n}"}),
        (OF_CHAIN, lambda n: {"user": "", "org": "", "address": f"192.0.{n >> 8}.{n & 255}"}),
        (IN_ALL, lambda n: {"user": f"usr_{n}", "org": f"org_{n}"}),
    ],
    ids=["a caller's", "an address's", "a network's", "an organisation's", "nobody's", "all"],
)
def test_a_minute_has_bounds(denials: Denials, monkeypatch: pytest.MonkeyPatch, most: int, vary: Any) -> None:
    for n in range(2000):
        denials.note(call(**vary(n)), SCOPE, audited=True)
    assert len(denials.take()) == most
    later(monkeypatch, 61)
    denials.note(call(**vary(0)), SCOPE, audited=True)
    assert len(denials.take()) == 1
