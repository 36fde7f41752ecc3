"""Webhooks for people and programs: what is served, of the modules beside this one."""

from mercat.notification.v1 import webhooks_pb2_grpc

from services.common.clock import Clock
from services.common.db import Database
from services.common.egress import Rules
from services.common.events import Events
from services.common.secrets.keyring import Keyring
from services.notification.webhooks.deliveries import Deliveries
from services.notification.webhooks.endpoints import Endpoints
from services.notification.webhooks.listening import Listening
from services.notification.webhooks.store import WebhookStore


class WebhookServicer(Endpoints, Deliveries, Listening, webhooks_pb2_grpc.WebhookEndpointServiceServicer):
    """Serves `mercat.notification.v1.WebhookEndpointService`."""

    def __init__(
        self, database: Database, store: WebhookStore, keyring: Keyring, rules: Rules, events: Events, clock: Clock
    ) -> None:
        super().__init__(database, store, keyring, rules, clock)
        self._events = events
