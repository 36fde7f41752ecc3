"""What a model reference means now: the version, its price, its signature, and the loaded model with its batcher.

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

from services.common.errors import NotFound
from services.common.events import Events, listen
from services.common.rpc.channels import InternalChannel
from services.inference.batcher import Batcher
from services.inference.engines import Engine, Loaded
from services.inference.settings import InferenceSettings
from services.inference.tensors import Signature

log = logging.getLogger(__name__)
_REFRESH = 5.0  # seconds after which a snapshot is fetched anew beside the calls that use it
_STALE = 60.0  # seconds for which one is used while registry or billing cannot be asked
_MOST = 100_000
_DEFAULT_TIMEOUT = 30.0  # seconds


@dataclass(slots=True, eq=False)
class Resident:
    """A version whose model is loaded."""

    model: Loaded
    batcher: Batcher
    size_bytes: int
    load_seconds: float


@dataclass(slots=True, eq=False)
class Deployment:
    """A callable version and its price, as they were at `at` (monotonic seconds)."""

    at: float
    proto: registry_pb2.Deployment
    signature: Signature
    price_id: str
    components: tuple[tuple[str, int], ...]
    currency: str
    max_rows: int
    timeout: float
    resident: Resident | None = None


class Deployments:
    """Snapshots by reference, and the models in memory by digest."""

    def __init__(self, channel: InternalChannel, engine: Engine, settings: InferenceSettings) -> None:
        self._registry = registry_pb2_grpc.DeploymentServiceStub(channel)
        self._billing = billing_pb2_grpc.LeaseServiceStub(channel)
        self._engine = engine
        self._settings = settings
        self._by_reference: OrderedDict[str, Deployment] = OrderedDict()
        self._residents: OrderedDict[str, Resident] = OrderedDict()
        self._flights: dict[str, asyncio.Task[Deployment]] = {}
        self._loads: dict[str, asyncio.Task[Resident]] = {}

    async def listen(self, events: Events) -> None:
        """Forgets what a change event names; JetStream's publications are heard like any other message."""

        async def changed(message: Msg) -> None:
            priced = message.subject.endswith("PriceChanged")
            kind = event_pb2.PriceChanged if priced else event_pb2.ModelChanged
            model = kind.FromString(message.data).model
            for reference, d in list(self._by_reference.items()):
                if d.proto.model == model:
                    del self._by_reference[reference]

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
        except NotFound:
            self._by_reference.pop(reference, None)
            raise
        finally:
            self._flights.pop(reference, None)
        known = self._by_reference.get(reference)
        d = Deployment(
            time.monotonic(), proto,
            known.signature if known and known.proto.digest == proto.digest else Signature(proto.signature),
            priced.price.price_id,
            tuple((c.meter, c.nanos_per_million) for c in priced.price.components),
            priced.price.currency or "USD",
            proto.settings.max_batch_size,
            (proto.settings.timeout_ms or _DEFAULT_TIMEOUT * 1000) / 1000,
            self._residents.get(proto.version_id),
        )  # fmt: skip
        self._by_reference[reference] = d
        if len(self._by_reference) > _MOST:
            self._by_reference.popitem(last=False)
        return d

    async def resident(self, d: Deployment) -> Resident:
        """The loaded model, loading it first when it is not; one load however many calls wait. Raises EngineFailed."""
        if d.resident is not None:
            return d.resident
        key = d.proto.version_id
        if key in self._residents:
            self._residents.move_to_end(key)
            d.resident = self._residents[key]
            return d.resident
        task = self._loads.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._load(d.proto))
            task.add_done_callback(lambda t: self._loads.pop(key, None))
            self._loads[key] = task
        d.resident = await asyncio.shield(task)
        return d.resident

    async def _load(self, proto: registry_pb2.Deployment) -> Resident:
        started = time.perf_counter()
        self._make_room(proto.size_bytes)
        model = await self._engine.load(proto)
        settings = proto.settings
        batcher = Batcher(
            model.run, max_rows=settings.max_batch_size, delay=settings.max_queue_delay_us / 1e6,
            most_waiting=self._settings.queue_rows, runs=self._engine.runs,
        )  # fmt: skip
        resident = Resident(model, batcher, proto.size_bytes, time.perf_counter() - started)
        self._residents[proto.version_id] = resident
        log.info("loaded %s@%s in %.2f s", proto.model, proto.version, resident.load_seconds)
        return resident

    def _make_room(self, wanted: int) -> None:
        budget = self._settings.memory_mb << 20
        while self._residents and sum(r.size_bytes for r in self._residents.values()) + wanted > budget:
            key, evicted = self._residents.popitem(last=False)
            for d in self._by_reference.values():
                if d.resident is evicted:
                    d.resident = None
            log.info("unloaded %s to make room", key)

    async def close(self) -> None:
        await self._engine.close()
