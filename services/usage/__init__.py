"""Every successful call, recorded once: stores what the workers metered, has it posted, and shows it to whom it
concerns. What a call costs was settled when it ran; what the money does is billing's."""

from datetime import UTC, datetime

from google.protobuf.message import Message
from mercat.event.v1 import event_pb2
from mercat.usage.v1 import callers_pb2_grpc, usage_pb2_grpc

from services.common.db import Connection
from services.common.events import consume
from services.common.personal.tasks import PersonTasks
from services.common.service import Deps, Service
from services.usage.consumer import Consumer
from services.usage.live import Live
from services.usage.partitions import keep_partitions, make_partitions
from services.usage.personal import UsageData
from services.usage.retention import Retention
from services.usage.rollups import Rollups
from services.usage.service import UsageServicer
from services.usage.service_callers import CallerServicer
from services.usage.service_settlement import SettlementServicer, settled_through
from services.usage.settings import UsageSettings
from services.usage.store import Store


async def build(deps: Deps) -> Service:
    settings = deps.settings
    assert isinstance(settings, UsageSettings)
    await make_partitions(deps.database, deps.clock.now())  # before the first record arrives
    store = Store()
    live = Live(deps.events)
    consumer = Consumer(deps.database, store, deps.events, live, deps.control)

    async def settled() -> datetime:
        return await settled_through(deps.events, deps.clock)

    rollups = Rollups(deps.database, store, settled)
    retention = Retention(deps.database, store, settled, deps.clock, settings.usage_retention_months)

    async def partitions() -> None:
        await keep_partitions(deps.database, deps.clock)

    async def correct(connection: Connection, event: Message) -> None:
        assert isinstance(event, event_pb2.UsageCorrected)
        await store.add_correction(connection, event.record, event.reason, event.create_time.ToDatetime(UTC))

    async def corrections() -> None:
        await consume(deps.events, deps.database, "usage-corrections", [event_pb2.UsageCorrected], correct)

    return Service(
        "usage",
        registrations=[
            (
                usage_pb2_grpc.add_UsageServiceServicer_to_server,
                UsageServicer(deps.database, store, live, deps.control, deps.clock),
            ),
            (
                usage_pb2_grpc.add_SettlementServiceServicer_to_server,
                SettlementServicer(deps.database, store, deps.events, deps.clock),
            ),
            (callers_pb2_grpc.add_CallerServiceServicer_to_server, CallerServicer(deps.database, store)),
        ],
        tasks=[
            consumer.work,
            consumer.sweep,
            corrections,
            rollups.work,
            retention.work,
            partitions,
            *PersonTasks(deps, "usage", UsageData(deps.database, deps.control)).tasks,
        ],
    )
