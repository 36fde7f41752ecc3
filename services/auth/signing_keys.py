"""What checks signatures of API keys' calls: public keys of Ed25519, and secrets of HMAC-SHA256, encrypted at rest."""

import logging
import secrets
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from mercat.auth.v1 import auth_pb2, keys_pb2

from services.auth.store import Row, Store
from services.common import ids
from services.common.db import Connection
from services.common.errors import InvalidFields, NotFound, ResourceExhausted, Violation
from services.common.sealing import Unsealable
from services.common.secrets.keyring import Keyring

log = logging.getLogger(__name__)
_MOST = 5  # of a key
_SECRET = 32  # bytes


class SigningKeys:
    """Makes them, and finds those of keys."""

    def __init__(self, store: Store, keyring: Keyring) -> None:
        self._store = store
        self._keyring = keyring

    async def add(
        self, c: Connection, key: Row, algorithm: int, public_key: bytes, now: datetime
    ) -> tuple[keys_pb2.SigningKey, bytes]:
        """One of a key, whose row is locked, and its secret, where it has one. Raises InvalidFields,
        ResourceExhausted."""
        secret, sealed, identifier = b"", None, ids.new("sgk")
        if algorithm == auth_pb2.SIGNATURE_ALGORITHM_ED25519:
            try:
                Ed25519PublicKey.from_public_bytes(public_key)
            except ValueError:
                problem = Violation("public_key", "must be the 32 bytes of a public key of Ed25519")
                raise InvalidFields(violations=[problem]) from None
        elif algorithm == auth_pb2.SIGNATURE_ALGORITHM_HMAC_SHA256:
            if public_key:
                raise InvalidFields(violations=[Violation("public_key", "HMAC has none; its secret is made here")])
            secret = secrets.token_bytes(_SECRET)
            sealed = await self._keyring.seal(c, owner_of(key), secret, about(identifier))
        else:
            raise InvalidFields(violations=[Violation("algorithm", "must be ED25519 or HMAC_SHA256")])
        if len(await self._store.list_signing_keys(c, key["id"], "", _MOST)) >= _MOST:
            raise ResourceExhausted(f"a key may have {_MOST} signing keys", reason="TOO_MANY_SIGNING_KEYS")
        row = await self._store.add_signing_key(
            c, id=identifier, key_id=key["id"], algorithm=algorithm, public_key=public_key or None,
            sealed_secret=sealed, now=now,
        )  # fmt: skip
        return message_of(row), secret

    async def delete(self, c: Connection, key_id: str, signing_key_id: str) -> keys_pb2.SigningKey:
        """Raises NotFound."""
        row = await self._store.delete_signing_key(c, key_id, signing_key_id)
        if row is None:
            raise NotFound("the key has no such signing key", reason="SIGNING_KEY_NOT_FOUND")
        return message_of(row)

    async def of(self, c: Connection, rows: Iterable[Row]) -> dict[str, list[auth_pb2.KeySigning.Key]]:
        """What signatures are checked with, by key, of resolved keys that sign."""
        found: dict[str, list[auth_pb2.KeySigning.Key]] = defaultdict(list)
        key_ids: Sequence[str] = [row["key_id"] for row in rows if row["signs"]]
        for row in await self._store.signing_keys_of(c, key_ids) if key_ids else []:
            key = row["public_key"]
            if key is None:
                try:
                    key = await self._keyring.open(c, owner_of(row), row["sealed_secret"], about(row["id"]))
                except Unsealable as e:  # of this key nothing is good any more; others of the answer are
                    log.warning("signing key %s: %s", row["id"], e)
                    continue
            found[row["key_id"]].append(
                auth_pb2.KeySigning.Key(signing_key_id=row["id"], algorithm=row["algorithm"], key=bytes(key))
            )
        return found


def owner_of(row: Row) -> str:
    """Whose data key seals what an API key's calls are checked with: of a key that is a person's, that person's."""
    return str(row["user_id"] or row["org_id"])


def about(signing_key_id: str) -> str:
    """What its secret is sealed as."""
    return f"signing-key/{signing_key_id}"


def message_of(row: Row) -> keys_pb2.SigningKey:
    """A signing key as its owner sees it."""
    key = keys_pb2.SigningKey(
        signing_key_id=row["id"], key_id=row["key_id"], algorithm=row["algorithm"], public_key=row["public_key"] or b""
    )
    key.created_at.FromDatetime(row["created_at"])
    return key
