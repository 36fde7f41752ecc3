"""Dynamic batching: calls that wait while the engine is busy run together. An idle engine starts at once, so a lone
call never waits for company."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from services.common.errors import DeadlineExceeded, ResourceExhausted
from services.inference.tensors import Array

Run = Callable[[Mapping[str, Array], Sequence[str]], Awaitable[Mapping[str, Array]]]


class QueueFull(ResourceExhausted, reason="QUEUE_FULL"):
    """Too many rows wait for this model."""


@dataclass(slots=True, eq=False)
class _Waiting:
    inputs: Mapping[str, Array]
    rows: int
    outputs: Sequence[str]
    key: tuple[object, ...]
    deadline: float | None
    since: float
    future: "asyncio.Future[Mapping[str, Array]]"


@dataclass(slots=True)
class Figures:
    """Counted since the model was loaded; times in nanoseconds."""

    calls: int = 0
    failures: int = 0
    rows: int = 0
    runs: int = 0
    queue_ns: int = 0
    compute_ns: int = 0
    failure_ns: int = 0
    last_ms: int = 0


class Batcher:
    """One model's queue.

    `max_rows` is the most rows of a run; 0: calls are never put together. `delay` is how long, in seconds, a batch that
    is not full may wait when the last one held several calls. `most_waiting` bounds the rows that wait.
    """

    def __init__(self, run: Run, *, max_rows: int, delay: float, most_waiting: int, runs: int = 1) -> None:
        self._run = run
        self._max_rows = max_rows
        self._delay = delay
        self._most_waiting = most_waiting
        self._queue: deque[_Waiting] = deque()
        self._rows_waiting = 0
        self._free = runs
        self._crowded = False
        self._tasks: set[asyncio.Task[None]] = set()
        self.figures = Figures()

    async def submit(
        self, inputs: Mapping[str, Array], rows: int, outputs: Sequence[str], deadline: float | None
    ) -> Mapping[str, Array]:
        """Runs the inputs, alone or with others', and answers this call's rows.

        Raises:
            QueueFull: too many rows wait; comes with a retry hint.
            DeadlineExceeded: the deadline (event loop's clock) passed before a run could start.
            ModelRefused, EngineFailed: as the engine.
        """
        loop = asyncio.get_running_loop()
        if self._rows_waiting and self._rows_waiting + rows > self._most_waiting:
            raise QueueFull(f"{self._rows_waiting} rows are waiting for this model", retry_after=0.5)
        # Rows go together when all but their first axis agrees and the same outputs are wanted.
        key = (*(a.shape[1:] for a in inputs.values()), *outputs) if self._max_rows else ()
        waiting = _Waiting(inputs, rows, outputs, key, deadline, time.perf_counter(), loop.create_future())
        self._queue.append(waiting)
        self._rows_waiting += rows
        if self._free:
            self._start()
        try:
            return await waiting.future
        except asyncio.CancelledError:
            waiting.future.cancel()
            raise

    def _start(self) -> None:
        self._free -= 1
        task = asyncio.get_running_loop().create_task(self._work())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self) -> None:
        try:
            while self._queue:
                if self._delay and self._crowded and self._rows_waiting < self._max_rows:
                    await asyncio.sleep(self._delay)
                if batch := self._take():
                    await self._run_batch(batch)
        finally:
            self._free += 1
        if self._queue:
            self._start()

    def _take(self) -> list[_Waiting]:
        """The next batch: the head of the queue and all that fit beside it. Those whose caller is gone are dropped."""
        now = asyncio.get_running_loop().time()
        batch: list[_Waiting] = []
        rows = 0
        passed: list[_Waiting] = []
        while self._queue:
            w = self._queue.popleft()
            if w.future.done():
                self._rows_waiting -= w.rows
            elif w.deadline is not None and now >= w.deadline:
                self._rows_waiting -= w.rows
                w.future.set_exception(DeadlineExceeded("the deadline passed while the call was waiting"))
            elif not batch or (self._max_rows and w.key == batch[0].key and rows + w.rows <= self._max_rows):
                self._rows_waiting -= w.rows
                batch.append(w)
                rows += w.rows
                if not self._max_rows or rows >= self._max_rows:
                    break
            else:
                passed.append(w)
                if len(passed) >= 64:  # looking further costs more than a fuller batch gains
                    break
        self._queue.extendleft(reversed(passed))
        self._crowded = len(batch) > 1
        return batch

    async def _run_batch(self, batch: list[_Waiting]) -> None:
        started = time.perf_counter()  # the event loop's own clock is too coarse for short runs
        head = batch[0]
        inputs = head.inputs
        if len(batch) > 1:
            inputs = {name: np.concatenate([w.inputs[name] for w in batch]) for name in inputs}
        figures = self.figures
        try:
            outputs = await self._run(inputs, head.outputs)
        except Exception as e:
            if len(batch) > 1:  # somebody else's rows must not fail a call: each is tried alone
                for w in batch:
                    if not w.future.done():
                        await self._run_batch([w])
                return
            figures.failures += 1
            figures.failure_ns += int((time.perf_counter() - started) * 1e9)
            if not head.future.done():
                head.future.set_exception(e)
            return
        ended = time.perf_counter()
        figures.runs += 1
        figures.calls += len(batch)
        figures.compute_ns += int((ended - started) * 1e9)
        figures.last_ms = int(time.time() * 1000)
        at = 0
        for w in batch:
            figures.rows += w.rows
            figures.queue_ns += int((started - w.since) * 1e9)
            if not w.future.done():
                one = outputs if len(batch) == 1 else {n: a[at : at + w.rows] for n, a in outputs.items()}
                w.future.set_result(one)
            at += w.rows
