"""Accepts the codes of a second factor, each once."""

import logging

from services.auth import codes
from services.auth.mfa import totp
from services.auth.mfa.store import FactorStore
from services.auth.signin.letters import Letters
from services.auth.store import Row
from services.common.clock import Clock
from services.common.db import Connection
from services.common.errors import Unauthenticated
from services.common.sealing import Unsealable
from services.common.secrets.keyring import Keyring

log = logging.getLogger(__name__)


class SecondFactorWrong(Unauthenticated, reason="SECOND_FACTOR_WRONG"):
    """Not a code of the account's second factor, or one that was used."""


class SecondFactors:
    """The secrets of authenticator apps, and recovery codes."""

    def __init__(self, store: FactorStore, keyring: Keyring, letters: Letters, clock: Clock) -> None:
        self._store = store
        self._keyring = keyring
        self._letters = letters
        self._clock = clock

    async def accept(self, connection: Connection, user: Row, code: str) -> None:
        """Uses a code up within the transaction of `connection`: of many that bring the same one at once, one is let
        in. A recovery code that is used is told by mail. Raises SecondFactorWrong."""
        user_id, digits = user["id"], code.replace(" ", "")
        if digits.isascii() and digits.isdigit() and len(digits) == 6:
            if not await self._accept_totp(connection, user_id, digits):
                raise SecondFactorWrong("the code is wrong or was used already; wait for the next one")
            return
        if not await self._store.use_recovery_code(connection, user_id, codes.digest(code)):
            raise SecondFactorWrong("the code is wrong: send the 6 digits of your app, or a recovery code not used yet")
        left = await self._store.count_recovery_codes(connection, user_id)
        await self._letters.changed(
            connection, user, "A recovery code was used in place of your second factor",
            f"{left} are left; make new ones with `mercat mfa codes`.",
        )  # fmt: skip

    async def _accept_totp(self, connection: Connection, user_id: str, code: str) -> bool:
        row = await self._store.get_totp(connection, user_id)
        if row is None or row["confirmed_at"] is None:
            return False
        try:
            secret = await self.open(connection, user_id, row)
        except Unsealable as e:
            log.warning("second factor of %s: %s", user_id, e)
            return False  # recovery codes still work
        step = totp.step_of(secret, code, self._clock.now(), row["last_step"])
        return step is not None and await self._store.use_step(connection, user_id, row["sealed_secret"], step)

    async def seal(self, connection: Connection, user_id: str, secret: str) -> bytes:
        return await self._keyring.seal(connection, user_id, secret.encode(), "totp")

    async def open(self, connection: Connection, user_id: str, row: Row) -> str:
        """The secret. Raises Unsealable when its key is gone."""
        return (await self._keyring.open(connection, user_id, row["sealed_secret"], "totp")).decode()
