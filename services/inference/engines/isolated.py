"""`IsolatedEngine` runs ONNX models in a process beside the worker: a graph that brings its engine down takes nothing
else with it. The process is replaced, runs of other models are repeated there, and who crashed it is told."""

import asyncio
import json
import logging
import socket
import sys
from collections.abc import Sequence

from mercat.registry.v1 import registry_pb2

from services.common.errors import EngineFailed
from services.inference.artifacts import Artifacts
from services.inference.engines import Crashed, EngineCrashed, Inputs, ModelRefused, Outputs, wire
from services.inference.engines.confined import environment
from services.inference.text.decoders import Decoders

log = logging.getLogger(__name__)
_START = 30.0  # seconds
_STUBBORN = 10.0  # seconds after which a run that was cancelled is ended with its process


class _Died(Exception):
    """The process ended while a question was open. `alone`: it was at nothing else."""

    def __init__(self, *, alone: bool) -> None:
        super().__init__("the engine process ended")
        self.alone = alone


class _Process(asyncio.Protocol):
    """One engine process, and the questions that are open, by number: kind, and the answer to come."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._open: dict[int, tuple[int, asyncio.Future[bytes]]] = {}
        self._runs = 1
        self._number = 0
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._process: asyncio.subprocess.Process | None = None
        self.alive = False

    async def start(self, runs: int, memory_mib: int) -> None:
        self._runs = runs
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "services.inference.engines.host", str(theirs.fileno()), str(runs),
                str(memory_mib), pass_fds=[theirs.fileno()], env=environment(), stdin=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
        await self._loop.create_unix_connection(lambda: self, sock=ours)
        self.alive = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        at = 0
        while len(buffer) - at >= wire.HEAD.size:
            size, kind, number = wire.HEAD.unpack_from(buffer, at)
            start = at + wire.HEAD.size
            if len(buffer) - start < size:
                break
            self._answer(number, kind, bytes(memoryview(buffer)[start : start + size]))
            at = start + size
        del buffer[:at]

    def _answer(self, number: int, kind: int, body: bytes) -> None:
        _, future = self._open.pop(number, (0, None))
        if future is None or future.done():
            return
        if kind == wire.DONE:
            future.set_result(body)
        else:
            text = body.decode(errors="replace")[:400]
            future.set_exception(ModelRefused(text) if kind == wire.REFUSED else EngineFailed(text))

    def connection_lost(self, exc: Exception | None) -> None:
        self.alive = False
        # Runs are begun in the order in which they were asked for; those after the first few had not been.
        runs = [number for number, (kind, _) in self._open.items() if kind == wire.RUN]
        doing = {number for number, (kind, _) in self._open.items() if kind != wire.RUN} | set(runs[: self._runs])
        for number, (_, future) in self._open.items():
            if not future.done():
                future.set_exception(_Died(alone=doing == {number}))
        self._open.clear()

    async def ask(self, kind: int, *body: bytes) -> bytes:
        """The body of the answer. A cancelled run is ended in the engine first. Raises _Died, ModelRefused,
        EngineFailed."""
        if not self.alive or self._transport is None:
            raise _Died(alone=False)
        self._number = number = (self._number + 1) & 0xFFFFFFFF
        future: asyncio.Future[bytes] = self._loop.create_future()
        self._open[number] = (kind, future)
        self._transport.write(wire.frame(kind, number, *body))
        try:
            return await future
        except asyncio.CancelledError:
            if number in self._open:  # the future was cancelled with the caller; the question is still open
                ended: asyncio.Future[bytes] = self._loop.create_future()
                self._open[number] = (kind, ended)
                self._transport.write(wire.frame(wire.CANCEL, number))
                await asyncio.wait([ended], timeout=_STUBBORN)
                if not ended.done():
                    log.warning("a run that was cancelled does not end: its engine process is replaced")
                    self.kill()
                    await asyncio.wait([ended])
                ended.exception()
            raise

    def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def stop(self) -> None:
        if self._transport is not None:
            self._transport.close()
        if self._process is not None:
            await self._process.wait()


class IsolatedEngine:
    """`threads` work inside one run, `runs` runs go at a time, in at most `memory_mib` of address space. `crashed` is
    called with the version that brought its engine down. `decoders` have processes of their own."""

    def __init__(
        self, artifacts: Artifacts, *, threads: int, runs: int, memory_mib: int, crashed: Crashed, decoders: Decoders
    ) -> None:
        self.threads, self.runs = threads, runs
        self.artifacts = artifacts
        self.load_decoder = decoders.load
        self.crashed = crashed
        self._memory_mib = memory_mib
        self._process: _Process | None = None
        self._starting = asyncio.Lock()
        self.slots = asyncio.Semaphore(runs + 1)  # and the one that is next
        self.alone = asyncio.Lock()  # held by a run that is repeated to see whether it was the one
        self.models = 0

    async def process(self) -> _Process:
        """The process that lives, started where there is none."""
        if (there := self._process) is not None and there.alive:
            return there
        async with self._starting:
            if self._process is None or not self._process.alive:
                if self._process is not None:
                    await self._process.stop()
                started = _Process()
                async with asyncio.timeout(_START):
                    await started.start(self.runs, self._memory_mib)
                self._process = started
            return self._process

    async def load(self, deployment: registry_pb2.Deployment) -> "IsolatedModel":
        model = IsolatedModel(self, deployment, str(await self.artifacts.find(deployment)))
        await model.open()
        return model

    async def healthy(self) -> bool:
        return self._process is None or self._process.alive

    async def close(self) -> None:
        if self._process is not None:
            await self._process.stop()


class IsolatedModel:
    """A model in the engine process, loaded again whenever that was replaced."""

    ahead = True
    batches = False

    def __init__(self, engine: IsolatedEngine, deployment: registry_pb2.Deployment, path: str) -> None:
        engine.models += 1
        self.runs = engine.runs
        self._engine, self._deployment = engine, deployment
        self._number = engine.models
        inputs = [spec.name for spec in deployment.signature.inputs]
        outputs = [spec.name for spec in deployment.signature.outputs]
        self._inputs = {name: index for index, name in enumerate(inputs)}
        self._outputs = {name: index for index, name in enumerate(outputs)}
        self._names = outputs
        what = {"model": self._number, "path": path, "threads": engine.threads, "inputs": inputs, "outputs": outputs}
        self._load = json.dumps(what).encode()
        self._home: _Process | None = None  # the process that has it
        self._loading = asyncio.Lock()

    async def open(self) -> None:
        """Loads it. Raises EngineFailed, EngineCrashed."""
        await self._surely(())

    async def run(self, inputs: Inputs, outputs: Sequence[str]) -> Outputs:
        body = wire.question(
            self._number, [self._outputs[name] for name in outputs],
            [(self._inputs[name], array) for name, array in inputs.items()],
        )  # fmt: skip
        async with self._engine.slots:
            answer = await self._surely(body)
        return {self._names[index]: array for index, array in wire.tensors(answer)}

    async def _surely(self, body: Sequence[bytes]) -> bytes:
        """Asks, and asks again where the process ended for another model's sake."""
        try:
            return await self._ask(body)
        except _Died as e:
            if e.alone:
                raise self._culprit() from None
        async with self._engine.alone:
            for _ in range(3):
                try:
                    return await self._ask(body)
                except _Died as e:
                    if e.alone:
                        raise self._culprit() from None
        raise EngineFailed("the engine process keeps ending")

    async def _ask(self, body: Sequence[bytes]) -> bytes:
        process = await self._engine.process()
        if self._home is not process:
            async with self._loading:
                if self._home is not process:
                    await process.ask(wire.LOAD, self._load)
                    self._home = process
        return await process.ask(wire.RUN, *body) if body else b""

    def _culprit(self) -> EngineCrashed:
        d = self._deployment
        log.error("%s@%s (%s) brought its engine process down", d.model_id, d.version, d.version_id)
        self._engine.crashed(d)
        return EngineCrashed("the model brought its engine down")

    async def unload(self) -> None:
        home, self._home = self._home, None
        if home is not None and home.alive:
            try:
                await home.ask(wire.UNLOAD, self._number.to_bytes(4, "little"))
            except _Died:
                pass  # and the model with it
