"""What is written by mail: codes, invitations, and that something of an account's was changed."""

from datetime import timedelta

from mercat.event.v1 import event_pb2

from services.auth.store import Row
from services.common.clock import Clock
from services.common.db import Connection
from services.common.mail.message import Mail
from services.common.mail.outbox import MailOutbox
from services.common.rpc.context import maybe_current


class Letters:
    """Each joins the transaction of what it is about. `user`: has `id`, `email` and `username`."""

    def __init__(self, outbox: MailOutbox, clock: Clock) -> None:
        self._outbox = outbox
        self._clock = clock

    async def code(self, connection: Connection, kind: str, user: Row, code: str, lifetime: timedelta) -> None:
        """A code that is of no use after `lifetime`."""
        values = {"username": user["username"], "code": code}
        await self._outbox.add(connection, Mail(kind, user["email"], values), user["id"], lifetime)

    async def invitation(
        self, connection: Connection, organisation: Row, inviter: Row | None, invitation: Row, code: str
    ) -> None:
        """`inviter`: None for a program."""
        values = {
            "organisation": organisation["display_name"] or organisation["handle"], "handle": organisation["handle"],
            "inviter": inviter["username"] if inviter is not None else "", "role": invitation["role"], "code": code,
            "expires": f"{invitation['expires_at']:%Y-%m-%d %H:%M}", "email": invitation["email"],
        }  # fmt: skip
        lifetime = invitation["expires_at"] - self._clock.now()
        await self._outbox.add(
            connection, Mail("invitation", invitation["email"], values), organisation["id"], lifetime
        )

    async def key_leaked(self, connection: Connection, user: Row, key: Row, *, whole: bool) -> None:
        """That somebody sent us a key's secret, so that the key has ended; not `whole`: that secret alone, which a
        rotation had replaced."""
        values = {
            "username": user["username"], "name": key["name"], "key_id": key["id"], "prefix": key["prefix"],
            "at": f"{self._clock.now():%Y-%m-%d %H:%M}", "whole": "yes" if whole else "",
        }  # fmt: skip
        await self._outbox.add(connection, Mail("key_leaked", user["email"], values), user["id"], timedelta(days=7))

    async def version_stopped(
        self, connection: Connection, user: Row, event: event_pb2.VersionQuarantined | event_pb2.VersionReviewed,
        what: str,
    ) -> None:  # fmt: skip
        """That a version of an organisation of theirs was `quarantined` or `rejected`, and why."""
        values = {
            "username": user["username"], "version": f"{event.model}@{event.version}", "reason": event.reason,
            "quarantined": "yes" if what == "quarantined" else "",
        }  # fmt: skip
        await self._outbox.add(
            connection, Mail("version_stopped", user["email"], values), user["id"], timedelta(days=7)
        )  # fmt: skip

    async def webhook_disabled(
        self, connection: Connection, user: Row, event: event_pb2.WebhookEndpointDisabled
    ) -> None:
        """That an endpoint of an organisation of theirs hears of nothing any more."""
        values = {
            "username": user["username"], "url": event.url, "endpoint_id": event.endpoint_id,
            "gone": "yes" if event.reason == "gone" else "",
            "since": f"{event.failing_since.ToDatetime():%Y-%m-%d %H:%M}",
        }  # fmt: skip
        await self._outbox.add(
            connection, Mail("webhook_disabled", user["email"], values), user["id"], timedelta(days=7)
        )

    async def access(self, connection: Connection, user: Row, event: event_pb2.ModelAccessChanged) -> None:
        """That an organisation asks for access to a gated model of theirs, or what was decided about their own."""
        asked = event.state == "requested"
        values = {
            "username": user["username"], "organisation": event.organisation, "model": event.model,
            "state": event.state, "said": event.message if asked else event.reason,
        }  # fmt: skip
        kind = "access_requested" if asked else "access_decided"
        await self._outbox.add(connection, Mail(kind, user["email"], values), user["id"], timedelta(days=7))

    async def changed(self, connection: Connection, user: Row, what: str, more: str = "") -> None:
        """That `what` happened, a sentence without its full stop, so that the owner hears of it if it was not them."""
        call = maybe_current()
        values = {
            "username": user["username"], "email": user["email"], "what": what, "more": more,
            "at": f"{self._clock.now():%Y-%m-%d %H:%M}", "address": call.address if call else "",
        }  # fmt: skip
        await self._outbox.add(connection, Mail("account_changed", user["email"], values), user["id"])
