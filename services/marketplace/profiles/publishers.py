"""Who is a publisher to everybody, and whether it is verified."""

from google.protobuf.message import Message
from mercat.auth.v1 import auth_pb2, auth_pb2_grpc
from mercat.event.v1 import event_pb2
from mercat.registry.v1 import registry_pb2, registry_pb2_grpc

from services.common.db import Connection, Database
from services.common.errors import NotFound
from services.common.rpc.channels import InternalChannel
from services.marketplace.catalogue import Catalogue
from services.marketplace.profiles.names import proven
from services.marketplace.profiles.store import ProfileStore
from services.marketplace.store import Store

_PAGE = 500


class PublisherNotFound(NotFound, reason="PUBLISHER_NOT_FOUND"): ...


class Publishers:
    """What auth says of domains is kept beside profiles, where every listing is read with it."""

    def __init__(
        self,
        database: Database,
        profiles: ProfileStore,
        listings: Store,
        catalogue: Catalogue,
        control: InternalChannel,
    ) -> None:
        self._database = database
        self._profiles = profiles
        self._listings = listings
        self._catalogue = catalogue
        self._auth = auth_pb2_grpc.PrincipalServiceStub(control)
        self._registry = registry_pb2_grpc.DeploymentServiceStub(control)

    async def check(self, connection: Connection, publisher: str) -> None:
        """Raises PublisherNotFound for whom not everybody may know: neither verified, nor known by a model. What is
        deprecated or was handed on still makes one known; what is private does not."""
        if await self._profiles.is_public(connection, publisher):
            return
        asked = registry_pb2.ResolvePublisherRequest(publisher=publisher)
        if not (await self._registry.ResolvePublisher(asked)).known:
            raise PublisherNotFound(f"{publisher} has no published model")

    async def apply(self, connection: Connection, event: Message) -> None:
        """Domains are others now."""
        assert isinstance(event, event_pb2.OrganisationDomainsChanged)
        await self.verify(connection, event.org_id)

    async def verify(self, connection: Connection, org_id: str) -> None:
        """Finds out whether a publisher is verified, as its profile is in this transaction."""
        await self._profiles.lock_verification(connection, org_id)
        profile = await self._profiles.get_profile_of(connection, org_id)
        if profile is None:
            return
        verified = bool(profile["website"]) and await self._proves(profile["publisher"], org_id, profile["website"])
        if await self._profiles.set_verified(connection, org_id, verified=verified):
            await self._listings.note_changes_of(connection, profile["publisher"])
            self._catalogue.changed()

    async def _proves(self, publisher: str, org_id: str, website: str) -> bool:
        try:
            found = await self._auth.FindOrganisation(auth_pb2.FindOrganisationRequest(handle=publisher))
        except NotFound:  # it is being erased
            return False
        return found.org_id == org_id and proven(website, found.verified_domains)

    async def verify_unknown(self) -> int:
        """Those of which it is not known yet; how many."""
        return await self._verify_all(unknown=True)

    async def verify_all(self) -> None:
        await self._verify_all(unknown=False)

    async def _verify_all(self, *, unknown: bool) -> int:
        after, done = "", 0
        while True:
            async with self._database.connection() as connection:
                rows = await self._profiles.list_profiles(connection, after, _PAGE, unknown=unknown)
            for row in rows:
                async with self._database.transaction() as connection:
                    await self.verify(connection, row["org_id"])
            done += len(rows)
            if len(rows) < _PAGE:
                return done
            after = rows[-1]["org_id"]
