"""The one place where passwords and second factors are proved. Every wrong one counts, whatever asked for it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from services.auth import passwords
from services.auth.mfa.factors import SecondFactors, SecondFactorWrong
from services.auth.signin.lockout import Lockout, Subject
from services.auth.store import Row, Store
from services.common import audit
from services.common.db import Connection, Database
from services.common.errors import CredentialInvalid, InvalidFields, Unauthenticated, Violation

_WRONG = "the email or the password is wrong"


class SignInFailed(Unauthenticated, reason="SIGN_IN_FAILED"):
    """Wrong email or password; which of them is not said."""


class PasswordWrong(Unauthenticated, reason="PASSWORD_WRONG"):
    """Not the password of the account that calls."""


class SecondFactorRequired(Unauthenticated, reason="SECOND_FACTOR_REQUIRED"):
    """The password is right, and the account has a second factor."""


class Proving:
    """Each method answers the transaction in which it was proved, to go on with: when it ends well, codes are used up
    and failures forgotten."""

    def __init__(self, database: Database, store: Store, lockout: Lockout, factors: SecondFactors) -> None:
        self._database = database
        self._store = store
        self._lockout = lockout
        self._factors = factors

    @asynccontextmanager
    async def sign_in(self, email: str, password: str, code: str) -> AsyncIterator[tuple[Connection, Row, bool]]:
        """The user, and whether a second factor was part of it.

        Raises:
            SignInFailed, SecondFactorRequired, SecondFactorWrong: not proved.
            ResourceExhausted: locked, with a retry hint.
        """
        subjects = self._lockout.subjects(email)
        await self._lockout.check(subjects)
        async with self._database.connection() as connection:
            user = await self._store.find_user(connection, email)
        if user is not None:  # whose affair it is, should it be refused
            audit.about("user", user["id"])
            audit.by("", user["org_id"])
        right = await passwords.verify_password(user["password_hash"] if user else None, password)
        if user is None or not right:
            await self._lockout.fail(subjects)
            raise SignInFailed(_WRONG)
        async with self._proved(subjects, user, code, wants_code=user["second_factor"]) as (connection, second_factor):
            yield connection, user, second_factor

    @asynccontextmanager
    async def elsewhere(self, user_id: str, code: str) -> AsyncIterator[tuple[Connection, Row, bool]]:
        """As `sign_in`, of somebody whom another place has proved: in place of the password alone."""
        user = await self._user(user_id)
        subjects = self._lockout.subjects(user["email"])
        await self._lockout.check(subjects)
        async with self._proved(subjects, user, code, wants_code=user["second_factor"]) as (connection, second_factor):
            yield connection, user, second_factor

    @asynccontextmanager
    async def again(self, user_id: str, password: str, code: str) -> AsyncIterator[tuple[Connection, bool]]:
        """As `sign_in`, of somebody who is signed in: by a code where they have a second factor, else by password.
        Raises InvalidFields when that one is missing."""
        user = await self._user(user_id)
        wanted = "code" if user["second_factor"] else "password"
        if not (code if wanted == "code" else password):
            raise InvalidFields(violations=[Violation(wanted, "is required")])
        subjects = self._lockout.subjects(user["email"])
        await self._lockout.check(subjects)
        if wanted == "password":
            await self._check_password(subjects, user, password)
        async with self._proved(subjects, user, code, wants_code=wanted == "code") as proved:
            yield proved

    @asynccontextmanager
    async def by_password(self, user_id: str, password: str) -> AsyncIterator[tuple[Connection, Row]]:
        """As `again`, by the password alone; the user."""
        user = await self._user(user_id)
        subjects = self._lockout.subjects(user["email"])
        await self._lockout.check(subjects)
        await self._check_password(subjects, user, password)
        async with self._proved(subjects, user, "", wants_code=False) as (connection, _):
            yield connection, user

    async def _user(self, user_id: str) -> Row:
        async with self._database.connection() as connection:
            user = await self._store.get_user(connection, user_id)
        if user is None:
            raise CredentialInvalid("this account is closed")
        return user

    async def _check_password(self, subjects: Sequence[Subject], user: Row, password: str) -> None:
        if not await passwords.verify_password(user["password_hash"], password):
            await self._lockout.fail(subjects)
            raise PasswordWrong("the password is wrong")

    @asynccontextmanager
    async def _proved(
        self, subjects: Sequence[Subject], user: Row, code: str, *, wants_code: bool
    ) -> AsyncIterator[tuple[Connection, bool]]:
        try:
            async with self._database.transaction() as connection:
                await self._lockout.succeed(connection, subjects)
                if wants_code and not code:
                    raise SecondFactorRequired("this account has a second factor; send its code, or a recovery code")
                if wants_code:
                    await self._factors.accept(connection, user, code)
                yield connection, wants_code
        except SecondFactorWrong:
            await self._lockout.fail(subjects)
            raise
