"""Serves `mercat.marketplace.v1.PublisherService`."""

import asyncpg
from mercat.auth.v1 import auth_pb2, auth_pb2_grpc
from mercat.marketplace.v1 import publishers_pb2 as pb
from mercat.marketplace.v1 import publishers_pb2_grpc

from services.common import audit
from services.common.errors import AlreadyExists, NotFound, Violation
from services.common.rpc.context import Context, caller
from services.common.service import Deps
from services.marketplace.hits import hit
from services.marketplace.profiles.names import skeleton
from services.marketplace.profiles.publishers import Publishers
from services.marketplace.profiles.store import ProfileStore

_MODELS = 20


class DisplayNameTaken(AlreadyExists, reason="DISPLAY_NAME_TAKEN"):
    """It is, or looks like, the name of another publisher."""


class PublisherServicer(publishers_pb2_grpc.PublisherServiceServicer):
    """Private models count nowhere: they have no listings."""

    def __init__(self, deps: Deps, profiles: ProfileStore, publishers: Publishers) -> None:
        self._database = deps.database
        self._clock = deps.clock
        self._auth = auth_pb2_grpc.PrincipalServiceStub(deps.control)
        self._profiles = profiles
        self._publishers = publishers

    async def GetPublisher(self, request: pb.GetPublisherRequest, context: Context) -> pb.GetPublisherResponse:
        name = request.publisher
        async with self._database.connection() as connection:
            await self._publishers.check(connection, name)
            counted = await self._profiles.count_published(connection, name)
            listings = await self._profiles.list_published(connection, name, _MODELS)
            profile = await self._profiles.get_profile(connection, name)
        made = pb.Publisher(
            publisher=name, model_count=counted["models"], models=map(hit, listings), review_count=counted["reviews"],
            follower_count=counted["followers"], total_requests=counted["requests"],
        )  # fmt: skip
        if counted["reviews"]:
            made.rating = counted["rating_sum"] / counted["reviews"]
        if profile is not None:
            made.display_name, made.about = profile["display_name"], profile["about"]
            made.website, made.verified = profile["website"], bool(profile["verified"])
        return pb.GetPublisherResponse(publisher=made)

    async def SetPublisherProfile(
        self, request: pb.SetPublisherProfileRequest, context: Context
    ) -> pb.SetPublisherProfileResponse:
        who = caller()
        audit.about("organisation", who.org_id)
        problem = Violation("display_name", "is, or looks like, the name of another publisher")
        taken = DisplayNameTaken("the display name is, or looks like, another's; choose another", violations=[problem])
        if await self._is_handle(request.display_name, who.org_id):
            raise taken
        try:
            async with self._database.transaction() as connection:
                await self._profiles.lock_verification(connection, who.org_id)
                await self._profiles.put_profile(
                    connection, org_id=who.org_id, publisher=who.handle, display_name=request.display_name,
                    skeleton=skeleton(request.display_name), about=request.about, website=request.website,
                    now=self._clock.now(),
                )  # fmt: skip
                await self._publishers.verify(connection, who.org_id)
        except asyncpg.UniqueViolationError:
            raise taken from None
        return pb.SetPublisherProfileResponse()

    async def _is_handle(self, name: str, org_id: str) -> bool:
        """Whether a display name, written as a handle, is that of another organisation."""
        words = name.lower().replace(".", " ").split()
        for handle in {"-".join(words), "".join(words)} - {""}:
            try:
                found = await self._auth.FindOrganisation(auth_pb2.FindOrganisationRequest(handle=handle))
            except NotFound:
                continue
            if found.org_id != org_id:
                return True
        return False
