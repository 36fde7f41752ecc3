"""Data keys: AES-256-GCM, one for each owner and time, wrapped under the installation's. Their table `data_keys` lies
in the schema of the service whose secrets they seal.

Whoever deletes an owner's keys has made everything unreadable that was sealed for it, wherever copies of it lie."""

import os
from collections import OrderedDict

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from services.common.clock import Clock
from services.common.db import Connection, load_queries, rows_affected
from services.common.sealing import Unsealable
from services.common.secrets.wrapping import Wrapper

MAGIC = b"mdk1"  # what is sealed by a data key begins so
_VERSION, _NONCE = 4, 12  # octets
_KEPT = 10_000  # unwrapped keys that are remembered
_BATCH = 200


class Keyring:
    """Seals and opens within the transaction of the connection given."""

    def __init__(self, wrapper: Wrapper, clock: Clock) -> None:
        self._wrapper = wrapper
        self._clock = clock
        self._q = load_queries("services.common.secrets")
        # By its wrapped form, which only the table has: a key that is shredded is of no use here either.
        self._known: OrderedDict[tuple[str, bytes], AESGCM] = OrderedDict()

    async def seal(self, c: Connection, owner_id: str, plain: bytes, about: str) -> bytes:
        """Seals with the owner's newest key, made on first use. `about` must be the same to open it. Raises
        Unavailable when the installation's keys cannot be had."""
        row = await self._q.newest_data_key(c, owner_id=owner_id)
        if row is None:
            row = await self._add(c, owner_id, 1)
        version = int(row["version"])
        key, nonce = await self._unwrapped(owner_id, version, row["wrapped"]), os.urandom(_NONCE)
        head = MAGIC + version.to_bytes(_VERSION, "big")
        return head + nonce + key.encrypt(nonce, plain, head + f"{owner_id}/{about}".encode())

    async def open(self, c: Connection, owner_id: str, sealed: bytes, about: str) -> bytes:
        """Raises Unsealable: it was altered, belongs elsewhere, or the owner's keys were shredded; Unavailable."""
        head, rest = sealed[: len(MAGIC) + _VERSION], sealed[len(MAGIC) + _VERSION :]
        if not sealed.startswith(MAGIC) or len(head) < len(MAGIC) + _VERSION:
            raise Unsealable(f"{about} was not sealed by a data key")
        version = int.from_bytes(head[len(MAGIC) :], "big")
        row = await self._q.get_data_key(c, owner_id=owner_id, version=version) if version < 2**31 else None
        if row is None:
            raise Unsealable(f"the key of {owner_id} is gone, and {about} with it")
        key = await self._unwrapped(owner_id, version, row["wrapped"])
        try:
            return key.decrypt(rest[:_NONCE], rest[_NONCE:], head + f"{owner_id}/{about}".encode())
        except (InvalidTag, ValueError):
            raise Unsealable(f"{about} was altered, or is of another key") from None

    async def renew(self, c: Connection, owner_id: str) -> int:
        """Gives an owner a new key, which seals from now on; those of before still open. Its version."""
        row = await self._q.newest_data_key(c, owner_id=owner_id)
        return int((await self._add(c, owner_id, int(row["version"]) + 1 if row else 1))["version"])

    async def shred(self, c: Connection, owner_id: str) -> int:
        """Deletes all keys of an owner; how many there were."""
        return rows_affected(await self._q.shred_data_keys(c, owner_id=owner_id))

    async def rewrap(self, c: Connection) -> int:
        """Wraps some of the keys that are not under the installation's newest key under that; how many. What they
        seal stays as it is. A key that nothing opens any more is left, and keeps its old name in `count`."""
        under, done = await self._wrapper.under(), 0
        rows = [row async for row in self._q.data_keys_to_rewrap(c, under=under, most=_BATCH)]
        for row in rows:
            about = _about(row["owner_id"], row["version"])
            wrapped = await self._wrapper.wrap(await self._wrapper.unwrap(row["wrapped"], about), about)
            await self._q.rewrap_data_key(
                c, owner_id=row["owner_id"], version=row["version"], wrapped=wrapped, under=under
            )
            done += 1
        return done

    async def count(self, c: Connection) -> dict[str, int]:
        """How many data keys are under which of the installation's."""
        return {row["under"]: row["keys"] async for row in self._q.count_data_keys(c)}

    async def _add(self, c: Connection, owner_id: str, version: int) -> "dict[str, int | bytes]":
        wrapped = await self._wrapper.wrap(AESGCM.generate_key(256), _about(owner_id, version))
        made = await self._q.add_data_key(
            c, owner_id=owner_id, version=version, wrapped=wrapped, under=await self._wrapper.under(),
            now=self._clock.now(),
        )  # fmt: skip
        if made is None:  # and committed: the insertion waited for that
            row = await self._q.get_data_key(c, owner_id=owner_id, version=version)
            if row is None:
                raise Unsealable(f"the key of {owner_id} was made and shredded at once")
            return dict(row)
        return {"version": version, "wrapped": wrapped}

    async def _unwrapped(self, owner_id: str, version: int, wrapped: object) -> AESGCM:
        assert isinstance(wrapped, bytes)
        name = (_about(owner_id, version), wrapped)
        key = self._known.get(name)
        if key is None:
            key = self._known[name] = AESGCM(await self._wrapper.unwrap(wrapped, name[0]))
            if len(self._known) > _KEPT:
                self._known.popitem(last=False)
        return key


def _about(owner_id: str, version: int) -> str:
    return f"data-key/{owner_id}/{version}"
