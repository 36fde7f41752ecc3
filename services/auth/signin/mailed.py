"""Codes that come by mail: one use, an end, and so many an hour."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from services.auth import codes
from services.auth.signin.letters import Letters
from services.auth.signin.store import SignInStore
from services.auth.store import Row
from services.common.clock import Clock
from services.common.db import Connection
from services.common.errors import InvalidFields, Violation

_HOUR, _AN_HOUR = timedelta(hours=1), 3


@dataclass(frozen=True)
class Purpose:
    """What a code is for: its name in the table, its letter, and how long it is good."""

    name: str
    lifetime: timedelta
    again: str


VERIFY = Purpose("verify_email", timedelta(hours=24), "`mercat verify --resend`")
RESET = Purpose("reset_password", timedelta(minutes=30), "`mercat password forgot EMAIL`")


class MailedCodes:
    """Sends codes and takes them."""

    def __init__(self, store: SignInStore, letters: Letters, clock: Clock) -> None:
        self._store = store
        self._letters = letters
        self._clock = clock

    async def send(self, connection: Connection, purpose: Purpose, user: Row) -> datetime | None:
        """Sends a code to the user's address. Their row must be locked. None: it was sent; else when the next one may
        be, since there were three within the hour."""
        now = self._clock.now()
        sent = await self._store.list_codes(connection, user["id"], purpose.name, now - _HOUR)
        if len(sent) >= _AN_HOUR:
            return sent[-_AN_HOUR] + _HOUR
        code = codes.generate()
        await self._store.add_code(
            connection, codes.digest(code), purpose.name, user["id"], user["email"], now, now + purpose.lifetime
        )
        await self._letters.code(connection, purpose.name, user, code, purpose.lifetime)
        return None

    async def find(self, connection: Connection, purpose: Purpose, code: str) -> Row:
        """Whose a code is, which stays good. Raises InvalidFields when it is not."""
        row = await self._store.find_code(connection, codes.digest(code), purpose.name, self._clock.now())
        if row is None:
            raise _unknown(purpose)
        return row

    async def take(self, connection: Connection, purpose: Purpose, code: str) -> Row:
        """Uses up a code, and every other of its purpose that the user has: (user_id, email). Raises InvalidFields for
        one that is unknown, used or expired."""
        row = await self._store.take_code(connection, codes.digest(code), purpose.name, self._clock.now())
        if row is None:
            raise _unknown(purpose)
        await self._store.end_codes(connection, row["user_id"], purpose.name)
        return row


def _unknown(purpose: Purpose) -> InvalidFields:
    problem = f"is unknown, used or expired; check that it is all there, or get another with {purpose.again}"
    return InvalidFields(violations=[Violation("code", problem)])
