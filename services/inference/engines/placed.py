"""`PlacedEngine` runs each version where its placement says: in this process, on Triton, or on Triton with this process
to fall back on."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Generic, TypeVar
from weakref import WeakSet

from mercat.registry.v1 import registry_pb2

from services.common.errors import EngineFailed, MercatError
from services.common.texts import Options, Piece, Prompt
from services.inference.engines import Engine, EngineUnavailable, Inputs, Loaded, Outputs
from services.inference.text import Decoder, Prepared

log = logging.getLogger(__name__)
_LOOK = 0.25  # seconds until Triton is tried again, doubled up to
_RARELY = 30.0  # seconds, while it is there but does not load the model
Held = TypeVar("Held", Loaded, Decoder)


class PlacedEngine:
    """`triton` is None where the worker has none: what must run there is unavailable then, the rest runs here."""

    def __init__(self, embedded: Engine, triton: Engine | None) -> None:
        self._embedded = embedded
        self._triton = triton
        self._fallbacks: WeakSet[_Fallback[Any]] = WeakSet()

    async def load(self, deployment: registry_pb2.Deployment) -> Loaded:
        placement = deployment.settings.placement
        if placement == registry_pb2.PLACEMENT_TRITON:
            return await self._only_triton(deployment).load(deployment)
        if placement == registry_pb2.PLACEMENT_TRITON_OR_EMBEDDED and self._triton is not None:
            model = FallbackModel(self._triton, self._embedded, deployment, lambda engine: engine.load(deployment))
            self._fallbacks.add(model)
            await model.open()
            return model
        return await self._embedded.load(deployment)

    async def load_decoder(self, deployment: registry_pb2.Deployment) -> Decoder:
        placement = deployment.settings.placement
        if placement == registry_pb2.PLACEMENT_TRITON:
            return await self._only_triton(deployment).load_decoder(deployment)
        if placement == registry_pb2.PLACEMENT_TRITON_OR_EMBEDDED and self._triton is not None:
            decoder = FallbackDecoder(self._triton, self._embedded, deployment)
            self._fallbacks.add(decoder)
            await decoder.open()
            return decoder
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


class _Fallback(Generic[Held]):
    """A version on `first`, and on `second` while `first` cannot be reached. `load` loads it on one of them."""

    def __init__(
        self, first: Engine, second: Engine, deployment: registry_pb2.Deployment,
        load: Callable[[Engine], Awaitable[Held]],
    ) -> None:  # fmt: skip
        self._engines = first, second
        self._deployment = deployment
        self._load: Callable[[Engine], Awaitable[Held]] = load
        self._first: Held | None = None
        self._second: Held | None = None
        self._loading = asyncio.Lock()
        self._returning: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Loads it on the first engine, or else on the second. Raises what the second does."""
        try:
            self._first = await self._load(self._engines[0])
        except (EngineUnavailable, EngineFailed) as e:
            self._leave(None, e)
            await self._fallback()

    async def unload(self) -> None:
        self.close()
        for held in (self._first, self._second):
            if held is not None:
                await held.unload()

    def close(self) -> None:
        """Ends the attempts to return to the first engine."""
        if self._returning is not None:
            self._returning.cancel()

    async def _fallback(self) -> Held:
        async with self._loading:
            if self._second is None:
                self._second = await self._load(self._engines[1])
            return self._second

    def _leave(self, first: Held | None, why: MercatError) -> None:
        if self._first is first and (self._returning is None or self._returning.done()):
            log.warning("%s@%s falls back: %s", self._deployment.model_id, self._deployment.version, why.message)
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
                self._first = await self._load(self._engines[0])
            except MercatError:
                pause = min(pause * 2, _RARELY)
        log.info("%s@%s is back", self._deployment.model_id, self._deployment.version)
        second, self._second = self._second, None
        if second is not None:
            await second.unload()


class FallbackModel(_Fallback[Loaded]):
    """A call that finds out that the first engine is away runs again on the second."""

    ahead = False
    batches = False
    runs = 4

    async def run(self, inputs: Inputs, outputs: Sequence[str]) -> Outputs:
        first = self._first
        if first is not None:
            try:
                return await first.run(inputs, outputs)
            except EngineUnavailable as e:
                self._leave(first, e)
        return await (await self._fallback()).run(inputs, outputs)


@dataclass(frozen=True, slots=True)
class _Call:
    """What was asked for, and where it is prepared."""

    prompt: Prompt
    options: Options
    decoder: Decoder
    prepared: Prepared


class FallbackDecoder(_Fallback[Decoder]):
    """A call that finds out before its first piece that its engine is away begins again on the other; one that has
    pieces fails."""

    def __init__(self, first: Engine, second: Engine, deployment: registry_pb2.Deployment) -> None:
        super().__init__(first, second, deployment, lambda engine: engine.load_decoder(deployment))
        self._calls: dict[int, _Call] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._numbers = count(1)
        self.context_tokens = 0

    async def open(self) -> None:
        await super().open()
        self.context_tokens = (await self._there()).context_tokens

    async def count(self, prompt: Prompt) -> int:
        return await (await self._there()).count(prompt)

    async def prepare(self, prompt: Prompt, options: Options) -> Prepared:
        call = await self._prepare(prompt, options)
        number = next(self._numbers)
        self._calls[number] = call
        return Prepared(number, call.prepared.input_tokens, call.prepared.most_tokens)

    def forget(self, prepared: Prepared) -> None:
        if (call := self._calls.pop(prepared.number, None)) is not None:
            call.decoder.forget(call.prepared)

    async def generate(
        self, prepared: Prepared, *, account: str, level: int = 0, deadline: float = float("inf")
    ) -> AsyncGenerator[list[Piece], None]:
        call = self._calls.pop(prepared.number)
        begun = False
        while True:
            pieces = call.decoder.generate(call.prepared, account=account, level=level, deadline=deadline)
            try:
                async with aclosing(pieces):
                    async for some in pieces:
                        begun = True
                        prepared.cached_tokens = call.prepared.cached_tokens
                        yield some
                return
            except (EngineUnavailable, EngineFailed) as e:
                away = call.decoder is self._first and isinstance(e, EngineUnavailable)
                if begun or not (away or call.decoder not in (self._first, self._second)):
                    raise
                if away:
                    self._leave(call.decoder, e)
            # What the longest answer costs is reserved.
            same = replace(call.options, max_tokens=prepared.most_tokens // max(1, call.options.n))
            call = await self._prepare(call.prompt, same)

    def _leave(self, first: Decoder | None, why: MercatError) -> None:
        super()._leave(first, why)
        if first is not None and first is not self._first:
            task = asyncio.get_running_loop().create_task(_unload(first))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    async def _prepare(self, prompt: Prompt, options: Options) -> _Call:
        decoder = await self._there()
        return _Call(prompt, options, decoder, await decoder.prepare(prompt, options))

    async def _there(self) -> Decoder:
        """The one that runs it now."""
        if (first := self._first) is not None:
            if await self._engines[0].healthy():
                return first
            self._leave(first, EngineUnavailable("its engine cannot be reached"))
        return await self._fallback()


async def _unload(decoder: Decoder) -> None:
    """Frees what it holds here; its engine is away."""
    with suppress(MercatError):
        await decoder.unload()
