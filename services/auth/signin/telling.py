"""By mail, what organisations must know of what others did: each once, in the transaction that notes it as handled."""

from google.protobuf.message import Message
from mercat.event.v1 import event_pb2

from services.auth.organisations.roles import standing
from services.auth.scopes import OWNER
from services.auth.signin.letters import Letters
from services.auth.store import Row, Store
from services.common.db import Connection

KINDS: list[type[Message]] = [
    event_pb2.WebhookEndpointDisabled, event_pb2.VersionQuarantined, event_pb2.VersionReviewed,
    event_pb2.ModelAccessChanged,
]  # fmt: skip
_DECIDES = "models:write"  # about access


class Telling:
    """Whom to write to is known here alone: events carry no addresses, and no mail names one of the other side."""

    def __init__(self, users: Store, letters: Letters) -> None:
        self._users = users
        self._letters = letters

    async def tell(self, connection: Connection, event: Message) -> None:
        org_id = str(getattr(event, "org_id", ""))
        if isinstance(event, event_pb2.ModelAccessChanged):
            await self._access(connection, event)
            return
        for owner in await self._users.list_owners(connection, org_id):
            if isinstance(event, event_pb2.WebhookEndpointDisabled):
                await self._letters.webhook_disabled(connection, owner, event)
            elif isinstance(event, event_pb2.VersionQuarantined):
                await self._letters.version_stopped(connection, owner, event, "quarantined")
            elif isinstance(event, event_pb2.VersionReviewed) and not event.approved:
                await self._letters.version_stopped(connection, owner, event, "rejected")

    async def _access(self, connection: Connection, event: event_pb2.ModelAccessChanged) -> None:
        """A request to all who may decide about it; a decision to who had asked, and where that was a program, or
        somebody who is there no more, to the owners."""
        if not event.news:
            return
        people = await self._users.list_people(connection, event.org_id)
        if event.state == "requested":
            hearers = [p for p in people if _DECIDES in standing(p)[1]]
        else:
            hearers = [p for p in people if p["id"] == event.requested_by] or _owners(people)
        for person in hearers:
            await self._letters.access(connection, person, event)


def _owners(people: list[Row]) -> list[Row]:
    return [p for p in people if p["member_role"] == OWNER]
