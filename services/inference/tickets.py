"""Calls that wait for an engine."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.common.errors import DeadlineExceeded, ResourceExhausted
from services.common.tensors import Array

FOREVER = float("inf")


class QueueFull(ResourceExhausted, reason="QUEUE_FULL"):
    """Too many rows wait for this model."""


class TooLate(DeadlineExceeded, reason="DEADLINE_TOO_CLOSE"):
    """The call could not have ended before its deadline, so it was not started."""


@dataclass(frozen=True, slots=True)
class Queueing:
    """How a model's calls wait.

    `max_rows`: the most rows of a run; 0: calls are never put together. `delay`: seconds that a batch that is not full
    may wait when the last one held several calls. `preferred`: the least of them starts without that, and what waits is
    cut into batches of the largest that it fills. `most_waiting`: rows that may wait. `timeout`: seconds a call may
    wait. `levels`: priority classes, 1 is served first. `level`: of a call that names none.
    """

    max_rows: int = 0
    delay: float = 0.0
    preferred: frozenset[int] = frozenset()
    most_waiting: int = 2048
    timeout: float = FOREVER
    levels: int = 1
    level: int = 1


class Ticket:
    """A call in the queue. `future` gets the outputs' arrays by name, or an error. `deadline` and `start_by` are on the
    event loop's clock, seconds; `since` and `started`, when it ran, on `time.perf_counter`'s, for the loop's is too
    coarse for figures; `seconds`: its part, by rows, in the time of the run. Calls of one `key` may run together;
    `batch` runs it."""

    __slots__ = (
        "batch", "deadline", "future", "inputs", "key", "level", "outputs", "rows", "seconds", "since", "start_by",
        "started",
    )  # fmt: skip

    def __init__(
        self, inputs: Mapping[str, Array], rows: int, outputs: Sequence[str], deadline: float = FOREVER, level: int = 0
    ) -> None:
        self.inputs = inputs
        self.rows = rows
        self.outputs = outputs
        self.deadline = deadline
        self.level = level
        self.future: asyncio.Future[Mapping[str, Array]] = asyncio.get_running_loop().create_future()
        self.batch: asyncio.Task[None] | None = None
        self.key: tuple[object, ...] = ()
        self.since = self.started = self.seconds = 0.0
        self.start_by = FOREVER

    def ran(self, outputs: Mapping[str, Array]) -> None:
        """Called with this call's rows once the engine ran, unless the caller is gone."""
        self.future.set_result(outputs)

    def fail(self, error: BaseException) -> None:
        if not self.future.done():
            self.future.set_exception(error)
