"""`DecoderProcess`: a decoder model in a process beside the worker, replaced when it ends; who caused that is told."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from pathlib import Path

from mercat.registry.v1 import registry_pb2

from services.common.texts import Options, Piece, Prompt, Written
from services.common.texts.limits import Limits
from services.inference.engines import Crashed, EngineCrashed, EngineUnavailable
from services.inference.telemetry import TextFigures
from services.inference.text import Prepared, wire
from services.inference.text.child import Child
from services.inference.text.news import Stats

log = logging.getLogger(__name__)


class DecoderProcess:
    """A decoder model, as `Decoder` says. `limits`: what it may use, with `memory_mib` of address space; `crashed` is
    called with its version when it brought its process down. With `elsewhere` the model is not loaded, and its prompts
    are counted and written only."""

    def __init__(
        self, path: Path, deployment: registry_pb2.Deployment, limits: Limits, *, memory_mib: int, crashed: Crashed,
        patience: float = 60.0, elsewhere: bool = False,
    ) -> None:  # fmt: skip
        self.context_tokens = 0
        self._path, self._deployment, self._limits = path, deployment, limits
        self._memory_mib, self._crashed, self._patience = memory_mib, crashed, patience
        self._kind = wire.INTAKE if elsewhere else wire.LOAD
        self._figures = TextFigures(deployment.model, deployment.version)
        self._process: Child | None = None
        self._starting = asyncio.Lock()
        self._number = 0
        self._idle = asyncio.Event()
        self._unloading = False

    async def open(self) -> None:
        """Loads it. Raises EngineFailed, EngineCrashed."""
        await self._there()

    async def count(self, prompt: Prompt) -> int:
        process = await self._there()
        return int(await process.ask(wire.COUNT, self._next(), wire.question(prompt)))

    async def write(self, prompt: Prompt, options: Options) -> Written:
        """A prompt for the engine that has the model. Raises as `prepare`, and BadPrompt for tokens that no text
        becomes."""
        process = await self._there()
        body = await process.ask(wire.WRITE, self._next(), wire.question(prompt, options))
        try:
            return wire.read_written(body)
        except (KeyError, TypeError, ValueError) as e:
            process.kill(f"what it says is not understood: {e!r}")
            raise EngineCrashed("the model brought its engine down") from e

    async def prepare(self, prompt: Prompt, options: Options) -> Prepared:
        process = await self._there()
        number = self._next()
        try:
            tokens, most = await process.ask(wire.PREPARE, number, wire.question(prompt, options))
        except asyncio.CancelledError:
            process.send(wire.FORGET, number)
            raise
        process.ready.add(number)
        return Prepared(number, int(tokens), int(most))

    def forget(self, prepared: Prepared) -> None:
        process = self._process
        if process is not None and prepared.number in process.ready:
            process.ready.discard(prepared.number)
            process.send(wire.FORGET, prepared.number)

    async def generate(
        self, prepared: Prepared, *, account: str, level: int = 0, deadline: float = float("inf")
    ) -> AsyncGenerator[list[Piece], None]:
        process = self._process
        if process is None or prepared.number not in process.ready:
            raise EngineCrashed("the process that had the prompt is gone")
        left = deadline - asyncio.get_running_loop().time()
        seconds = None if left == float("inf") else left
        stream = process.open(prepared)
        try:
            process.send(wire.GENERATE, prepared.number, {"account": account, "level": level, "seconds": seconds})
            while True:
                await stream.news.wait()
                stream.news.clear()
                pieces, stream.pieces = stream.pieces, []
                if pieces:
                    yield pieces
                if stream.ended and not stream.pieces:
                    break
            if stream.error is not None:
                raise stream.error
        finally:
            process.close(stream)
            if not process.busy:
                self._idle.set()

    @property
    def stats(self) -> Stats:
        """As last heard."""
        return self._process.stats if self._process is not None else Stats(self._limits.slots)

    async def unload(self) -> None:
        """Answers under way end first; nothing begins any more."""
        self._unloading = True
        async with self._starting:
            while (process := self._process) is not None and process.busy:
                self._idle.clear()
                await self._idle.wait()
            if process is not None:
                await process.stop()

    def _next(self) -> int:
        self._number = self._number % 0xFFFFFFFF + 1
        return self._number

    async def _there(self) -> Child:
        """The process that lives, started where there is none."""
        if self._unloading:
            raise EngineUnavailable("this model is being unloaded", retry_after=0.1)
        if (there := self._process) is not None and there.alive:
            return there
        async with self._starting:
            if self._process is None or not self._process.alive:
                if self._process is not None:
                    await self._process.stop()
                process = Child(self._figures, self._patience, self._culprit)
                try:
                    await process.start(self._path, self._limits, self._memory_mib, self._kind)
                except BaseException:
                    await process.stop()
                    raise
                self._process = process
                self.context_tokens = process.context_tokens
            return self._process

    def _culprit(self) -> None:
        d = self._deployment
        log.error("%s@%s (%s) brought its engine process down", d.model_id, d.version, d.version_id)
        self._crashed(d)
