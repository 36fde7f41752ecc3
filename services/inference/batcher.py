"""Dynamic batching: calls that wait while the engine is busy run together. An idle engine starts at once, so a lone
call never waits for company.

A call is a `Ticket`. It is refused at once when it could not end before its deadline, it is dropped when its caller is
gone, and a run whose callers are all gone is ended inside the engine."""

import asyncio
import time
from collections import deque
from collections.abc import Mapping

import numpy as np

from services.common.errors import DeadlineExceeded
from services.common.tensors import Array
from services.inference.engines import Loaded
from services.inference.padding import Padder
from services.inference.telemetry import Figures
from services.inference.tickets import FOREVER, QueueFull, Queueing, Ticket, TooLate

_LOOK = 64  # tickets that do not fit beside the first of a batch before looking further costs more than it gains
_SMOOTH = 0.2  # weight of the newest run in what a run is expected to take
_OUTLIER = 4.0  # times what was expected, as which a longer run counts: one that was held up says little of the next
# Of the time a call has, the part that is left for its record and its way back, at most so many seconds.
_RETURN, _RETURN_MOST = 0.1, 0.02
_CAUTION = 1.3  # times the expected wait that a call must be able to bear: better refused at once than after waiting


_LONG = 0.002  # seconds that a run takes at least for the next one to be handed over during it


