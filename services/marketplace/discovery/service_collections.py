"""Collections, favourites, and a feed of publishers."""

from collections.abc import Sequence
from datetime import UTC, datetime

from mercat.marketplace.v1 import collections_pb2 as pb
from mercat.marketplace.v1 import collections_pb2_grpc, marketplace_pb2

from services.common import etags, pages
from services.common.clock import Clock
from services.common.db import Connection, Database
from services.common.errors import (
    EtagMismatch,
    InvalidFields,
    ModelNotFound,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Violation,
)
from services.common.rpc.context import ROLE_NAMES, Context, caller, current
from services.marketplace.discovery.calling import Calling
from services.marketplace.discovery.store import DiscoveryStore, Row
from services.marketplace.hits import hit
from services.marketplace.profiles.publishers import Publishers
from services.marketplace.store import Store, listing_of

_MOST = 500  # models of a collection
_LAST = "~"  # sorts after every id
_FUTURE = datetime(9000, 1, 1, tzinfo=UTC)


class CollectionNotFound(NotFound, reason="COLLECTION_NOT_FOUND"): ...


class CollectionFull(ResourceExhausted, reason="COLLECTION_FULL"): ...


class CollectionServicer(collections_pb2_grpc.CollectionServiceServicer):
    """Serves `mercat.marketplace.v1.CollectionService`."""

    def __init__(
        self,
        database: Database,
        listings: Store,
        store: DiscoveryStore,
        publishers: Publishers,
        calling: Calling,
        clock: Clock,
    ) -> None:
        self._database = database
        self._calling = calling
        self._listings = listings
        self._store = store
        self._publishers = publishers
        self._clock = clock

    async def CreateCollection(
        self, request: pb.CreateCollectionRequest, context: Context
    ) -> pb.CreateCollectionResponse:
        if request.curated and not _admin():
            raise PermissionDenied("curated collections are the platform's", reason="ROLE_MISSING")
        async with self._database.transaction() as connection:
            row = await self._store.add_collection(connection, caller().org_id, request, self._clock.now())
        return pb.CreateCollectionResponse(collection=_collection(row))

    async def GetCollection(self, request: pb.GetCollectionRequest, context: Context) -> pb.GetCollectionResponse:
        async with self._database.connection() as connection:
            row = await self._store.get_collection(connection, request.collection_id, _reader())
            return pb.GetCollectionResponse(collection=await self._whole(connection, row))

    async def ListCollections(self, request: pb.ListCollectionsRequest, context: Context) -> pb.ListCollectionsResponse:
        org_id = ""
        if not request.curated and not (org_id := _reader()):
            caller()
            raise PermissionDenied("this credential lacks the scope models:read", reason="SCOPE_MISSING")
        key, most = pages.decode(request.page_token, str), pages.size(request.page_size)
        async with self._database.connection() as connection:
            rows = await self._store.list_collections(
                connection, org_id, str(key[0]) if key else _LAST, most + 1, curated=request.curated
            )
        response = pb.ListCollectionsResponse(collections=map(_collection, rows[:most]))
        if len(rows) > most:
            response.next_page_token = pages.encode([rows[most - 1]["id"]])
        return response

    async def UpdateCollection(
        self, request: pb.UpdateCollectionRequest, context: Context
    ) -> pb.UpdateCollectionResponse:
        async with self._database.transaction() as connection:
            row = await self._own(connection, request.collection_id)
            if request.etag and etags.revision(request.etag, "collection") != row["revision"]:
                raise EtagMismatch("the collection was changed meanwhile; read it again")
            title = request.title if request.HasField("title") else row["title"]
            description = request.description if request.HasField("description") else row["description"]
            row = await self._store.update_collection(connection, row["id"], title, description, self._clock.now())
            return pb.UpdateCollectionResponse(collection=await self._whole(connection, row))

    async def DeleteCollection(
        self, request: pb.DeleteCollectionRequest, context: Context
    ) -> pb.DeleteCollectionResponse:
        async with self._database.transaction() as connection:
            row = await self._own(connection, request.collection_id)
            await self._store.delete_collection(connection, row["id"])
        return pb.DeleteCollectionResponse()

    async def AddToCollection(self, request: pb.AddToCollectionRequest, context: Context) -> pb.AddToCollectionResponse:
        async with self._database.transaction() as connection:
            row = await self._own(connection, request.collection_id)
            await self._published(connection, request.model)
            if await self._store.count_collection(connection, row["id"]) >= _MOST:
                raise CollectionFull(f"a collection has at most {_MOST} models")
            await self._store.add_to_collection(connection, row["id"], request.model)
            return pb.AddToCollectionResponse(collection=await self._touched(connection, row))

    async def RemoveFromCollection(
        self, request: pb.RemoveFromCollectionRequest, context: Context
    ) -> pb.RemoveFromCollectionResponse:
        async with self._database.transaction() as connection:
            row = await self._own(connection, request.collection_id)
            await self._store.remove_from_collection(connection, row["id"], request.model)
            return pb.RemoveFromCollectionResponse(collection=await self._touched(connection, row))

    async def AddFavourite(self, request: pb.AddFavouriteRequest, context: Context) -> pb.AddFavouriteResponse:
        async with self._database.transaction() as connection:
            await self._published(connection, request.model)
            await self._store.add_favourite(connection, caller().org_id, request.model)
        return pb.AddFavouriteResponse()

    async def RemoveFavourite(self, request: pb.RemoveFavouriteRequest, context: Context) -> pb.RemoveFavouriteResponse:
        async with self._database.transaction() as connection:
            await self._store.remove_favourite(connection, caller().org_id, request.model)
        return pb.RemoveFavouriteResponse()

    async def ListFavourites(self, request: pb.ListFavouritesRequest, context: Context) -> pb.ListFavouritesResponse:
        key, most = pages.decode(request.page_token, int), pages.size(request.page_size)
        async with self._database.connection() as connection:
            before = int(key[0]) if key else 2**62
            rows = await self._store.list_favourites(connection, caller().org_id, before, most + 1)
        response = pb.ListFavouritesResponse(hits=[hit(listing_of(r)) for r in rows[:most]])
        if len(rows) > most:
            response.next_page_token = pages.encode([rows[most - 1]["number"]])
        return response

    async def FollowPublisher(self, request: pb.FollowPublisherRequest, context: Context) -> pb.FollowPublisherResponse:
        async with self._database.transaction() as connection:
            await self._publishers.check(connection, request.publisher)
            await self._store.follow(connection, caller().org_id, request.publisher)
        return pb.FollowPublisherResponse()

    async def UnfollowPublisher(
        self, request: pb.UnfollowPublisherRequest, context: Context
    ) -> pb.UnfollowPublisherResponse:
        async with self._database.transaction() as connection:
            await self._store.unfollow(connection, caller().org_id, request.publisher)
        return pb.UnfollowPublisherResponse()

    async def ListFollowing(self, request: pb.ListFollowingRequest, context: Context) -> pb.ListFollowingResponse:
        key, most = pages.decode(request.page_token, str), pages.size(request.page_size)
        async with self._database.connection() as connection:
            names = await self._store.list_following(
                connection, caller().org_id, str(key[0]) if key else "", most + 1
            )  # fmt: skip
        response = pb.ListFollowingResponse(publishers=names[:most])
        if len(names) > most:
            response.next_page_token = pages.encode([names[most - 1]])
        return response

    async def ListFeed(self, request: pb.ListFeedRequest, context: Context) -> pb.ListFeedResponse:
        key, most = pages.decode(request.page_token, int, str, int), pages.size(request.page_size)
        before = (_moment(int(key[0])), str(key[1]), int(key[2])) if key else (_FUTURE, _LAST, 0)
        org_id = caller().org_id
        called = await self._calling.models(org_id)
        async with self._database.connection() as connection:
            rows = await self._store.list_feed(connection, org_id, called, before, most + 1)
        response = pb.ListFeedResponse(entries=[_entry(row) for row in rows[:most]])
        if len(rows) > most:
            last = rows[most - 1]
            key = [_microseconds(last["at"]), last["version_id"], last["kind"]]
            response.next_page_token = pages.encode(key)
        return response

    async def _own(self, connection: Connection, collection_id: str) -> Row:
        """Locked. Raises CollectionNotFound for one that the caller may not change."""
        row = await self._store.lock_collection(connection, collection_id, caller().org_id, admin=_admin())
        if row is None:
            raise CollectionNotFound("you have no such collection")
        return row

    async def _touched(self, connection: Connection, row: Row) -> pb.Collection:
        row = await self._store.update_collection(
            connection, row["id"], row["title"], row["description"], self._clock.now()
        )
        return await self._whole(connection, row)

    async def _whole(self, connection: Connection, row: Row | None) -> pb.Collection:
        if row is None:
            raise CollectionNotFound("there is no such collection")
        return _collection(row, [hit(x) for x in await self._store.collection_models(connection, row["id"])])

    async def _published(self, connection: Connection, model: str) -> None:
        if await self._listings.get_listing(connection, model) is None:
            raise ModelNotFound(f"there is no published model {model}; find one with `mercat search`")


