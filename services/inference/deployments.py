"""What a model reference means now: the version, its price, its signature, and the loaded model.

Snapshots come from registry and billing, are forgotten when an event says so, and are refreshed every few seconds
beside the calls that use them; only the first call to a model waits."""

import asyncio
import logging
import time
from collections import OrderedDict
from dataclasses import dataclass

from mercat.billing.v1 import billing_pb2, billing_pb2_grpc
from mercat.event.v1 import event_pb2
from mercat.registry.v1 import registry_pb2, registry_pb2_grpc
from nats.aio.msg import Msg

from services.common.errors import FailedPrecondition, MercatError, NotFound
from services.common.events import Events, listen
from services.common.rpc.channels import InternalChannel
from services.inference.breaker import Breaker
from services.inference.residency import Residency, Resident
from services.inference.telemetry import Figures
from services.inference.tensors import Signature

log = logging.getLogger(__name__)
_REFRESH = 5.0  # seconds after which a snapshot is fetched anew beside the calls that use it
_STALE = 60.0  # seconds for which one is used while registry or billing cannot be asked
_MOST = 100_000
_DEFAULT_TIMEOUT = 30.0  # seconds
_CACHED = 3600.0  # seconds that an answer is kept where the model does not say


@dataclass(slots=True, eq=False)
class Deployment:
    """A callable version and its price, as they were at `at` (monotonic seconds)."""

    at: float
    version_id: str
    version: str
    proto: registry_pb2.Deployment
    signature: Signature
    price_id: str
    components: tuple[tuple[str, int], ...]
    currency: str
    max_rows: int
    timeout: float
    figures: Figures
    breaker: Breaker
    fallback: str  # version; empty: none
    cache_ttl: float  # seconds; 0: answers are not cached
    hit_price_percent: int
    decodes: bool = False  # goes on with texts and takes no tensors
    resident: Resident | None = None

    @property
    def ready(self) -> bool:
        return self.resident is not None and not self.resident.gone


class Deployments:
    """Snapshots by reference."""

    def __init__(self, channel: InternalChannel, residency: Residency) -> None:
        self._registry = registry_pb2_grpc.DeploymentServiceStub(channel)
        self._billing = billing_pb2_grpc.LeaseServiceStub(channel)
        self._residency = residency
        self._by_reference: OrderedDict[str, Deployment] = OrderedDict()
        self._flights: dict[str, asyncio.Task[Deployment]] = {}

    async def listen(self, events: Events) -> None:
        """Forgets what a change event names; JetStream's publications are heard like any other message."""

        async def changed(message: Msg) -> None:
            priced = message.subject.endswith("PriceChanged")
            kind = event_pb2.PriceChanged if priced else event_pb2.ModelChanged
            model = kind.FromString(message.data).model
            for reference, d in list(self._by_reference.items()):
                if d.proto.model == model:
                    if priced or not d.ready:
                        del self._by_reference[reference]
                    else:
                        self._fly(reference)  # calls go on while what comes next is made ready

        await listen(events, "mercat.event.ModelChanged", changed)
        await listen(events, "mercat.event.PriceChanged", changed)

    def cached(self, reference: str) -> Deployment | None:
        """The snapshot when it is in memory; the fast path, which never waits."""
        d = self._by_reference.get(reference)
        if d is None:
            return None
        age = time.monotonic() - d.at
        if age > _REFRESH:
            if age > _STALE:
                return None
            self._fly(reference)
        return d

    async def get(self, reference: str) -> Deployment:
        """Raises ModelNotFound and the like, or Unavailable when registry or billing cannot be asked."""
        if (d := self.cached(reference)) is not None:
            return d
        return await asyncio.shield(self._fly(reference))

    def _fly(self, reference: str) -> "asyncio.Task[Deployment]":
        task = self._flights.get(reference)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._fetch(reference))
            task.add_done_callback(lambda t: t.cancelled() or t.exception())  # a refresh nobody awaits may fail
            self._flights[reference] = task
        return task

    async def _fetch(self, reference: str) -> Deployment:
        try:
            answer = await self._registry.ResolveDeployment(
                registry_pb2.ResolveDeploymentRequest(reference=reference), timeout=5
            )
            proto: registry_pb2.Deployment = answer.deployment
            priced = await self._billing.ResolvePrice(
                billing_pb2.ResolvePriceRequest(model_id=proto.model_id), timeout=5
            )
        except (NotFound, FailedPrecondition):  # it is gone, or was taken out of service
            self._by_reference.pop(reference, None)
            raise
        finally:
            self._flights.pop(reference, None)
        known = self._by_reference.get(reference)
        same = known if known is not None and known.version_id == proto.version_id else None
        cache = proto.settings.response_cache
        d = Deployment(
            time.monotonic(), proto.version_id, proto.version, proto,
            same.signature if same else Signature(proto.signature),
            priced.price.price_id,
            tuple((c.meter, c.nanos_per_million) for c in priced.price.components),
            priced.price.currency or "USD",
            proto.settings.max_batch_size,
            (proto.settings.timeout_ms or _DEFAULT_TIMEOUT * 1000) / 1000,
            same.figures if same else Figures(proto.model, proto.version),
            same.breaker if same else Breaker(),
            proto.settings.fallback_version,
            (cache.ttl_seconds or _CACHED) if proto.settings.HasField("response_cache") else 0,
            cache.hit_price_percent,
            proto.text.kind == registry_pb2.TEXT_KIND_DECODER,
            self._residency.find(proto.version_id),
        )  # fmt: skip
        if known is not None and same is None and known.ready and d.resident is None:
            # The version that answers goes on until the one that takes its place is ready.
            try:
                await self.resident(d)
            except MercatError as e:
                log.warning("%s@%s goes on: %s could not be loaded: %s", proto.model, known.version, proto.version, e)
                known.at = time.monotonic()
                return known
        self._by_reference[reference] = d
        if len(self._by_reference) > _MOST:
            self._by_reference.popitem(last=False)
        return d

    async def resident(self, d: Deployment) -> Resident:
        """The loaded model, loading it first when it is not. Raises EngineFailed, EngineUnavailable."""
        d.resident = await self._residency.get(d.proto, d.figures)
        return d.resident

    async def close(self) -> None:
        await self._residency.close()
