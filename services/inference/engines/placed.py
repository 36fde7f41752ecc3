"""`PlacedEngine` runs each version where its placement says: in this process, on Triton, or on Triton with this process
to fall back on."""

import asyncio
import logging
from collections.abc import Sequence
from weakref import WeakSet

from mercat.registry.v1 import registry_pb2

from services.common.errors import MercatError
from services.inference.engines import Engine, EngineFailed, EngineUnavailable, Inputs, Loaded, Outputs
from services.inference.text import Decoder

log = logging.getLogger(__name__)
_LOOK = 0.25  # seconds until Triton is tried again, doubled up to
_RARELY = 30.0  # seconds, while it is there but does not load the model


class PlacedEngine:
    """`triton` is None where the worker has none: what must run there is unavailable then, the rest runs here."""

    def __init__(self, embedded: Engine, triton: Engine | None) -> None:
        self._embedded = embedded
        self._triton = triton
        self._fallbacks: WeakSet[FallbackModel] = WeakSet()

    async def load(self, deployment: registry_pb2.Deployment) -> Loaded:
        placement = deployment.settings.placement
        if placement == registry_pb2.PLACEMENT_TRITON:
            return await self._only_triton(deployment).load(deployment)
        if placement == registry_pb2.PLACEMENT_TRITON_OR_EMBEDDED and self._triton is not None:
            model = FallbackModel(self._triton, self._embedded, deployment)
            self._fallbacks.add(model)
            await model.open()
            return model
        return await self._embedded.load(deployment)

    async def load_decoder(self, deployment: registry_pb2.Deployment) -> Decoder:
        if deployment.settings.placement == registry_pb2.PLACEMENT_TRITON:
            return await self._only_triton(deployment).load_decoder(deployment)
        return await self._embedded.load_decoder(deployment)

    def _only_triton(self, deployment: registry_pb2.Deployment) -> Engine:
        if self._triton is None:
            raise EngineUnavailable(
                f"{deployment.model}@{deployment.version} runs on Triton only, and this worker has no Triton"
            )
        return self._triton

    async def healthy(self) -> bool:
        return await self._embedded.healthy()

    async def close(self) -> None:
        for model in self._fallbacks:
            model.close()
        if self._triton is not None:
            await self._triton.close()
        await self._embedded.close()


class FallbackModel:
    """A version on `first`, and on `second` while `first` cannot be reached. A call that finds out runs again there."""

    ahead = False
    batches = False
    runs = 4

    def __init__(self, first: Engine, second: Engine, deployment: registry_pb2.Deployment) -> None:
        self._engines = first, second
        self._deployment = deployment
        self._first: Loaded | None = None
        self._second: Loaded | None = None
        self._loading = asyncio.Lock()
        self._returning: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Loads it on the first engine, or else on the second. Raises what the second does."""
        try:
            self._first = await self._engines[0].load(self._deployment)
        except (EngineUnavailable, EngineFailed) as e:
            self._leave(None, e)
            await self._fallback()

    async def run(self, inputs: Inputs, outputs: Sequence[str]) -> Outputs:
        first = self._first
        if first is not None:
            try:
                return await first.run(inputs, outputs)
            except EngineUnavailable as e:
                self._leave(first, e)
        return await (await self._fallback()).run(inputs, outputs)

    async def unload(self) -> None:
        self.close()
        for model in (self._first, self._second):
            if model is not None:
                await model.unload()

    def close(self) -> None:
        """Ends the attempts to return to the first engine."""
        if self._returning is not None:
            self._returning.cancel()

    async def _fallback(self) -> Loaded:
        async with self._loading:
            if self._second is None:
                self._second = await self._engines[1].load(self._deployment)
            return self._second

    def _leave(self, first: Loaded | None, why: MercatError) -> None:
        if self._first is first and (self._returning is None or self._returning.done()):
            log.warning("%s@%s falls back: %s", self._deployment.model, self._deployment.version, why.message)
            self._first = None
            self._returning = asyncio.get_running_loop().create_task(self._return())

    async def _return(self) -> None:
        """Loads it on the first engine as soon as that is there; meanwhile calls run on the second."""
        pause = _LOOK
        while self._first is None:
            await asyncio.sleep(pause)
            if not await self._engines[0].healthy():
                pause = _LOOK
                continue
            try:
                self._first = await self._engines[0].load(self._deployment)
            except MercatError:
                pause = min(pause * 2, _RARELY)
        log.info("%s@%s is back", self._deployment.model, self._deployment.version)
        second, self._second = self._second, None
        if second is not None:
            await second.unload()
