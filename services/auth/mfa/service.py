"""Serves `mercat.auth.v1.SecondFactorService`."""

from mercat.auth.v1 import mfa_pb2, mfa_pb2_grpc

from services.auth import codes
from services.auth.mfa import totp
from services.auth.mfa.factors import SecondFactors
from services.auth.mfa.store import FactorStore
from services.auth.sessions.sessions import Sessions
from services.auth.signin.letters import Letters
from services.auth.store import Row, Store
from services.common import audit
from services.common.clock import Clock
from services.common.db import Connection, Database
from services.common.errors import CredentialInvalid, FailedPrecondition, InvalidFields, Violation
from services.common.rpc.context import Context, caller

RECOVERY_CODES = 10


class SecondFactorServicer(mfa_pb2_grpc.SecondFactorServiceServicer):
    """Turns second factors on and off. Who may is the policies' business: somebody who proved lately who they are."""

    def __init__(
        self, database: Database, users: Store, store: FactorStore, factors: SecondFactors, sessions: Sessions,
        letters: Letters, clock: Clock,
    ) -> None:  # fmt: skip
        self._database = database
        self._users = users
        self._store = store
        self._factors = factors
        self._sessions = sessions
        self._letters = letters
        self._clock = clock

    async def GetSecondFactor(
        self, request: mfa_pb2.GetSecondFactorRequest, context: Context
    ) -> mfa_pb2.GetSecondFactorResponse:
        user_id = caller().user_id
        async with self._database.connection() as connection:
            row = await self._store.get_totp(connection, user_id)
            left = await self._store.count_recovery_codes(connection, user_id)
        found = mfa_pb2.SecondFactor(recovery_codes_left=left)
        if row is not None and row["confirmed_at"] is not None:
            found.enabled = True
            found.enabled_at.FromDatetime(row["confirmed_at"])
        return mfa_pb2.GetSecondFactorResponse(second_factor=found)

    async def EnrollTotp(self, request: mfa_pb2.EnrollTotpRequest, context: Context) -> mfa_pb2.EnrollTotpResponse:
        secret = totp.generate()
        async with self._database.transaction() as connection:
            user = await self._user(connection)
            sealed = await self._factors.seal(connection, user["id"], secret)
            if not await self._store.enroll_totp(connection, user["id"], sealed, self._clock.now()):
                raise FailedPrecondition(
                    "this account has a second factor; turn it off first with `mercat mfa disable`",
                    reason="SECOND_FACTOR_EXISTS",
                )
        return mfa_pb2.EnrollTotpResponse(secret=secret, uri=totp.uri(secret, user["email"]))

    async def ConfirmTotp(self, request: mfa_pb2.ConfirmTotpRequest, context: Context) -> mfa_pb2.ConfirmTotpResponse:
        own, now = caller(), self._clock.now()
        async with self._database.transaction() as connection:
            user = await self._user(connection)
            row = await self._store.get_totp(connection, user["id"])
            if row is None or row["confirmed_at"] is not None:
                raise _nothing_to_confirm()
            code = request.code.replace(" ", "")
            secret = await self._factors.open(connection, user["id"], row)
            step = totp.step_of(secret, code, now, row["last_step"])
            if step is None:
                problem = (
                    "is not what the app should show now; check the clock of its device, and wait for the next one"
                )
                raise InvalidFields(violations=[Violation("code", problem)])
            if not await self._store.confirm_totp(connection, user["id"], row["sealed_secret"], step, now):
                raise _nothing_to_confirm()
            made = await self._new_codes(connection, user["id"])
            proof = await self._sessions.prove(connection, user["id"], own.session_id, own.org_id, second_factor=True)
            await self._letters.changed(connection, user, "Your account has a second factor from now on")
        await self._sessions.forget(user["id"])
        return mfa_pb2.ConfirmTotpResponse(recovery_codes=made, session=self._sessions.access(proof))

    async def DisableTotp(self, request: mfa_pb2.DisableTotpRequest, context: Context) -> mfa_pb2.DisableTotpResponse:
        async with self._database.transaction() as connection:
            user = await self._user(connection)
            if not await self._store.end_totp(connection, user["id"]):
                raise _none()
            await self._letters.changed(connection, user, "The second factor of your account was turned off")
        await self._sessions.forget(user["id"])
        return mfa_pb2.DisableTotpResponse()

    async def RegenerateRecoveryCodes(
        self, request: mfa_pb2.RegenerateRecoveryCodesRequest, context: Context
    ) -> mfa_pb2.RegenerateRecoveryCodesResponse:
        async with self._database.transaction() as connection:
            user = await self._user(connection)
            if not await self._store.lock_totp(connection, user["id"]):
                raise _none()
            made = await self._new_codes(connection, user["id"])
            await self._letters.changed(
                connection, user, "New recovery codes were made; the ones before no longer work"
            )
        return mfa_pb2.RegenerateRecoveryCodesResponse(recovery_codes=made)

    async def _user(self, connection: Connection) -> Row:
        user = await self._users.get_user(connection, caller().user_id)
        if user is None:
            raise CredentialInvalid("this account is closed")
        audit.about("user", user["id"])
        return user

    async def _new_codes(self, connection: Connection, user_id: str) -> list[str]:
        made = [codes.generate() for _ in range(RECOVERY_CODES)]
        await self._store.replace_recovery_codes(connection, user_id, [codes.digest(code) for code in made])
        return made


def _none() -> FailedPrecondition:
    return FailedPrecondition("this account has no second factor", reason="SECOND_FACTOR_MISSING")


def _nothing_to_confirm() -> FailedPrecondition:
    return FailedPrecondition("nothing waits to be confirmed; begin with `mercat mfa enroll`", reason="NOT_ENROLLED")