class Batcher:
    """One model's queue. `runs` go at a time; with `ahead`, the next full batch is handed to the engine while one runs,
    so that it waits for nothing in between."""

    def __init__(
        self, model: Loaded, queueing: Queueing, figures: Figures, *, padder: Padder | None = None, runs: int = 1,
        ahead: bool = False,
    ) -> None:  # fmt: skip
        self._model = model
        self._q = queueing
        self._padder = padder
        self._queues: tuple[deque[Ticket], ...] = tuple(deque() for _ in range(max(1, queueing.levels)))
        self._running: set[Ticket] = set()
        self._rows_waiting = 0
        self._runs, self._busy = runs, 0  # how many go at a time, and now
        self._ahead = ahead and runs == 1
        self._full = max(queueing.preferred, default=queueing.max_rows) or 1  # rows of a full batch
        self._crowded = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._run_time = 0.0  # seconds that a run is expected to take
        self._row_time = 0.0  # and its share for a row
        self._spread = 0.0  # by how much runs miss that
        self._ends = 0.0  # when what was handed over is expected to have run
        self._ended = 0.0  # when the last run had, on the clock of `perf_counter`
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = FOREVER
        self._wakeup: asyncio.Event | None = None
        self.figures = figures

    @property
    def busy(self) -> bool:
        return bool(self._tasks)

    async def idle(self) -> None:
        """Ends when no call waits and no run is under way."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    @property
    def waiting(self) -> int:
        """Rows that wait."""
        return self._rows_waiting

    def expected(self, rows: int) -> float:
        """Seconds until a call of so many rows would be answered at the current queue; 0 while the engine is idle, for
        what was measured before may not hold any more."""
        if self._busy < self._runs:
            return 0.0
        return self._rest() + self._row_time * (self._rows_waiting / self._runs + rows)

    def _rest(self) -> float:
        return max(0.0, self._ends - asyncio.get_running_loop().time())

    async def submit(self, ticket: Ticket) -> Mapping[str, Array]:
        """Runs a call, alone or with others', and answers its rows.

        Raises:
            QueueFull: too many rows wait; comes with a retry hint.
            TooLate: it could not end before its deadline.
            DeadlineExceeded: the deadline passed while it waited or ran.
            ModelRefused, EngineFailed, EngineUnavailable: as the engine.
        """
        q, loop = self._q, asyncio.get_running_loop()
        now = loop.time()
        latest = ticket.deadline
        if self._busy >= self._runs and latest < FOREVER:
            # A run that ends after its deadline helps nobody, so it had better not start: others wait.
            latest -= min(_RETURN * (latest - now), _RETURN_MOST)
            if latest < now + self.expected(ticket.rows) * _CAUTION + self._spread:
                self.figures.refused()
                raise _too_late()
            latest -= self._run_time + self._spread
        if self._rows_waiting and self._rows_waiting + ticket.rows > q.most_waiting:
            self._shed(ticket)
        # Rows go together when all but their first axis agrees and the same outputs are wanted.
        if q.max_rows:
            shapes = self._padder.key(ticket.inputs) if self._padder else [a.shape[1:] for a in ticket.inputs.values()]
            ticket.key = (*shapes, *ticket.outputs)
        ticket.since = time.perf_counter()
        ticket.start_by = min(latest, now + q.timeout)
        level = min(max(ticket.level or q.level, 1), len(self._queues))
        self._queues[level - 1].append(ticket)
        self._rows_waiting += ticket.rows
        if ticket.start_by < self._alarm_at:
            self._set_alarm(ticket.start_by)
        if self._busy < self._runs or (self._busy == self._runs and self._next_is_full()):
            self._start()
        elif self._wakeup is not None and self._enough():
            self._wakeup.set()
        try:
            return await ticket.future
        except asyncio.CancelledError:
            ticket.future.cancel()
            if ticket.batch is not None:
                self._leave(ticket.batch)
            raise

    def _shed(self, ticket: Ticket) -> None:
        """Makes room by refusing a call of a lower class that waits, or refuses this one."""
        level = min(max(ticket.level or self._q.level, 1), len(self._queues))
        hint = min(max(self.expected(0), 0.05), 5.0)
        for queue in reversed(self._queues[level:]):
            while queue and self._rows_waiting + ticket.rows > self._q.most_waiting:
                shed = queue.pop()
                self._rows_waiting -= shed.rows
                shed.fail(QueueFull("calls of a higher class took this call's place", retry_after=hint))
                self.figures.refused()
        if self._rows_waiting and self._rows_waiting + ticket.rows > self._q.most_waiting:
            self.figures.refused()
            raise QueueFull(f"{self._rows_waiting} rows are waiting for this model", retry_after=hint)

    def _leave(self, batch: "asyncio.Task[None]") -> None:
        if all(t.future.done() for t in self._running if t.batch is batch):
            batch.cancel()

    # Deadlines: one timer for the earliest of all; most calls have long ended when it rings.

    def _set_alarm(self, at: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = at
        self._alarm = asyncio.get_running_loop().call_at(at, self._ring)

    def _ring(self) -> None:
        now = asyncio.get_running_loop().time()
        earliest = FOREVER
        for queue in self._queues:
            for t in queue:
                if t.start_by <= now:
                    self._missed(t)
                else:
                    earliest = min(earliest, t.start_by)
        for t in list(self._running):
            if t.deadline <= now and t.batch is not None:
                t.fail(DeadlineExceeded("the model did not answer before the deadline"))
                self._leave(t.batch)
            else:
                earliest = min(earliest, t.deadline)
        self._alarm, self._alarm_at = None, FOREVER
        if earliest < FOREVER:
            self._set_alarm(max(earliest, now + 0.001))

    def _missed(self, ticket: Ticket) -> None:
        """A call was not started in time, or would not be."""
        if ticket.future.done():
            return
        self.figures.refused()
        left = ticket.deadline - asyncio.get_running_loop().time()
        if left > self._rest() + self._run_time + self._spread + 2 * _RETURN_MOST:
            ticket.fail(DeadlineExceeded("the queue is longer than this model lets calls wait; call less at once"))
        else:
            ticket.fail(_too_late())

    # Runs

    def _start(self) -> None:
        # In a task of its own, so that all calls of this turn of the event loop are in its first batch.
        self._busy += 1
        task = asyncio.get_running_loop().create_task(self._work())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            while self._rows_waiting and (self._busy <= self._runs or self._next_is_full()):
                if self._q.delay and self._crowded and not self._enough():
                    await self._gather()
                if batch := self._take(task):
                    await self._run_batch(batch)
        except asyncio.CancelledError:
            pass  # nobody waits for the run that was under way any more
        finally:
            self._busy -= 1
        if self._rows_waiting and self._busy < self._runs:
            self._start()

    def _next_is_full(self) -> bool:
        return self._ahead and self._rows_waiting >= self._full and self._run_time >= _LONG

    def _enough(self) -> bool:
        return self._rows_waiting >= min(self._q.preferred, default=self._q.max_rows)

    async def _gather(self) -> None:
        """Waits until a batch is full or its first call has waited long enough."""
        oldest = min(queue[0].since for queue in self._queues if queue)
        left = oldest + self._q.delay - time.perf_counter()
        if left > 0 and self._wakeup is None:
            self._wakeup = asyncio.Event()
            try:
                async with asyncio.timeout(left):
                    await self._wakeup.wait()
            except TimeoutError:
                pass
            finally:
                self._wakeup = None

    def _take(self, task: "asyncio.Task[None]") -> list[Ticket]:
        """The next batch: the head of the first class that waits, and all that fit beside it."""
        now = asyncio.get_running_loop().time() + (self._rest() if self._busy > self._runs else 0.0)
        most = max((size for size in self._q.preferred if size <= self._rows_waiting), default=self._q.max_rows)
        batch: list[Ticket] = []
        rows = 0
        for queue in self._queues:
            passed: list[Ticket] = []
            while queue and len(passed) < _LOOK and (not batch or (most and rows < most)):
                t = queue.popleft()
                if t.future.done():
                    self._rows_waiting -= t.rows
                elif now >= t.start_by:
                    self._rows_waiting -= t.rows
                    self._missed(t)
                elif not batch or (t.key == batch[0].key and rows + t.rows <= most):
                    self._rows_waiting -= t.rows
                    t.batch = task
                    batch.append(t)
                    rows += t.rows
                else:
                    passed.append(t)
            queue.extendleft(reversed(passed))
        self._crowded = len(batch) > 1
        return batch

    async def _run_batch(self, batch: list[Ticket]) -> None:
        started, head = time.perf_counter(), batch[0]
        now = asyncio.get_running_loop().time() + (self._rest() if self._busy > self._runs else 0.0)
        self._ends = now + self._run_time
        for t in batch:
            if t.deadline < now:
                self.figures.late.value += 1
        self._running.update(batch)
        try:
            outputs = await self._model.run(self._together(batch), head.outputs)
        except Exception as e:
            if len(batch) > 1:  # somebody else's rows must not fail a call: each is tried alone
                for t in batch:
                    if not t.future.done():
                        await self._run_batch([t])
                return
            self.figures.failed(time.perf_counter() - started)
            head.fail(e)
            return
        finally:
            self._running.difference_update(batch)
        ended = time.perf_counter()
        if self._ahead:  # it began when the one before it had ended
            started, self._ended = max(started, self._ended), ended
            self._ends = asyncio.get_running_loop().time() + (self._run_time if self._busy > self._runs else 0.0)
        took = ended - started
        rows = sum(t.rows for t in batch)
        self._learn(took, rows)
        self.figures.ran(rows, took)
        if len(batch) == 1 and self._padder is None:
            head.seconds = took
            self._answer(head, outputs, started)
            return
        at = 0
        for t in batch:
            t.seconds = took * t.rows / rows if rows else took
            mine = {n: a[at : at + t.rows] for n, a in outputs.items()} if self._q.max_rows else outputs
            self._answer(t, self._padder.cut(t.inputs, mine) if self._padder else mine, started)
            at += t.rows

    def _together(self, batch: list[Ticket]) -> Mapping[str, Array]:
        if self._padder is not None:
            return self._padder.together([t.inputs for t in batch])
        if len(batch) == 1:
            return batch[0].inputs
        return {name: np.concatenate([t.inputs[name] for t in batch]) for name in batch[0].inputs}

    def _answer(self, ticket: Ticket, outputs: Mapping[str, Array], started: float) -> None:
        ticket.batch, ticket.started = None, started
        self.figures.answered(started - ticket.since)
        if not ticket.future.done():
            try:
                ticket.ran(outputs)
            except Exception as e:
                ticket.fail(e)

    def _learn(self, took: float, rows: int) -> None:
        if not self._run_time:
            self._run_time, self._row_time = took, took / rows if rows else took
            return
        if rows:
            self._row_time += (min(took / rows, _OUTLIER * self._row_time) - self._row_time) * _SMOOTH
        took = min(took, _OUTLIER * self._run_time)
        self._spread += (abs(took - self._run_time) - self._spread) * _SMOOTH
        self._run_time += (took - self._run_time) * _SMOOTH


def _too_late() -> TooLate:
    return TooLate("this call cannot end before its deadline; allow it more time, or call less at once")
