"""The storefront: finds published models and shows them. What is published is decided in the registry; this keeps a
copy made for searching, fed by events and rebuilt from the catalogue whenever that is wanted."""

from mercat.event.v1 import event_pb2
from mercat.marketplace.v1 import marketplace_pb2_grpc

from services.common.events import consume
from services.common.personal.tasks import PersonTasks
from services.common.service import Deps, Service
from services.marketplace.catalogue import Catalogue
from services.marketplace.index import Index
from services.marketplace.personal import MarketplaceData
from services.marketplace.service import MarketplaceServicer
from services.marketplace.store import Store


async def build(deps: Deps) -> Service:
    store = Store()
    index = Index(deps.settings.home / "search")
    catalogue = Catalogue(deps.database, store, index, deps.control, deps.clock)

    async def follow() -> None:
        await catalogue.load()
        kinds = [event_pb2.ModelChanged, event_pb2.PriceChanged, event_pb2.UsageStored]
        await consume(deps.events, deps.database, "storefront", kinds, catalogue.apply)

    return Service(
        "marketplace",
        registrations=[
            (
                marketplace_pb2_grpc.add_MarketplaceServiceServicer_to_server,
                MarketplaceServicer(deps.database, store, index, catalogue),
            )
        ],
        tasks=[
            follow,
            catalogue.keep_fresh,
            *PersonTasks(deps, "marketplace", MarketplaceData(deps.database, catalogue)).tasks,
        ],
    )
