"""Idempotency keys: the first answer of a mutating call is kept for 24 hours and given to every repetition.

A claimed key also keeps the call's request id. A process holds the claims of its calls by renewing them; when it dies,
they run out within seconds and a repetition runs under the same request id, which is what makes the second metering or
posting of it fall away."""

import asyncio
import hashlib
import json
import logging
import os
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.rpc import status_pb2

from services.common.clock import Clock
from services.common.db import Database, load_queries
from services.common.errors import (
    IdempotencyKeyReused,
    IdempotencyKeyRunning,
    InvalidFields,
    MercatError,
    Violation,
    from_status,
    to_status,
)

queries = load_queries("services.common")
log = logging.getLogger(__name__)
KEPT = timedelta(hours=24)
_HELD = timedelta(seconds=6)  # that a claim lives without renewal
_RENEW = 2.0  # seconds
MAX_KEY = 255


@dataclass(frozen=True)
class Answer:
    """What a call ended with: the reply's bytes or an error, and its trailers."""

    body: bytes
    error: MercatError | None
    trailers: list[tuple[str, str]]


@dataclass(frozen=True)
class Claim:
    """A key that is ours to answer, or its first answer."""

    request_id: str
    answer: Answer | None
    key_hash: bytes
    secret: bytes


class IdempotencyKeys:
    """The keys of one service's calls."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._held: set[bytes] = set()

    async def claim(self, scope: str, key: str, method: str, body: bytes, request_id: str) -> Claim:
        """Takes the key until `answer`, or answers what it was answered before.

        Raises:
            InvalidFields: the key is not 1 to 255 printable characters.
            IdempotencyKeyReused: the first call was another method or body.
            IdempotencyKeyRunning: the first call has not ended; comes with a retry hint.
        """
        if not key or len(key) > MAX_KEY or not key.isprintable():
            raise InvalidFields(violations=[Violation("idempotency-key", f"1 to {MAX_KEY} printable characters")])
        named = f"{scope}\0{key}".encode()
        key_hash, secret = hashlib.sha256(b"row" + named).digest(), hashlib.sha256(b"answer" + named).digest()
        body_hash = hashlib.sha256(method.encode() + b"\0" + body).digest()
        now = self._clock.now()
        async with self._database.connection() as connection:
            row = await queries.claim_key(
                connection, key_hash=key_hash, body_hash=body_hash, request_id=request_id,
                locked_until=now + _HELD, now=now,
            )  # fmt: skip
            if row is not None:
                self._held.add(key_hash)
                return Claim(row["request_id"], None, key_hash, secret)
            row = await queries.get_key(connection, key_hash=key_hash)
        if row is None:  # forgotten between the two statements
            raise IdempotencyKeyRunning("this idempotency key is just expiring", retry_after=1)
        if bytes(row["body_hash"]) != body_hash:
            raise IdempotencyKeyReused("this idempotency key was used with another request; use a new key")
        if row["answer"] is None:
            locked: datetime = row["locked_until"]
            wait = min(max((locked - now).total_seconds(), 0.05), 1.0)
            raise IdempotencyKeyRunning("the first call with this idempotency key has not ended", retry_after=wait)
        return Claim(row["request_id"], _decode(bytes(row["answer"]), secret), key_hash, secret)

    async def answer(self, claim: Claim, answer: Answer) -> None:
        """Keeps a final answer; one that a repetition might better is not kept, and the key is free again."""
        self._held.discard(claim.key_hash)
        async with self._database.connection() as connection:
            if answer.error is not None and answer.error.retryable:
                await queries.release_key(connection, key_hash=claim.key_hash, now=self._clock.now())
            else:
                sealed = _encode(answer, claim.secret)
                await queries.answer_key(connection, key_hash=claim.key_hash, answer=sealed)

    async def hold(self) -> None:
        """Renews the claims of calls under way, for ever."""
        while True:
            await asyncio.sleep(_RENEW)
            if self._held:
                try:
                    async with self._database.connection() as connection:
                        until = self._clock.now() + _HELD
                        await queries.hold_keys(connection, key_hashes=list(self._held), locked_until=until)
                except MercatError as e:
                    log.warning("%d idempotency keys could not be held: %s", len(self._held), e)

    async def forget(self) -> None:
        """Drops keys past their 24 hours."""
        async with self._database.connection() as connection:
            await queries.forget_keys(connection, before=self._clock.now() - KEPT)


def _encode(answer: Answer, secret: bytes) -> bytes:
    error = to_status(answer.error).SerializeToString() if answer.error else b""
    head = json.dumps([answer.error is not None, len(error), answer.trailers]).encode()
    nonce = os.urandom(12)
    return nonce + AESGCM(secret).encrypt(nonce, len(head).to_bytes(4, "big") + head + error + answer.body, None)


def _decode(sealed: bytes, secret: bytes) -> Answer:
    plain = AESGCM(secret).decrypt(sealed[:12], sealed[12:], None)
    start = 4 + int.from_bytes(plain[:4], "big")
    failed, length, trailers = json.loads(plain[4:start])
    error = from_status(status_pb2.Status.FromString(plain[start : start + length])) if failed else None
    return Answer(plain[start + length :], error, [(k, v) for k, v in trailers])
