"""Mail on its way: a row of the transaction that caused it, sent afterwards at least once."""

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from services.common import failpoints, ids
from services.common.clock import Clock
from services.common.db import Connection, Database, added_to_outbox, load_queries
from services.common.errors import MercatError
from services.common.mail.message import Mail, Undeliverable, compose, naming
from services.common.mail.transport import TIMEOUT, MailUnavailable, Transport
from services.common.metrics import Counter
from services.common.sealing import Unsealable
from services.common.secrets.keyring import Keyring

Row = Mapping[str, Any]
log = logging.getLogger(__name__)
MAILS = Counter("mercat_mails", "Mails that were sent, put off, or given up", ["kind", "outcome"])
_AT_ONCE = 10
_POLL = 3.0  # seconds; another process may have written it, and one that was put off becomes due
_CLAIM = timedelta(seconds=6 * TIMEOUT)  # longer than a sending can take
_LONGEST_WAIT = 600  # seconds between attempts


class MailOutbox:
    """Writes mail and sends it. Its table lies in the schema of the service."""

    def __init__(self, database: Database, transport: Transport, keyring: Keyring, clock: Clock, sender: str) -> None:
        self._database = database
        self._transport = transport
        self._keyring = keyring
        self._clock = clock
        self._sender = sender
        self._q = load_queries("services.common.mail")

    async def add(
        self, connection: Connection, mail: Mail, owner_id: str, lifetime: timedelta = timedelta(days=1)
    ) -> str:
        """Adds a mail to the transaction of `connection`, sealed under the key of its owner; its id. After `lifetime`
        it is not tried any more."""
        mail_id, now = ids.new("mail"), self._clock.now()
        plain = json.dumps([mail.to, dict(mail.values)]).encode()
        sealed = await self._keyring.seal(connection, owner_id, plain, about(mail_id))
        await self._q.add_mail(
            connection, id=mail_id, kind=mail.kind, owner_id=owner_id, sealed=sealed, now=now,
            expires_at=now + lifetime,
        )  # fmt: skip
        added_to_outbox(connection)  # whose relays wake when it commits, and `run` beside them
        return mail_id

    async def run(self) -> None:
        """Sends what is due, for ever."""
        wake = asyncio.Event()
        self._database.relays.append(wake)
        while True:
            try:
                while await self.send_some() == _AT_ONCE:
                    pass
            except MercatError as e:
                log.warning("mail waits: %s", e)
            try:
                await asyncio.wait_for(wake.wait(), _POLL)
            except TimeoutError:
                pass
            wake.clear()

    async def send_some(self) -> int:
        """Sends some of what is due; how many were taken."""
        now = self._clock.now()
        async with self._database.connection() as connection:
            rows = [r async for r in self._q.claim_mails(connection, now=now, until=now + _CLAIM, most=_AT_ONCE)]
        await asyncio.gather(*(self._send(row) for row in rows))
        return len(rows)

    async def _send(self, row: Row) -> None:
        mail_id, kind, now = row["id"], row["kind"], self._clock.now()
        outcome = "sent"
        try:
            if row["expires_at"] <= now:
                raise Undeliverable("it comes too late")
            async with self._database.connection() as connection:
                plain = await self._keyring.open(connection, row["owner_id"], row["sealed"], about(mail_id))
            to, values = json.loads(plain)
            message = compose(Mail(kind, to, values), sender=self._sender, mail_id=mail_id, at=now)
            await self._transport.send(message, to, mail_id)
            failpoints.passing("mail.sent")
        except MailUnavailable as e:
            wait = min(2 ** min(row["attempts"], 10), _LONGEST_WAIT)
            log.warning("%s (%s) is tried again in %d s: %s", mail_id, kind, wait, e)
            MAILS.labels(kind, "put_off").inc()
            async with self._database.connection() as connection:
                await self._q.put_off_mail(connection, id=mail_id, due_at=now + timedelta(seconds=wait))
            return
        except (Undeliverable, Unsealable) as e:
            log.warning("%s (%s) is given up: %s", mail_id, kind, e)
            outcome = "given_up"
        except Exception:
            log.exception("%s (%s) is tried again when its claim has run out", mail_id, kind)
            return
        async with self._database.connection() as connection:
            await self._q.end_mail(connection, id=mail_id)
        MAILS.labels(kind, outcome).inc()

    async def forget(self, connection: Connection, owner_id: str, address: str, names: Sequence[str]) -> None:
        """Takes back what was not sent yet of an owner's mail, and of others' what their address or names are in."""
        await self._q.end_mails_of(connection, owner_id=owner_id)
        wanted = naming([address, *names])
        async for row in self._q.list_mails(connection):
            try:
                plain = await self._keyring.open(connection, row["owner_id"], row["sealed"], about(row["id"]))
            except Unsealable:
                continue
            to, values = json.loads(plain)
            if any(wanted.search(text) for text in (to, *values.values())):
                await self._q.end_mail(connection, id=row["id"])

    async def forget_sent(self, address: str, names: Sequence[str]) -> None:
        """And what lies where mail goes, as far as that is here."""
        await self._transport.forget(naming([address, *names]))


def about(mail_id: str) -> str:
    """What a mail is sealed as."""
    return f"mail/{mail_id}"
