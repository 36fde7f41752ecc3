"""The storefront: finds published models and shows them. What is published is decided in the registry; this keeps a
copy made for searching, fed by events and rebuilt from the catalogue whenever that is wanted."""

from mercat.event.v1 import event_pb2
from mercat.marketplace.v1 import (
    collections_pb2_grpc,
    discovery_pb2_grpc,
    marketplace_pb2_grpc,
    publishers_pb2_grpc,
    reviews_pb2_grpc,
)

from services.common.events import consume
from services.common.personal.tasks import PersonTasks
from services.common.repeating import repeat
from services.common.rpc.channels import InternalChannel
from services.common.rpc.mutual import Mutual
from services.common.service import Deps, Service
from services.marketplace.allowances import Allowances
from services.marketplace.catalogue import KINDS, Catalogue
from services.marketplace.discovery.calling import Calling
from services.marketplace.discovery.recommending import Recommender
from services.marketplace.discovery.service import DiscoveryServicer
from services.marketplace.discovery.service_collections import CollectionServicer
from services.marketplace.discovery.store import DiscoveryStore
from services.marketplace.index import Index
from services.marketplace.meaning import Meaning
from services.marketplace.personal import MarketplaceData
from services.marketplace.profiles.publishers import Publishers
from services.marketplace.profiles.service import PublisherServicer
from services.marketplace.profiles.store import ProfileStore
from services.marketplace.reviews.service import ReviewServicer
from services.marketplace.reviews.store import ReviewStore
from services.marketplace.service import MarketplaceServicer
from services.marketplace.settings import MarketplaceSettings
from services.marketplace.store import Store


async def build(deps: Deps) -> Service:
    settings = deps.settings
    assert isinstance(settings, MarketplaceSettings)
    store = Store()
    index = Index(settings.home / "search")
    workers = settings.inference and InternalChannel(settings.inference, settings.internal_token, Mutual.of(settings))
    meaning = Meaning(deps.database, store, workers or None, settings.search_model)
    catalogue = Catalogue(deps.database, store, index, meaning, deps.control, deps.clock)

    profiles = ProfileStore()
    publishers = Publishers(deps.database, profiles, store, catalogue, deps.control)
    discovery = DiscoveryStore()
    calling = Calling(deps.control, deps.clock)
    recommender = Recommender(deps.database, discovery, index, meaning, calling, settings.recommendations_every)

    async def follow() -> None:
        await catalogue.load()
        await consume(deps.events, deps.database, "storefront", KINDS, catalogue.apply)

    async def mark() -> None:
        kinds = [event_pb2.OrganisationDomainsChanged]
        await consume(deps.events, deps.database, "publisher-marks", kinds, publishers.apply)

    async def close() -> None:
        if workers:
            await workers.close()

    return Service(
        "marketplace",
        registrations=[
            (
                marketplace_pb2_grpc.add_MarketplaceServiceServicer_to_server,
                MarketplaceServicer(
                    deps.database, store, index, meaning, catalogue, publishers, Allowances(workers or None)
                ),
            ),
            (
                reviews_pb2_grpc.add_ReviewServiceServicer_to_server,
                ReviewServicer(deps.database, store, ReviewStore(), catalogue, deps.control, deps.clock),
            ),
            (
                discovery_pb2_grpc.add_DiscoveryServiceServicer_to_server,
                DiscoveryServicer(deps.database, store, discovery, index, recommender),
            ),
            (
                collections_pb2_grpc.add_CollectionServiceServicer_to_server,
                CollectionServicer(deps.database, store, discovery, publishers, calling, deps.clock),
            ),
            (publishers_pb2_grpc.add_PublisherServiceServicer_to_server, PublisherServicer(deps, profiles, publishers)),
        ],
        tasks=[
            follow,
            mark,
            lambda: repeat(publishers.verify_unknown, "whether publishers are verified waits"),
            catalogue.keep_fresh,
            catalogue.keep_statistics,
            meaning.keep,
            recommender.keep,
            *PersonTasks(deps, "marketplace", MarketplaceData(deps.database, store, catalogue)).tasks,
        ],
        close=close,
    )
