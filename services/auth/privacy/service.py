"""Serves `mercat.auth.v1.PrivacyService`."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta

from google.api import httpbody_pb2
from mercat.auth.v1 import auth_pb2, privacy_pb2, privacy_pb2_grpc
from mercat.billing.v1 import closing_pb2, closing_pb2_grpc
from mercat.event.v1 import event_pb2
from mercat.storage.v1 import storage_pb2, storage_pb2_grpc

from services.auth.handles.handles import Handles
from services.auth.organisations.store import OrganisationStore
from services.auth.privacy.archive import pack
from services.auth.privacy.marks import Marks
from services.auth.privacy.obstacles import GOES, STAYS, obstacles, pseudonym, theirs
from services.auth.privacy.store import PrivacyStore, Row
from services.auth.sessions.sessions import Sessions
from services.common import audit, ids, outbox
from services.common.db import Connection
from services.common.errors import (
    CredentialInvalid,
    FailedPrecondition,
    InvalidFields,
    NotFound,
    ResourceExhausted,
    Violation,
)
from services.common.personal.data import SERVICES, Person
from services.common.personal.tasks import object_of
from services.common.rpc.context import Context, caller
from services.common.secrets.keyring import Keyring
from services.common.service import Deps

_ZIP = "application/zip"


class PrivacyServicer(privacy_pb2_grpc.PrivacyServiceServicer):
    """Begins exports and erasures, and shows how they stand."""

    def __init__(
        self, deps: Deps, store: PrivacyStore, organisations: OrganisationStore, keyring: Keyring, sessions: Sessions,
        handles: Handles, kept: timedelta,
    ) -> None:  # fmt: skip
        self._database = deps.database
        self._clock = deps.clock
        self._store = store
        self._organisations = organisations
        self._keyring = keyring
        self._sessions = sessions
        self._handles = handles
        self._kept = kept
        self._closing = closing_pb2_grpc.ClosingServiceStub(deps.control)
        self._objects = storage_pb2_grpc.ObjectServiceStub(deps.control)

    # Exports

    async def CreateExport(
        self, request: privacy_pb2.CreateExportRequest, context: Context
    ) -> privacy_pb2.CreateExportResponse:
        user_id, export_id, now = caller().user_id, ids.new("exp"), self._clock.now()
        audit.about("export", export_id)
        async with self._database.transaction() as connection:
            await self._person(connection, user_id)
            if any(r["finished_at"] is None for r in await self._store.list_requests(connection, user_id, _EXPORT)):
                raise ResourceExhausted("an export of yours is being made", reason="EXPORT_UNDER_WAY", retry_after=10)
            event = Person(task_id=export_id, kind=_EXPORT, user_id=user_id)
            for row in theirs(await self._store.memberships(connection, user_id)):
                event.organisations.add(org_id=row["org_id"], handle=row["handle"])
            await self._store.add_request(
                connection, id=export_id, kind=_EXPORT, user_id=user_id, request=event.SerializeToString(),
                sealed_marks=None, now=now, expires_at=now + self._kept,
            )  # fmt: skip
            await outbox.add(connection, event)
            made = await self._store.get_request(connection, export_id, _EXPORT)
            assert made is not None
        return privacy_pb2.CreateExportResponse(export=_export(made, {}))

    async def GetExport(self, request: privacy_pb2.GetExportRequest, context: Context) -> privacy_pb2.GetExportResponse:
        async with self._database.connection() as connection:
            row, parts = await self._own_export(connection, request.export_id)
        return privacy_pb2.GetExportResponse(export=_export(row, parts))

    async def DownloadExport(
        self, request: privacy_pb2.DownloadExportRequest, context: Context
    ) -> AsyncIterator[privacy_pb2.DownloadExportResponse]:
        audit.about("export", request.export_id)
        async with self._database.transaction() as connection:
            row, parts = await self._own_export(connection, request.export_id)
        if row["finished_at"] is None:
            raise FailedPrecondition("the export is not ready yet", reason="EXPORT_NOT_READY")
        files = [(f"{service}/{file.name}.jsonl", service, file) for service in parts for file in parts[service].files]
        manifest = {
            "format": "mercat-export/1", "export_id": row["id"], "user_id": row["user_id"],
            "created_at": row["created_at"].astimezone(UTC).isoformat(),
            "amounts": "in nanos: billionths of the currency",
            "files": [
                {"name": name, "lines": f.lines, "size_bytes": f.size_bytes, "sha256": f.sha256} for name, _, f in files
            ],
        }  # fmt: skip
        contents = ((name, self._pieces(row["id"], service, file.name)) for name, service, file in files)
        async for piece in pack(manifest, contents, row["created_at"]):
            body = httpbody_pb2.HttpBody(content_type=_ZIP, data=piece)
            yield privacy_pb2.DownloadExportResponse(chunk=body)

    async def _pieces(self, export_id: str, service: str, file: str) -> AsyncIterator[bytes]:
        name = object_of(export_id, service, file)
        async for piece in self._objects.GetObject(storage_pb2.GetObjectRequest(name=name)):
            yield piece.data

    async def _own_export(
        self, connection: Connection, export_id: str
    ) -> tuple[Row, dict[str, event_pb2.PersonTaskDone]]:
        row = await self._store.get_request(connection, export_id, _EXPORT)
        if row is None or row["user_id"] != caller().user_id or row["expires_at"] <= self._clock.now():
            raise NotFound("you have no such export; it may have expired", reason="EXPORT_NOT_FOUND")
        parts = await self._store.list_parts(connection, export_id)
        return row, {name: event_pb2.PersonTaskDone.FromString(done) for name, done in parts.items()}

    # Erasures

    async def GetDeletion(
        self, request: privacy_pb2.GetDeletionRequest, context: Context
    ) -> privacy_pb2.GetDeletionResponse:
        user_id = caller().user_id
        closing = await self._asked(user_id)
        async with self._database.transaction() as connection:
            person = await self._person(connection, user_id)
            memberships = await self._store.memberships(connection, user_id)
            found = await self._obstacles(connection, person, memberships, closing)
        deletion = privacy_pb2.Deletion(
            organisations=[row["handle"] for row in theirs(memberships)], goes=GOES, stays=STAYS, obstacles=found
        )
        return privacy_pb2.GetDeletionResponse(deletion=deletion)

    async def DeleteAccount(
        self, request: privacy_pb2.DeleteAccountRequest, context: Context
    ) -> privacy_pb2.DeleteAccountResponse:
        user_id, erasure_id, now = caller().user_id, ids.new("ers"), self._clock.now()
        audit.about("user", user_id)
        closing = await self._asked(user_id)
        async with self._database.transaction() as connection:
            person = await self._person(connection, user_id)
            if request.username != person["username"]:
                raise InvalidFields(violations=[Violation("username", "is not yours")])
            memberships = await self._store.memberships(connection, user_id)
            for obstacle in await self._obstacles(connection, person, memberships, closing):
                if not (obstacle.forfeitable and request.forfeit):
                    raise FailedPrecondition(obstacle.message, reason=obstacle.reason)
            event = Person(task_id=erasure_id, kind=_ERASURE, user_id=user_id)
            for row in theirs(memberships):
                event.organisations.add(org_id=row["org_id"], handle=row["handle"], pseudonym=pseudonym(row["org_id"]))
            await self._close(connection, person, memberships, event, now)
        await self._sessions.forget(user_id)
        return privacy_pb2.DeleteAccountResponse(erasure_id=erasure_id)

    async def _close(
        self, connection: Connection, person: Row, memberships: Sequence[Row], event: Person, now: datetime
    ) -> None:
        """Ends the account, and has everybody erase it."""
        user_id, org_ids = person["id"], [o.org_id for o in event.organisations]
        handles = [o.handle for o in event.organisations]
        marks = Marks(
            person["email"], handles, [person["display_name"]],
            [list(place) for place in await self._store.places(connection, user_id)],
        )  # fmt: skip
        for row in memberships:
            if row["org_id"] not in org_ids:
                await self._organisations.remove_member(connection, row["org_id"], user_id)
        for handle in handles:
            await self._handles.release(connection, handle)
        await self._store.close_account(connection, user_id, org_ids, now)
        await self._sessions.end_all(connection, user_id)
        sealed = await self._keyring.seal(connection, user_id, marks.dump(), f"marks/{event.task_id}")
        await self._store.add_request(
            connection, id=event.task_id, kind=_ERASURE, user_id=user_id, request=event.SerializeToString(),
            sealed_marks=sealed, now=now, expires_at=None,
        )  # fmt: skip
        await outbox.add(connection, event)

    async def _obstacles(
        self, connection: Connection, person: Row, memberships: Sequence[Row], closing: closing_pb2.GetClosingResponse
    ) -> list[privacy_pb2.Deletion.Obstacle]:
        admins = await self._store.count_other_admins(connection, person["id"], auth_pb2.ROLE_ADMIN)
        only_admin = person["role"] == auth_pb2.ROLE_ADMIN and not admins
        return obstacles(memberships, closing, only_admin=only_admin)

    async def _asked(self, user_id: str) -> closing_pb2.GetClosingResponse:
        """What billing says of what is theirs. What comes after that is given up with the rest. Raises Unavailable."""
        async with self._database.connection() as connection:
            memberships = await self._store.memberships(connection, user_id)
        asked = closing_pb2.GetClosingRequest(org_ids=[row["org_id"] for row in theirs(memberships)])
        return await self._closing.GetClosing(asked, timeout=10)

    async def _person(self, connection: Connection, user_id: str) -> Row:
        """Locked. Raises CredentialInvalid for whom there is no account."""
        row = await self._store.lock_person(connection, user_id)
        if row is None:
            raise CredentialInvalid("this account is closed")
        return row

    async def GetErasure(
        self, request: privacy_pb2.GetErasureRequest, context: Context
    ) -> privacy_pb2.GetErasureResponse:
        async with self._database.connection() as connection:
            row = await self._store.get_request(connection, request.erasure_id, _ERASURE)
            parts = await self._store.list_parts(connection, request.erasure_id)
        if row is None:
            raise NotFound("there is no such erasure", reason="ERASURE_NOT_FOUND")
        found = privacy_pb2.Erasure(
            erasure_id=row["id"], done=row["finished_at"] is not None,
            waiting_for=[name for name in SERVICES if name not in parts],
        )  # fmt: skip
        found.create_time.FromDatetime(row["created_at"])
        if row["finished_at"] is not None:
            found.done_time.FromDatetime(row["finished_at"])
        return privacy_pb2.GetErasureResponse(erasure=found)


_EXPORT, _ERASURE = Person.KIND_EXPORT, Person.KIND_ERASURE


def _export(row: Row, parts: dict[str, event_pb2.PersonTaskDone]) -> privacy_pb2.Export:
    ready = row["finished_at"] is not None
    export = privacy_pb2.Export(
        export_id=row["id"], state=privacy_pb2.Export.STATE_READY if ready else privacy_pb2.Export.STATE_RUNNING,
        size_bytes=sum(file.size_bytes for part in parts.values() for file in part.files) if ready else 0,
        waiting_for=[] if ready else [name for name in SERVICES if name not in parts],
    )  # fmt: skip
    export.create_time.FromDatetime(row["created_at"])
    export.expire_time.FromDatetime(row["expires_at"])
    return export
