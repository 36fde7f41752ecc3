"""What a connection is to signing in: a provider, whose people's addresses are its own where their domain is, and who
makes them members."""

from dataclasses import dataclass, replace

from services.auth.identities.protocol import Found
from services.auth.identities.providers import Provider
from services.auth.organisations.store import OrganisationStore
from services.auth.sso.requiring import domain_of
from services.auth.sso.store import SsoStore
from services.auth.store import Row
from services.common import audit
from services.common.clock import Clock
from services.common.db import Connection, Database
from services.common.errors import FailedPrecondition, NotFound
from services.common.secrets.keyring import Keyring

SECRET = "sso"  # noqa: S105 - what the sealed secret is about


class SsoNotFound(NotFound, reason="SSO_NOT_FOUND"): ...


def is_sso(provider_id: str) -> bool:
    """Providers of organisations have the organisation's id; no provider of the operator's has such a one."""
    return provider_id.startswith("org_")


@dataclass
class Connecting:
    """Reads connections, and lets people in."""

    database: Database
    store: SsoStore
    organisations: OrganisationStore
    keyring: Keyring
    clock: Clock
    private: bool  # providers may be in private networks

    async def of_domain(self, domain: str) -> Provider:
        """Raises SsoNotFound."""
        async with self.database.connection() as connection:
            row = await self.store.get_connection_of(connection, domain.lower())
            if row is None:
                raise SsoNotFound(f"nobody has set up single sign-on for {domain}")
            return await self._provider(connection, row)

    async def provider(self, org_id: str) -> Provider:
        """Raises SsoNotFound."""
        async with self.database.connection() as connection:
            row = await self.store.get_connection(connection, org_id)
            if row is None:
                raise SsoNotFound("single sign-on of this organisation was ended")
            return await self._provider(connection, row)

    async def _provider(self, connection: Connection, row: Row) -> Provider:
        secret = b""
        if row["sealed_secret"]:
            secret = await self.keyring.open(connection, row["org_id"], row["sealed_secret"], SECRET)
        return provider_of(
            row["org_id"], row["handle"], row["issuer"], row["client_id"], secret.decode(), private=self.private
        )

    async def judged(self, provider: Provider, found: Found) -> Found:
        """Somebody whom the provider has proved, their address being its own. Raises FailedPrecondition for an address
        that the provider does not call verified, or of another domain than those that the organisation has proved."""
        async with self.database.connection() as connection:
            row = await self.store.get_domain(connection, provider.id, domain_of(found.email))
        if not found.verified or row is None or row["verified_at"] is None:
            raise FailedPrecondition(
                f"{provider.name} signs in with a verified address of its own domains; you came with "
                f"{found.email or 'none'}", reason="SSO_ADDRESS_REFUSED",
            )  # fmt: skip
        return replace(found, owned=True)

    async def join(self, connection: Connection, provider: Provider, user_id: str) -> str:
        """Makes a user a member, in the role for newcomers, if they are none; the organisation's handle."""
        organisation = await self.organisations.lock_organisation(connection, provider.id)
        row = await self.store.get_connection(connection, provider.id)
        if row is None:
            raise SsoNotFound("single sign-on of this organisation was ended")
        now = self.clock.now()
        if await self.organisations.add_member(connection, provider.id, user_id, row["default_role"], now):
            await audit.also(connection, provider.id)
        return str(organisation["handle"])


def provider_of(
    org_id: str, handle: str, issuer: str, client_id: str, client_secret: str, *, private: bool
) -> Provider:
    """Raises pydantic.ValidationError."""
    return Provider(
        id=org_id, name=handle, issuer=issuer, client_id=client_id, client_secret=client_secret, outside=not private
    )
