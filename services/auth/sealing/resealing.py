"""Puts under keys of its owner what the installation's keys sealed themselves, before there were such for all of it."""

import logging

from services.auth import signing_keys
from services.common.db import Database, load_queries
from services.common.mail import outbox
from services.common.sealing import Sealer, Unsealable
from services.common.secrets.keyring import Keyring

log = logging.getLogger(__name__)


class Resealing:
    """Secrets of second factors and of signing keys, and mail on its way, which is of no known owner then."""

    def __init__(self, database: Database, keyring: Keyring, sealer: Sealer) -> None:
        self._database = database
        self._keyring = keyring
        self._sealer = sealer
        self._q = load_queries("services.auth.sealing")
        self._kinds = {
            "totp": self._q.reseal_totp, "signing_key": self._q.reseal_signing_key, "mail": self._q.reseal_mail,
        }  # fmt: skip

    async def run(self) -> None:
        """All there is; what cannot be opened any more is logged, and stays. Raises Unavailable."""
        async with self._database.connection() as connection:
            rows = [row async for row in self._q.sealed_directly(connection)]
        for row in rows:
            try:
                plain = self._sealer.open(row["sealed"], row["about"])
            except Unsealable as e:
                log.warning("%s %s: %s", row["kind"], row["id"], e)
                continue
            async with self._database.transaction() as connection:
                sealed = await self._keyring.seal(connection, row["owner_id"], plain, _about(row["kind"], row["id"]))
                put = self._kinds[row["kind"]]
                await put(connection, id=row["id"], owner_id=row["owner_id"], before=row["sealed"], sealed=sealed)
        if rows:
            log.info("%d secrets are under keys of their owners now", len(rows))


def _about(kind: str, identifier: str) -> str:
    if kind == "totp":
        return "totp"
    return signing_keys.about(identifier) if kind == "signing_key" else outbox.about(identifier)
