"""Serves `mercat.auth.v1.PasswordService`."""

from google.protobuf.message import Message
from mercat.auth.v1 import signin_pb2, signin_pb2_grpc
from mercat.event.v1 import event_pb2

from services.auth import passwords
from services.auth.sessions.sessions import Sessions
from services.auth.signin import mailed
from services.auth.signin.letters import Letters
from services.auth.signin.lockout import Lockout
from services.auth.signin.mailed import MailedCodes
from services.auth.signin.proving import Proving
from services.auth.signin.store import SignInStore
from services.auth.signin.strength import Strength
from services.auth.store import Row, Store
from services.common import audit, outbox
from services.common.clock import Clock
from services.common.db import Connection, Database
from services.common.errors import CredentialInvalid, FailedPrecondition, ResourceExhausted
from services.common.rpc.context import Context, caller


class PasswordServicer(signin_pb2_grpc.PasswordServiceServicer):
    """Verifies email addresses, and sets passwords by mailed codes and by the one before."""

    def __init__(
        self, database: Database, users: Store, store: SignInStore, codes: MailedCodes, letters: Letters,
        lockout: Lockout, strength: Strength, proving: Proving, sessions: Sessions, clock: Clock,
    ) -> None:  # fmt: skip
        self._database = database
        self._users = users
        self._store = store
        self._codes = codes
        self._letters = letters
        self._lockout = lockout
        self._strength = strength
        self._proving = proving
        self._sessions = sessions
        self._clock = clock

    async def SendVerification(
        self, request: signin_pb2.SendVerificationRequest, context: Context
    ) -> signin_pb2.SendVerificationResponse:
        async with self._database.transaction() as connection:
            user = await self._store.lock_user(connection, caller().user_id)
            if user is None:
                raise CredentialInvalid("this account is closed")
            if user["is_verified"]:
                raise FailedPrecondition("this email address is verified already", reason="EMAIL_VERIFIED")
            again = await self._codes.send(connection, mailed.VERIFY, user)
        if again is not None:
            raise ResourceExhausted(
                "three codes were sent within the hour; look for them in your mail, spam too", reason="MAIL_LIMITED",
                retry_after=(again - self._clock.now()).total_seconds(),
            )  # fmt: skip
        return signin_pb2.SendVerificationResponse()

    async def VerifyEmail(
        self, request: signin_pb2.VerifyEmailRequest, context: Context
    ) -> signin_pb2.VerifyEmailResponse:
        async with self._database.transaction() as connection:
            found = await self._codes.take(connection, mailed.VERIFY, request.code)
            audit.about("user", found["user_id"])
            if not await self._store.verify_user(connection, found["user_id"], found["email"], self._clock.now()):
                raise FailedPrecondition("the account has another address by now", reason="EMAIL_CHANGED")
        await self._sessions.forget(found["user_id"])
        return signin_pb2.VerifyEmailResponse()

    async def RequestPasswordReset(
        self, request: signin_pb2.RequestPasswordResetRequest, context: Context
    ) -> signin_pb2.RequestPasswordResetResponse:
        # The same for every address, in what it does and how long it takes: who reads the event finds out the rest.
        async with self._database.transaction() as connection:
            user = await self._users.find_user(connection, request.email)
            event = event_pb2.PasswordResetRequested(user_id=user["id"] if user else "")
            await outbox.add(connection, event)
        return signin_pb2.RequestPasswordResetResponse()

    async def send_reset(self, connection: Connection, event: Message) -> None:
        """Sends the code that a PasswordResetRequested asks for; none over the limit of an hour."""
        assert isinstance(event, event_pb2.PasswordResetRequested)
        user = await self._store.lock_user(connection, event.user_id)
        if user is not None:
            await self._codes.send(connection, mailed.RESET, user)

    async def ResetPassword(
        self, request: signin_pb2.ResetPasswordRequest, context: Context
    ) -> signin_pb2.ResetPasswordResponse:
        async with self._database.connection() as connection:
            user = await self._codes.find(connection, mailed.RESET, request.code)
        user_id, now = user["user_id"], self._clock.now()
        audit.about("user", user_id)
        await self._strength.check(request.password, _personal(user))
        password_hash = await passwords.hash_password(request.password)
        async with self._database.transaction() as connection:
            taken = await self._codes.take(connection, mailed.RESET, request.code)
            await self._store.set_password(connection, user_id, password_hash, now)
            await self._store.verify_user(connection, user_id, taken["email"], now)  # whose mail it was proves it
            await self._sessions.end_all(connection, user_id)
            await self._lockout.release(connection, user["email"])
            await self._letters.changed(
                connection, user, "The password of your account was set anew by a code from your mail",
                "Every session was ended. API keys go on; revoke those that you do not know.",
            )  # fmt: skip
        await self._sessions.forget(user_id)
        return signin_pb2.ResetPasswordResponse()

    async def ChangePassword(
        self, request: signin_pb2.ChangePasswordRequest, context: Context
    ) -> signin_pb2.ChangePasswordResponse:
        own, now = caller(), self._clock.now()
        audit.about("user", own.user_id)
        async with self._database.connection() as connection:
            user = await self._users.get_user(connection, own.user_id)
        if user is None:
            raise CredentialInvalid("this account is closed")
        await self._strength.check(request.password, _personal(user))
        password_hash = await passwords.hash_password(request.password)
        async with self._proving.by_password(own.user_id, request.current_password) as (connection, user):
            await self._store.set_password(connection, own.user_id, password_hash, now)
            await self._store.end_codes(connection, own.user_id, mailed.RESET.name)
            await self._sessions.end_all(connection, own.user_id, own.session_id)
            await self._letters.changed(
                connection, user, "The password of your account was changed", "Your other sessions were ended."
            )
        await self._sessions.forget(own.user_id)
        return signin_pb2.ChangePasswordResponse()


def _personal(user: Row) -> list[str]:
    return [user["email"], user["username"], user["display_name"]]
