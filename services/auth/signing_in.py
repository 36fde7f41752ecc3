"""Puts together how people sign in: sessions, passwords, mail, second factors."""

import asyncio
import logging
from datetime import timedelta

from mercat.auth.v1 import mfa_pb2_grpc, sessions_pb2_grpc, signin_pb2_grpc
from mercat.event.v1 import event_pb2

from services.auth.handles.handles import Handles
from services.auth.mfa.factors import SecondFactors
from services.auth.mfa.service import SecondFactorServicer
from services.auth.mfa.store import FactorStore
from services.auth.sealing.resealing import Resealing
from services.auth.sessions.service import SessionServicer
from services.auth.sessions.sessions import Sessions
from services.auth.sessions.store import SessionStore
from services.auth.settings import AuthSettings
from services.auth.signin.leaked import LeakedPasswords
from services.auth.signin.letters import Letters
from services.auth.signin.lockout import Lockout
from services.auth.signin.mailed import MailedCodes
from services.auth.signin.proving import Proving
from services.auth.signin.service import PasswordServicer
from services.auth.signin.store import SignInStore
from services.auth.signin.strength import Strength
from services.auth.signin.telling import KINDS, Telling
from services.auth.sso.requiring import Requiring
from services.auth.sso.store import SsoStore
from services.auth.store import Row, Store
from services.auth.tokens import Signer
from services.common.db import Connection
from services.common.errors import FailedPrecondition, MercatError
from services.common.events import consume
from services.common.mail.outbox import MailOutbox
from services.common.mail.transport import transport_of
from services.common.repeating import repeat
from services.common.rpc.server import Registration
from services.common.sealing import Sealer
from services.common.secrets.keyring import Keyring
from services.common.secrets.wrapping import wrapper_of
from services.common.service import Deps, Task

log = logging.getLogger(__name__)
_SWEEP, _HOUR = 600.0, 3600.0  # seconds


class SigningIn:
    """Its parts, what they serve and what they do by themselves."""

    def __init__(self, deps: Deps, settings: AuthSettings, users: Store, signer: Signer) -> None:
        self._deps = deps
        self._users = users
        store = self.store = SignInStore()
        factor_store, self.session_store = FactorStore(), SessionStore()
        sealer = Sealer.load(settings.sealing_keys, settings.home / "secrets" / "sealing.key")
        keyring = self.keyring = Keyring(wrapper_of(settings.sealing_transit, sealer), deps.clock)
        self.handles = Handles(deps.database, keyring, deps.clock, settings)
        self._resealing = Resealing(deps.database, keyring, sealer)
        outbox = self.outbox = MailOutbox(
            deps.database, transport_of(settings), keyring, deps.clock, settings.mail_from
        )
        letters = self.letters = Letters(outbox, deps.clock)
        self.codes = MailedCodes(store, letters, deps.clock)
        self.sessions = Sessions(
            deps.database, self.session_store, users, signer, deps.principals, deps.events, deps.clock
        )
        factors = SecondFactors(factor_store, keyring, letters, deps.clock)
        self.lockout = Lockout(
            deps.database, store, deps.clock, settings.address_failures, timedelta(hours=settings.sign_in_failure_hours)
        )
        self.strength = Strength(LeakedPasswords(settings.leaked_passwords))
        self.sso_store = SsoStore()
        self.requiring = Requiring(self.sso_store)
        self.proving = Proving(deps.database, users, self.lockout, factors)
        self._passwords = PasswordServicer(
            deps.database, users, store, self.codes, letters, self.lockout, self.strength, self.proving, self.sessions,
            deps.clock,
        )  # fmt: skip
        seconds = SecondFactorServicer(deps.database, users, factor_store, factors, self.sessions, letters, deps.clock)
        sessions = SessionServicer(deps.database, self.session_store, self.sessions, self.proving, deps.clock)
        self.registrations: list[Registration] = [
            (signin_pb2_grpc.add_PasswordServiceServicer_to_server, self._passwords),
            (sessions_pb2_grpc.add_SessionServiceServicer_to_server, sessions),
            (mfa_pb2_grpc.add_SecondFactorServiceServicer_to_server, seconds),
        ]
        self.tasks: list[Task] = [
            outbox.run, self._send_resets, self._tell_owners, self._sweep,
            lambda: repeat(self.handles.keep, "released handles wait", every=_HOUR),
        ]  # fmt: skip

    async def check_another_way(self, connection: Connection, user: Row) -> None:
        """That a user still can sign in. Raises FailedPrecondition."""
        if not user["password_hash"] and not await self.store.count_other_ways(connection, user["id"]):
            raise FailedPrecondition(
                "this is your only way to sign in; set a password first, with `mercat password forgot`",
                reason="LAST_SIGN_IN",
            )

    async def _send_resets(self) -> None:
        kinds = [event_pb2.PasswordResetRequested]
        await consume(self._deps.events, self._deps.database, "password-resets", kinds, self._passwords.send_reset)

    async def _tell_owners(self) -> None:
        telling = Telling(self._users, self.letters)
        await consume(self._deps.events, self._deps.database, "owners", KINDS, telling.tell)

    async def _sweep(self) -> None:
        """Forgets codes past their time and failures of long ago; puts secrets from before under keys of their
        owners."""
        while True:
            try:
                await self._resealing.run()
                async with self._deps.database.transaction() as connection:
                    await self.lockout.sweep(connection)
            except MercatError as e:
                log.warning("sweep of sign-ins: %s", e)
            await asyncio.sleep(_SWEEP)