def _reader() -> str:
    """The organisation whose collections the caller may see; empty: none."""
    principal = current().principal
    return principal.org_id if "models:read" in principal.scopes else ""


def _admin() -> bool:
    return ROLE_NAMES.get(caller().role) == "admin"


def _collection(row: Row, models: Sequence[marketplace_pb2.SearchHit] = ()) -> pb.Collection:
    made = pb.Collection(
        collection_id=row["id"], title=row["title"], description=row["description"], curated=row["curated"],
        models=models, etag=str(row["revision"]),
    )  # fmt: skip
    made.created_at.FromDatetime(row["created_at"])
    made.updated_at.FromDatetime(row["updated_at"])
    return made


def _entry(row: Row) -> pb.FeedEntry:
    listed = row["document"] is not None
    made = pb.FeedEntry(
        hit=hit(listing_of(row)) if listed else marketplace_pb2.SearchHit(model=row["about"]), version=row["version"],
        kind=row["kind"], successor=row["successor"], reason=row["reason"], called=row["called"],
    )  # fmt: skip
    made.time.FromDatetime(row["at"])
    if row["kind"] == pb.FEED_ENTRY_KIND_PUBLISHED:
        made.published_at.FromDatetime(row["at"])
    if row["sunset_at"] is not None:
        made.sunset_at.FromDatetime(row["sunset_at"])
    return made


def _microseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1e6)


def _moment(microseconds: int) -> datetime:
    """Raises InvalidFields for what no page token had."""
    try:
        return datetime.fromtimestamp(microseconds / 1e6, UTC)
    except (OverflowError, OSError, ValueError):
        raise InvalidFields(
            violations=[Violation("page_token", "is not a token of this list; start without one")]
        ) from None
