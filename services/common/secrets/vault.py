"""HashiCorp Vault, or OpenBao: secrets of its KV engine (version 2), and keys of its transit engine, which never leave
it.

Where it is and who asks are the variables that Vault's own programs know: VAULT_ADDR, VAULT_CACERT, VAULT_NAMESPACE;
VAULT_TOKEN, or a token in the file VAULT_TOKEN_FILE, or VAULT_ROLE_ID with VAULT_SECRET_ID."""

import base64
import os
from collections.abc import Mapping

import hvac
import requests
from hvac.exceptions import VaultError

from services.common.secrets.sources import FileSource, SecretUnavailable, Source

_TIMEOUT = 5  # seconds
_MOUNT = "secret"


def client(environment: Mapping[str, str] = os.environ) -> hvac.Client:
    """A client that has signed in. Raises SecretUnavailable."""
    url = environment.get("VAULT_ADDR", "")
    if not url:
        raise SecretUnavailable("VAULT_ADDR is not set")
    opened = hvac.Client(
        url=url, token=_token(environment), timeout=_TIMEOUT, namespace=environment.get("VAULT_NAMESPACE"),
        verify=environment.get("VAULT_CACERT") or True,
    )  # fmt: skip
    role = environment.get("VAULT_ROLE_ID", "")
    if role and not opened.token:
        with _told():
            opened.auth.approle.login(role_id=role, secret_id=environment.get("VAULT_SECRET_ID", ""))
    if not opened.token:
        raise SecretUnavailable("Vault knows nobody here: set VAULT_TOKEN, VAULT_TOKEN_FILE or VAULT_ROLE_ID")
    return opened


def _token(environment: Mapping[str, str]) -> str | None:
    if token := environment.get("VAULT_TOKEN", ""):
        return token
    file = environment.get("VAULT_TOKEN_FILE", "")
    return FileSource().get(file) if file else None


class _told:  # noqa: N801 - reads as a statement
    """Makes SecretUnavailable of what goes wrong between here and Vault, without what was sent."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, VaultError):
            raise SecretUnavailable(f"Vault refuses: {type(error).__name__}") from None
        if isinstance(error, (requests.RequestException, KeyError, TypeError)):
            raise SecretUnavailable(f"Vault does not answer as it should: {type(error).__name__}") from None


class VaultSource(Source):
    """`PATH#FIELD` of a KV engine mounted at `secret`, or `MOUNT:PATH#FIELD` of another."""

    def __init__(self, opened: hvac.Client) -> None:
        self._client = opened

    @classmethod
    def connect(cls) -> "VaultSource":
        return cls(client())

    def get(self, name: str) -> str:
        place, _, field = name.partition("#")
        mount, colon, path = place.partition(":")
        if not colon:
            mount, path = _MOUNT, place
        with _told():
            answer = self._client.secrets.kv.v2.read_secret_version(
                path=path, mount_point=mount, raise_on_deleted_version=True
            )
            found = answer["data"]["data"]
        value = found.get(field or "value") if isinstance(found, dict) else None
        if not isinstance(value, str) or not value:
            raise SecretUnavailable(f"Vault has no field {field or 'value'} at {place}")
        return value


class Transit:
    """One key of the transit engine. Vault is asked for each: who uses it keeps what it unwrapped."""

    def __init__(self, opened: hvac.Client, key: str) -> None:
        self._client = opened
        self.key = key

    def newest(self) -> int:
        """The version that encrypts. Raises SecretUnavailable, as all others."""
        with _told():
            return int(self._client.secrets.transit.read_key(name=self.key)["data"]["latest_version"])

    def encrypt(self, plain: bytes) -> bytes:
        with _told():
            text = base64.b64encode(plain).decode()
            answer = self._client.secrets.transit.encrypt_data(name=self.key, plaintext=text)
            return str(answer["data"]["ciphertext"]).encode()

    def decrypt(self, sealed: bytes) -> bytes:
        with _told():
            answer = self._client.secrets.transit.decrypt_data(name=self.key, ciphertext=sealed.decode("ascii"))
            return base64.b64decode(answer["data"]["plaintext"])

    def rotate(self) -> None:
        with _told():
            self._client.secrets.transit.rotate_key(name=self.key)
