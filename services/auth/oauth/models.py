"""Clients, devices and tokens, as the protocol asks for them. Read before it, so that it never waits."""

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from authlib.oauth2.rfc6749 import ClientMixin, TokenMixin
from authlib.oauth2.rfc8628 import DeviceCredentialMixin
from mercat.auth.v1 import auth_pb2

from services.auth.scopes import BY_ROLE
from services.auth.store import Row

CLIENT_CREDENTIALS, REFRESH = "client_credentials", "refresh_token"
DEVICE = "urn:ietf:params:oauth:grant-type:device_code"
CLI = "mercat-cli"
ALL = BY_ROLE[auth_pb2.ROLE_ADMIN]


def digest(secret: str) -> bytes:
    """What is stored. A plain hash suffices: secrets have more randomness than anybody can try while they are good."""
    return hashlib.sha256(secret.encode()).digest()


@dataclass(frozen=True)
class Client(ClientMixin):  # type: ignore[misc]
    """A program that gets tokens. `account_id`: the service account it acts as; empty: people let it act for them.
    `scopes`: what it may be given; None: all, of the platform's own command line."""

    client_id: str
    name: str
    org_id: str = ""
    account_id: str = ""
    secret_hash: bytes = b""
    scopes: frozenset[str] | None = None

    @classmethod
    def of(cls, row: Row) -> "Client":
        return cls(
            row["client_id"], row["name"], row["org_id"], row["principal_id"] or "", row["secret_hash"] or b"",
            frozenset(json.loads(row["scopes"])),
        )  # fmt: skip

    def get_client_id(self) -> str:
        return self.client_id

    def get_allowed_scope(self, scope: str | None) -> str:
        return scope or ""

    def check_client_secret(self, client_secret: str) -> bool:
        return hmac.compare_digest(self.secret_hash, digest(client_secret))

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        """Who has a secret shows it; who has none must not be believed for showing none."""
        return (method == "none") != bool(self.account_id)

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type in ((CLIENT_CREDENTIALS,) if self.account_id else (DEVICE, REFRESH))


COMMAND_LINE = Client(CLI, "Mercat's command line")


@dataclass(frozen=True)
class Device(DeviceCredentialMixin):  # type: ignore[misc]
    """A device that asks whether somebody let it in."""

    row: Mapping[str, Any]
    now: datetime

    def get_client_id(self) -> str:
        return str(self.row["client_id"])

    def get_scope(self) -> str:
        return " ".join(sorted(self.scopes or ()))

    def get_user_code(self) -> str:
        return ""  # known by its hash alone

    def is_expired(self) -> bool:
        return bool(self.row["expires_at"] <= self.now)

    @property
    def scopes(self) -> frozenset[str] | None:
        """None: all."""
        return scopes_of(self.row)

    def is_early(self) -> bool:
        polled: datetime | None = self.row["polled_at"]
        return polled is not None and self.now < polled + timedelta(seconds=self.row["interval_seconds"])


@dataclass(frozen=True)
class Token(TokenMixin):  # type: ignore[misc]
    """A token that somebody asks about: of a session, or of a client's own."""

    client_id: str
    session_id: str = ""
    user_id: str = ""
    token_id: str = ""
    expires_at: datetime | None = None
    scopes: frozenset[str] | None = None
    principal: auth_pb2.Principal | None = None

    def check_client(self, client: Client) -> bool:
        return self.client_id == client.client_id

    def get_scope(self) -> str:
        return " ".join(sorted(ALL if self.scopes is None else self.scopes))

    def is_expired(self) -> bool:
        return False  # such are not found

    def is_revoked(self) -> bool:
        return False


def scopes_of(row: Mapping[str, Any]) -> frozenset[str] | None:
    """None: all."""
    return None if row["scopes"] is None else frozenset(json.loads(row["scopes"]))
