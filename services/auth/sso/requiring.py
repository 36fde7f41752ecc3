"""Who must sign in by their organisation's provider, whichever way they come."""

from services.auth.sso.store import SsoStore
from services.auth.store import Row
from services.common.db import Connection
from services.common.errors import SsoRequired


def domain_of(email: str) -> str:
    return email.rpartition("@")[2].lower()


class Requiring:
    """Asked once it is proved who somebody is, in the transaction that opens their session."""

    def __init__(self, store: SsoStore) -> None:
        self._store = store

    async def check(self, c: Connection, user_id: str, via: str = "") -> None:
        """`via`: the organisation whose provider they came by. Raises SsoRequired."""
        found = await self._store.required_of(c, user_id)
        if found is not None and found["org_id"] != via:
            raise SsoRequired(found["domain"])

    async def check_new(self, c: Connection, email: str, via: str = "") -> None:
        """As `check`, of somebody who has no account yet."""
        org_id = await self._store.required_for(c, domain := domain_of(email))
        if org_id is not None and org_id != via:
            raise SsoRequired(domain)


def check_session(member: Row, via: str) -> None:
    """That a session opened by the provider of organisation `via` (empty: of none) may act where somebody is the
    `member`. Raises SsoRequired."""
    if member["sso_domain"] is not None and member["org_id"] != via:
        raise SsoRequired(member["sso_domain"])
