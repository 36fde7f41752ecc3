"""The models in memory: loaded on the first call, warmed up before they count as ready, and the least recently used
unloaded when the budget is spent. However many calls wait for a model, it is loaded once."""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import cast

import numpy as np
from google.protobuf import json_format
from mercat.inference.v1 import inference_pb2
from mercat.registry.v1 import registry_pb2

from services.common.errors import MercatError
from services.common.predict import read_inputs
from services.common.tensors import Array, Signature
from services.inference.batcher import Batcher
from services.inference.engines import Engine, Loaded
from services.inference.padding import Padder
from services.inference.settings import InferenceSettings
from services.inference.telemetry import EVICTIONS, LOAD_SECONDS, RESIDENT, RESIDENT_BYTES, Figures
from services.inference.text import Decoder
from services.inference.tickets import Queueing, Ticket

log = logging.getLogger(__name__)


class Resident:
    """A version whose model is loaded: by tensors through its batcher, or a decoder. `used`: when it was called last,
    event loop's clock. `gone`: it was unloaded."""

    __slots__ = (
        "_batcher", "_decoder", "_ended", "_loop", "_model", "_streams", "gone", "load_seconds", "pinned", "size_bytes",
        "used",
    )  # fmt: skip

    def __init__(
        self, model: Loaded | Decoder, batcher: Batcher | None, size_bytes: int, load_seconds: float, *, pinned: bool
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._model, self._batcher = model, batcher
        self.size_bytes, self.load_seconds, self.pinned = size_bytes, load_seconds, pinned
        self.used = self._loop.time()
        self.gone = False
        self._streams = 0
        self._ended = asyncio.Event()

    @property
    def batcher(self) -> Batcher:
        assert self._batcher is not None
        return self._batcher

    def submit(self, ticket: Ticket) -> Awaitable[Mapping[str, Array]]:
        """As Batcher.submit."""
        self.used = self._loop.time()
        return self.batcher.submit(ticket)

    @contextmanager
    def streaming(self) -> Iterator[Decoder]:
        """The decoder, for a call: it is not unloaded meanwhile."""
        assert self._batcher is None
        self._streams += 1
        try:
            yield cast("Decoder", self._model)
        finally:
            self._streams -= 1
            self.used = self._loop.time()
            self._ended.set()

    @property
    def busy(self) -> bool:
        return self._batcher.busy if self._batcher is not None else self._streams > 0

    async def unload(self) -> None:
        """Ends calls that are under way first. Raises MercatError."""
        if self._batcher is not None:
            await self._batcher.idle()
        while self._streams:
            self._ended.clear()
            await self._ended.wait()
        await self._model.unload()


class Residency:
    """One worker's models, by version id."""

    def __init__(self, engine: Engine, settings: InferenceSettings) -> None:
        self._engine = engine
        self._settings = settings
        self._pinned = {reference.strip() for reference in settings.pinned.split(",") if reference.strip()}
        self._residents: dict[str, Resident] = {}
        self._loads: dict[str, asyncio.Task[Resident]] = {}
        self._unloads: set[asyncio.Task[None]] = set()

    def find(self, version_id: str) -> Resident | None:
        """The model when it is in memory."""
        return self._residents.get(version_id)

    async def get(self, proto: registry_pb2.Deployment, figures: Figures) -> Resident:
        """The loaded model. Raises EngineFailed, EngineUnavailable."""
        key = proto.version_id
        if (resident := self._residents.get(key)) is not None:
            return resident
        task = self._loads.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._load(proto, figures))
            task.add_done_callback(lambda t: (self._loads.pop(key, None), t.cancelled() or t.exception()))
            self._loads[key] = task
        return await asyncio.shield(task)

    async def _load(self, proto: registry_pb2.Deployment, figures: Figures) -> Resident:
        started = time.perf_counter()
        self._make_room(proto.size_bytes)
        model: Loaded | Decoder
        batcher: Batcher | None = None
        if proto.text.kind == registry_pb2.TEXT_KIND_DECODER:
            model = await self._engine.load_decoder(proto)
        else:
            model = await self._engine.load(proto)
            batcher = await self._batcher(model, proto, figures)
        seconds = time.perf_counter() - started
        pinned = proto.model in self._pinned or f"{proto.model}@{proto.version}" in self._pinned
        resident = Resident(model, batcher, proto.size_bytes, seconds, pinned=pinned)
        self._residents[proto.version_id] = resident
        LOAD_SECONDS.labels().observe(seconds)
        figures.cold_start.value = seconds
        self._measure()
        log.info("loaded %s@%s in %.2f s", proto.model_id, proto.version, seconds)
        return resident

    async def _batcher(self, model: Loaded, proto: registry_pb2.Deployment, figures: Figures) -> Batcher:
        signature = Signature(proto.signature)
        await self._warm_up(model, proto, signature)
        settings, own = proto.settings, self._settings
        levels = max(1, settings.priority_levels)
        queueing = Queueing(
            max_rows=0 if model.batches else settings.max_batch_size, delay=settings.max_queue_delay_us / 1e6,
            preferred=frozenset(settings.preferred_batch_sizes), most_waiting=settings.max_queue_size or own.queue_rows,
            timeout=settings.queue_timeout_us / 1e6 or float("inf"), levels=levels,
            level=settings.default_priority_level or (levels + 1) // 2,
        )  # fmt: skip
        padder = Padder(signature, settings.padding) if settings.padding else None
        return Batcher(model, queueing, figures, padder=padder, runs=model.runs, ahead=model.ahead)

    async def _warm_up(self, model: Loaded, proto: registry_pb2.Deployment, signature: Signature) -> None:
        """Runs the version's samples, or zeros where it has none: the first run of a graph allocates what all others
        use. What a sample does wrong is not the caller's trouble."""
        for inputs in _samples(proto.samples, signature) or [_zeros(signature)]:
            try:
                await model.run(inputs, signature.output_names)
            except MercatError as e:
                log.warning("warm-up of %s@%s: %s", proto.model_id, proto.version, e.message)

    def _make_room(self, wanted: int) -> None:
        budget = self._settings.memory_mb << 20
        taken = sum(r.size_bytes for r in self._residents.values())
        # Those that are idle first, of them the one that was called longest ago.
        order = sorted(self._residents.items(), key=lambda kv: (kv[1].busy, kv[1].used))
        for version_id, resident in order:
            if taken + wanted <= budget:
                break
            if not resident.pinned:
                taken -= resident.size_bytes
                self.evict(version_id)
                EVICTIONS.labels().inc()

    def evict(self, version_id: str) -> None:
        """Unloads a model; calls that wait for it still run."""
        resident = self._residents.pop(version_id, None)
        if resident is None:
            return
        resident.gone = True
        self._measure()
        task = asyncio.get_running_loop().create_task(self._unload(version_id, resident))
        self._unloads.add(task)
        task.add_done_callback(self._unloads.discard)

    async def _unload(self, version_id: str, resident: Resident) -> None:
        try:
            await resident.unload()
        except MercatError as e:
            log.warning("%s could not be unloaded: %s", version_id, e.message)
        log.info("unloaded %s", version_id)

    def _measure(self) -> None:
        RESIDENT.labels().value = len(self._residents)
        RESIDENT_BYTES.labels().value = sum(r.size_bytes for r in self._residents.values())

    async def close(self) -> None:
        for task in (*self._loads.values(), *self._unloads):
            task.cancel()
        await self._engine.close()


def _samples(samples: Sequence[registry_pb2.Sample], signature: Signature) -> list[dict[str, Array]]:
    found: list[dict[str, Array]] = []
    for sample in samples[:4]:
        try:
            body = json.loads(sample.request_json)
            request = json_format.ParseDict(body, inference_pb2.PredictRequest(), ignore_unknown_fields=True)
            found.append(read_inputs(request, signature))
        except (ValueError, json_format.ParseError, MercatError) as e:
            log.warning("the sample %r cannot be used to warm up: %s", sample.title, e)
    return found


def _zeros(signature: Signature) -> dict[str, Array]:
    zeros: dict[str, Array] = {}
    for spec in signature.inputs.values():
        array = np.zeros([1 if n == -1 else n for n in spec.shape], spec.dtype)
        if spec.datatype == "BYTES":
            array.fill("")
        zeros[spec.name] = array
    return zeros
