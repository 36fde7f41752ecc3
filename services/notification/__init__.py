"""Tells people and programs that something has happened: today, programs, by webhooks. What has happened is said by the
events of the other services; this only passes it on."""

from mercat.notification.v1 import webhooks_pb2_grpc

from services.common.egress import Egress, Rules
from services.common.events import consume, consume_asking
from services.common.personal.tasks import PersonTasks
from services.common.sealing import Sealer
from services.common.secrets.keyring import Keyring
from services.common.secrets.wrapping import wrapper_of
from services.common.service import Deps, Service
from services.notification.personal import NotificationData
from services.notification.settings import NotificationSettings
from services.notification.webhooks.catalogue import KINDS, KINDS_OF_CALLERS
from services.notification.webhooks.sender import Sender
from services.notification.webhooks.service import WebhookServicer
from services.notification.webhooks.store import WebhookStore
from services.notification.webhooks.telling import Telling


async def build(deps: Deps) -> Service:
    settings = deps.settings
    assert isinstance(settings, NotificationSettings)
    store = WebhookStore()
    sealer = Sealer.load(settings.sealing_keys, settings.home / "secrets" / "sealing.key")
    keyring = Keyring(wrapper_of(settings.sealing_transit, sealer), deps.clock)
    rules = Rules.of(settings.egress_networks, https=settings.production)
    sender = Sender(deps.database, store, keyring, Egress(rules), deps.clock, settings)
    telling = Telling(store, deps.clock, deps.control)

    async def follow() -> None:
        await consume(deps.events, deps.database, "webhooks", KINDS, telling.tell)

    async def follow_endings() -> None:
        # Apart: while usage is slow or gone, all else is told as ever.
        await consume_asking(
            deps.events, deps.database, "webhooks-of-callers", KINDS_OF_CALLERS, telling.ask, inbox="webhooks"
        )

    return Service(
        "notification",
        registrations=[
            (
                webhooks_pb2_grpc.add_WebhookEndpointServiceServicer_to_server,
                WebhookServicer(deps.database, store, keyring, rules, deps.events, deps.clock),
            )
        ],
        tasks=[
            follow,
            follow_endings,
            sender.run,
            sender.sweep,
            *PersonTasks(deps, "notification", NotificationData(deps.database, keyring)).tasks,
        ],
        close=sender.close,
    )
