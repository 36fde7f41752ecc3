"""Auth's part of exports and erasures."""

from collections.abc import AsyncIterator

from mercat.storage.v1 import storage_pb2, storage_pb2_grpc

from services.auth.privacy.marks import Marks
from services.auth.privacy.store import PrivacyStore
from services.common.db import Database
from services.common.mail.outbox import MailOutbox
from services.common.personal.data import Person, Tables
from services.common.rpc.channels import InternalChannel
from services.common.sealing import Unsealable
from services.common.secrets.keyring import Keyring

_FILES = (
    "profile", "sessions", "identities", "passkeys", "second_factor", "api_keys", "signing_keys",
    "organisations", "roles", "teams", "team_memberships", "sso_connections", "sso_domains", "invitations",
    "service_accounts", "oauth_clients", "consents", "audit_entries",
)  # fmt: skip
# The user's own row last: by its address others find what is theirs.
_ERASING = (
    "erase_failures", "erase_failures_of_places", "erase_invitations", "erase_identities", "erase_identity_attempts",
    "erase_consents", "erase_passkeys", "erase_passkey_challenges", "erase_totp", "erase_device_codes",
    "erase_mail_codes", "erase_refresh_tokens", "erase_sessions", "erase_signing_keys", "erase_api_keys",
    "erase_clients", "erase_service_accounts", "erase_sso_identities", "erase_sso_domains", "erase_sso_connections",
    "erase_teams", "erase_team_memberships", "erase_roles", "erase_members", "erase_organisations", "erase_user",
)  # fmt: skip


class AuthData:
    """A `PersonalData`."""

    def __init__(
        self, database: Database, store: PrivacyStore, keyring: Keyring, mail: MailOutbox, control: InternalChannel
    ) -> None:
        self._database = database
        self._store = store
        self._keyring = keyring
        self._mail = mail
        self._objects = storage_pb2_grpc.ObjectServiceStub(control)
        self._tables = Tables(database, __package__, _FILES, _ERASING)

    async def export(self, person: Person) -> AsyncIterator[tuple[str, AsyncIterator[str]]]:
        async for part in self._tables.export(person):
            yield part

    async def erase(self, person: Person) -> None:
        """But for the audit log, whose details go when every service has done its part."""
        async with self._database.connection() as connection:
            exports = await self._store.list_requests(connection, person.user_id, Person.KIND_EXPORT)
        for export in exports:
            await self._objects.DeleteObjects(storage_pb2.DeleteObjectsRequest(folder=f"exports/{export['id']}"))
        marks = await self.marks(person)
        async with self._database.transaction() as connection:
            for export in exports:
                await self._store.delete_request(connection, export["id"])
            if marks is not None:
                await self._mail.forget(connection, person.user_id, marks.email, marks.handles)
            await self._tables.erase_within(connection, person)
        if marks is not None:
            await self._mail.forget_sent(marks.email, marks.handles)

    async def marks(self, person: Person) -> Marks | None:
        """What names who is erased; None when it is finished, or their key was shredded by hand."""
        async with self._database.connection() as connection:
            row = await self._store.get_request(connection, person.task_id, Person.KIND_ERASURE)
            if row is None or row["sealed_marks"] is None:
                return None
            try:
                return Marks.load(
                    await self._keyring.open(connection, person.user_id, row["sealed_marks"], f"marks/{row['id']}")
                )
            except Unsealable:
                return None
