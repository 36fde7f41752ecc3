"""Passwords: argon2id by RFC 9106's low-memory profile, off the event loop, a few at a time."""

import asyncio

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.profiles import RFC_9106_LOW_MEMORY

_hasher = PasswordHasher.from_parameters(RFC_9106_LOW_MEMORY)
_slots = asyncio.Semaphore(2)  # each takes 64 MiB and all of a core
# Checked when the account does not exist, so that the time of an answer does not say whether it does.
_NOBODY = _hasher.hash("nobody's password")


async def hash_password(password: str) -> str:
    async with _slots:
        return await asyncio.to_thread(_hasher.hash, password)


async def verify_password(password_hash: str | None, password: str) -> bool:
    """Whether it is the password; as slow, and false, for no hash."""
    async with _slots:
        matches = await asyncio.to_thread(_verify, password_hash or _NOBODY, password)
    return matches and password_hash is not None


def _verify(password_hash: str, password: str) -> bool:
    try:
        return _hasher.verify(password_hash, password)
    except (VerificationError, InvalidHashError):
        return False
