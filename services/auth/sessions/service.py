"""Serves `mercat.auth.v1.SessionService`."""

from mercat.auth.v1 import sessions_pb2, sessions_pb2_grpc

from services.auth.oauth.models import COMMAND_LINE
from services.auth.sessions.sessions import Sessions
from services.auth.sessions.store import SessionStore
from services.auth.signin.proving import Proving
from services.auth.store import Row
from services.common import audit, pages
from services.common.clock import Clock
from services.common.db import Database
from services.common.errors import NotFound, PermissionDenied
from services.common.rpc.context import Context, caller


class SessionServicer(sessions_pb2_grpc.SessionServiceServicer):
    """Lists and ends the caller's sessions, and proves them again."""

    def __init__(
        self, database: Database, store: SessionStore, sessions: Sessions, proving: Proving, clock: Clock
    ) -> None:
        self._database = database
        self._store = store
        self._sessions = sessions
        self._proving = proving
        self._clock = clock

    async def ListSessions(
        self, request: sessions_pb2.ListSessionsRequest, context: Context
    ) -> sessions_pb2.ListSessionsResponse:
        key, most = pages.decode(request.page_token, str), pages.size(request.page_size)
        before, own = str(key[0]) if key else None, caller()
        async with self._database.connection() as connection:
            rows = await self._store.list_sessions(connection, own.user_id, before, most + 1, self._clock.now())
        token = pages.encode([rows[most - 1]["id"]]) if len(rows) > most else ""
        shown = [_message(row, own.session_id) for row in rows[:most]]
        return sessions_pb2.ListSessionsResponse(sessions=shown, next_page_token=token)

    async def RevokeSession(
        self, request: sessions_pb2.RevokeSessionRequest, context: Context
    ) -> sessions_pb2.RevokeSessionResponse:
        user_id = caller().user_id
        audit.about("session", request.session_id)
        async with self._database.transaction() as connection:
            if not await self._store.end_session(connection, request.session_id, user_id):
                raise NotFound("you have no such session; see `mercat sessions list`", reason="SESSION_NOT_FOUND")
        await self._sessions.forget(user_id)
        return sessions_pb2.RevokeSessionResponse()

    async def RevokeOtherSessions(
        self, request: sessions_pb2.RevokeOtherSessionsRequest, context: Context
    ) -> sessions_pb2.RevokeOtherSessionsResponse:
        own = caller()
        audit.about("user", own.user_id)
        async with self._database.transaction() as connection:
            ended = await self._sessions.end_all(connection, own.user_id, own.session_id)
        await self._sessions.forget(own.user_id)
        return sessions_pb2.RevokeOtherSessionsResponse(revoked_count=ended)

    async def Reauthenticate(
        self, request: sessions_pb2.ReauthenticateRequest, context: Context
    ) -> sessions_pb2.ReauthenticateResponse:
        own = caller()
        if not own.session_id:
            raise PermissionDenied("an API key is no session; sign in", reason="SESSION_REQUIRED")
        audit.about("session", own.session_id)
        async with self._proving.again(own.user_id, request.password, request.code) as (connection, second_factor):
            proof = await self._sessions.prove(
                connection, own.user_id, own.session_id, own.org_id, second_factor=second_factor
            )
        return sessions_pb2.ReauthenticateResponse(session=self._sessions.access(proof))


def _message(row: Row, current: str) -> sessions_pb2.ActiveSession:
    session = sessions_pb2.ActiveSession(
        session_id=row["id"], ip_address=row["ip_address"] or "", user_agent=row["user_agent"],
        second_factor=row["second_factor"], current=row["id"] == current, client_id=row["client_id"] or "",
        client_name=row["client_name"] or (COMMAND_LINE.name if row["client_id"] == COMMAND_LINE.client_id else ""),
    )  # fmt: skip
    for name in ("created_at", "last_used_at", "expires_at"):
        getattr(session, name).FromDatetime(row[name])
    return session
