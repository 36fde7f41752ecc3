"""Serves `mercat.auth.v1.DeviceService`: a person lets a device in, or turns it away."""

from datetime import UTC

from mercat.auth.v1 import oauth_pb2, oauth_pb2_grpc

from services.auth.oauth.codes import normal
from services.auth.oauth.models import COMMAND_LINE, digest, scopes_of
from services.auth.oauth.store import OAuthStore
from services.auth.organisations.roles import check_within, standing
from services.auth.signin.letters import Letters
from services.auth.signin.lockout import Lockout, device
from services.auth.store import Row, Store
from services.common import audit
from services.common.clock import Clock
from services.common.db import Connection, Database
from services.common.errors import CredentialInvalid, NotFound
from services.common.rpc.context import Context, caller


class DeviceServicer(oauth_pb2_grpc.DeviceServiceServicer):
    """Finds devices by their codes. Wrong ones are counted, and right ones do not make up for them: who guesses can
    have a device of their own."""

    def __init__(
        self, database: Database, store: OAuthStore, users: Store, lockout: Lockout, letters: Letters, clock: Clock
    ) -> None:
        self._database = database
        self._store = store
        self._users = users
        self._lockout = lockout
        self._letters = letters
        self._clock = clock

    async def GetDevice(self, request: oauth_pb2.GetDeviceRequest, context: Context) -> oauth_pb2.GetDeviceResponse:
        row = await self._find(request.user_code)
        found = oauth_pb2.Device(
            client_id=row["client_id"], client_name=_name(row), organisation=row["handle"] or "",
            scopes=sorted(scopes_of(row) or ()), ip_address=row["ip_address"],
        )  # fmt: skip
        found.created_at.FromDatetime(row["created_at"])
        found.expires_at.FromDatetime(row["expires_at"])
        return oauth_pb2.GetDeviceResponse(device=found)

    async def ApproveDevice(
        self, request: oauth_pb2.ApproveDeviceRequest, context: Context
    ) -> oauth_pb2.ApproveDeviceResponse:
        row, own = await self._find(request.user_code), caller()
        async with self._database.transaction() as connection:
            # What a device may do is what its person may, never more than the session that lets it in.
            asked = scopes_of(row)
            if asked is None:
                member = await self._users.get_member_principal(connection, own.user_id, own.org_id)
                if member is None:
                    raise CredentialInvalid("this account is closed")
                asked = standing(member)[1]
            check_within(asked, own.scopes)
            await self._decide(connection, request.user_code, approved=True)
            user = await self._users.get_user(connection, own.user_id)
            assert user is not None
            await self._letters.changed(
                connection, user, f"{_name(row)} was let into your account on another device",
                "See where you are logged in with `mercat sessions list`.",
            )  # fmt: skip
        return oauth_pb2.ApproveDeviceResponse()

    async def DenyDevice(self, request: oauth_pb2.DenyDeviceRequest, context: Context) -> oauth_pb2.DenyDeviceResponse:
        await self._find(request.user_code)
        async with self._database.transaction() as connection:
            await self._decide(connection, request.user_code, approved=False)
        return oauth_pb2.DenyDeviceResponse()

    async def _find(self, user_code: str) -> Row:
        """Raises NotFound, which counts, and ResourceExhausted after too many of them."""
        subjects = [device(caller().user_id), *self._lockout.addresses()]
        await self._lockout.check(subjects)
        async with self._database.connection() as connection:
            row = await self._store.find_device(connection, digest(normal(user_code)), self._clock.now())
        if row is None:
            await self._lockout.fail(subjects)
            raise _unknown()
        return row

    async def _decide(self, connection: Connection, user_code: str, *, approved: bool) -> None:
        own = caller()
        client_id = await self._store.decide_device(
            connection, digest(normal(user_code)), user_id=own.user_id, approved=approved,
            authenticated_at=own.auth_time.ToDatetime(UTC), second_factor=own.second_factor_used,
            session_id=own.session_id, now=self._clock.now(),
        )  # fmt: skip
        if client_id is None:  # somebody else was first
            raise _unknown()
        audit.about("oauth_client", client_id)


def _unknown() -> NotFound:
    return NotFound("no device waits with this code; check it, or begin anew on the device", reason="DEVICE_NOT_FOUND")


def _name(row: Row) -> str:
    return str(row["name"] or COMMAND_LINE.name)
