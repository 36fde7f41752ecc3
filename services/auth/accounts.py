"""How an account comes to be, whichever way somebody signed up."""

import asyncpg
from mercat.event.v1 import event_pb2

from services.auth.handles.handles import Handles, too_similar
from services.auth.signin import mailed
from services.auth.signin.mailed import MailedCodes
from services.auth.store import Store
from services.common import audit, ids, outbox
from services.common.clock import Clock
from services.common.db import Connection
from services.common.errors import AlreadyExists, Violation


class AccountTaken(AlreadyExists, reason="ACCOUNT_TAKEN"):
    """The email or the username has an account; the violation names the field."""


class Accounts:
    """Makes users with their personal organisations."""

    def __init__(self, store: Store, codes: MailedCodes, handles: Handles, clock: Clock) -> None:
        self._store = store
        self._handles = handles
        self._codes = codes
        self._clock = clock

    async def add(
        self, connection: Connection, email: str, username: str, password_hash: str, role: int, display_name: str, *,
        known: bool,
    ) -> str:  # fmt: skip
        """The user's id. `password_hash`: empty where they have no password; `known`: the address needs no
        verification. Raises AccountTaken, HandleTooSimilar and HandleQuarantined, after which the transaction can only
        be rolled back."""
        user_id, org_id = ids.new("usr"), ids.new("org")
        audit.about("user", user_id)
        audit.by(user_id, org_id)
        try:
            await self._store.add_user(
                connection, user_id=user_id, org_id=org_id, email=email, username=username,
                password_hash=password_hash, role=role, display_name=display_name, is_verified=known,
                now=self._clock.now(),
            )  # fmt: skip
        except asyncpg.UniqueViolationError as e:
            field = "email" if e.constraint_name == "users_email" else "username"
            raise too_similar(e, field) or _taken(field) from None
        await self._handles.check_released(connection, username, "username")
        if not known:
            user = {"id": user_id, "email": email, "username": username}
            await self._codes.send(connection, mailed.VERIFY, user)
        await outbox.add(connection, event_pb2.UserSignedUp(user_id=user_id, org_id=org_id, email=email))
        return user_id


def _taken(field: str) -> AccountTaken:
    problem = Violation(field, "has an account already; sign in, or choose another")
    return AccountTaken(f"this {field} is taken", violations=[problem])
