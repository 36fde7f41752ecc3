"""Whom somebody from elsewhere is here, and who elsewhere is."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.auth.identities import providers
from services.auth.identities.protocol import Found
from services.auth.identities.resolving import Way, usernames, way
from services.common.settings import SettingsError

ISSUER = "https://id.example"
VERIFIED, UNVERIFIED = {"is_verified": True}, {"is_verified": False}


def found(*, email: str = "a@x.example", verified: bool = True, owned: bool = True) -> Found:
    return Found(ISSUER, "1", email, verified, owned)


@pytest.mark.parametrize(
    ("who", "linked", "account", "expected"),
    [
        (found(), True, None, Way.SIGN_IN),
        (found(email="", owned=False), True, UNVERIFIED, Way.SIGN_IN),
        (found(email="", owned=False), False, None, Way.UNKNOWN),
        (found(verified=False, owned=False), False, None, Way.CREATE),
        (found(), False, None, Way.CREATE),
        (found(), False, VERIFIED, Way.LINK),
        (found(), False, UNVERIFIED, Way.PROVE),
        (found(owned=False), False, VERIFIED, Way.PROVE),
        (found(verified=False, owned=False), False, VERIFIED, Way.PROVE),
    ],
)
def test_an_account_is_given_to_no_address_alone(
    who: Found, linked: bool, account: dict[str, bool] | None, expected: Way
) -> None:
    assert way(who, linked, account) is expected


@given(st.text(max_size=80), st.text(max_size=80))
def test_usernames_are_usernames(username: str, local: str) -> None:
    who = Found(ISSUER, "1", f"{local}@x.example", username=username)
    names = usernames(who, {"admin"}.__contains__)
    assert len(set(names)) >= 3
    for name in names:
        assert re.fullmatch(r"[a-z0-9](?:[a-z0-9-]{0,37}[a-z0-9])?", name)
    assert "admin" not in usernames(Found(ISSUER, "1", "x@x", username="Admin"), {"admin"}.__contains__)


def test_providers_are_read_with_their_presets() -> None:
    listed = [
        {"id": "google", "client_id": "g", "client_secret": "s", "trusted": True},
        {"id": "github", "client_id": "h", "client_secret": "s"},
        {"id": "acme", "client_id": "a", "issuer": "https://id.acme.example", "scopes": ["openid", "email", "groups"]},
    ]
    read = providers.read(json.dumps(listed))
    assert list(read) == ["google", "github", "acme"]
    assert (read["google"].issuer, read["google"].name) == ("https://accounts.google.com", "Google")
    assert (read["github"].kind, read["github"].asked) == ("github", "read:user user:email")
    assert (read["acme"].name, read["acme"].asked, read["acme"].trusted) == ("acme", "openid email groups", False)
    assert "s" not in repr(read["google"].client_secret) or "client_secret" not in repr(read["google"])
    assert providers.read("") == {}


@pytest.mark.parametrize(
    "text",
    ["{", "{}x", "1", '[{"id": "acme"}]', '[{"id": "Acme", "client_id": "a", "issuer": "https://x"}]',
     '[{"id": "acme", "client_id": "a", "issuer": "http://id.example"}]',
     '[{"id": "acme", "client_id": "a", "issuer": "https://id.example?x=1"}]',
     '[{"id": "acme", "client_id": "a", "issuer": "https://id.example", "color": "red"}]', "[1]"],
)  # fmt: skip
def test_what_is_no_provider_is_refused_at_the_start(text: str) -> None:
    with pytest.raises(SettingsError, match="MERCAT_IDENTITY_PROVIDERS"):
        providers.read(text)
