"""The batcher: everybody gets their own rows back, nothing runs for a caller who is gone or too late, a full queue says
so, and higher classes go first."""

import asyncio
import itertools

import numpy as np
import pytest

from services.common.errors import DeadlineExceeded
from services.inference.batcher import Batcher
from services.inference.telemetry import Figures
from services.inference.tickets import FOREVER, QueueFull, Queueing, Ticket, TooLate


class Doubler:
    """An engine that doubles, slowly; remembers the rows of each run and the runs that were ended, and refuses negative
    numbers."""

    def __init__(self, seconds: float = 0.01) -> None:
        self.seconds = seconds
        self.runs: list[int] = []
        self.first: list[float] = []
        self.ended = 0

    async def run(self, inputs, outputs):
        self.runs.append(len(inputs["x"]))
        self.first.append(inputs["x"].flat[0])
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.ended += 1
            raise
        if (inputs["x"] < 0).any():
            raise ValueError("negative")
        return {"y": inputs["x"] * 2}


_number = itertools.count()


def queue(engine: Doubler, **how) -> Batcher:
    return Batcher(engine, Queueing(**how), Figures("test/batcher", str(next(_number))))


def call(batcher: Batcher, inputs, *, deadline: float = FOREVER, level: int = 0):
    return batcher.submit(Ticket(inputs, len(inputs["x"]), ["y"], deadline, level))


def rows(*values: float) -> dict[str, np.ndarray]:
    return {"x": np.array(values, np.float32).reshape(len(values), 1)}


async def test_calls_that_wait_run_together_and_get_their_own_rows():
    engine = Doubler()
    batcher = queue(engine, max_rows=8, delay=0, most_waiting=1000)
    answers = await asyncio.gather(*(call(batcher, rows(i, i + 0.5)) for i in range(10)))
    for i, answer in enumerate(answers):
        assert answer["y"].ravel().tolist() == [2 * i, 2 * i + 1]
    assert max(engine.runs) == 8
    assert sum(engine.runs) == 20
    assert batcher.figures.success.value == 10
    assert batcher.figures.rows.value == 20


async def test_a_lone_call_starts_at_once_also_when_a_delay_is_set():
    engine = Doubler(0)
    batcher = queue(engine, max_rows=8, delay=5.0, most_waiting=10)
    async with asyncio.timeout(1):
        await call(batcher, rows(1))


async def test_shapes_that_differ_do_not_mix():
    engine = Doubler()
    batcher = queue(engine, max_rows=8, delay=0, most_waiting=100)
    wide = {"x": np.ones((1, 3), np.float32)}
    first, second, third = await asyncio.gather(
        call(batcher, rows(1)),
        call(batcher, wide),
        call(batcher, rows(2)),
    )
    assert first["y"].shape == third["y"].shape == (1, 1)
    assert second["y"].shape == (1, 3)


async def test_without_a_batch_size_every_call_runs_alone():
    engine = Doubler(0.001)
    batcher = queue(engine, max_rows=0, delay=0, most_waiting=100)
    await asyncio.gather(*(call(batcher, rows(i)) for i in range(5)))
    assert engine.runs == [1] * 5


async def test_no_run_starts_after_the_deadline_or_for_a_caller_who_left():
    engine = Doubler(0.05)
    batcher = queue(engine, max_rows=0, delay=0, most_waiting=100)
    loop = asyncio.get_running_loop()
    first = asyncio.create_task(call(batcher, rows(1)))
    await asyncio.sleep(0)
    late = asyncio.create_task(call(batcher, rows(2), deadline=loop.time() + 0.01))
    gone = asyncio.create_task(call(batcher, rows(3)))
    await asyncio.sleep(0)
    gone.cancel()
    await first
    with pytest.raises(DeadlineExceeded):
        await late
    await asyncio.sleep(0.01)
    assert engine.runs == [1]


async def test_a_full_queue_refuses_with_a_hint_when_to_come_back():
    batcher = queue(Doubler(), max_rows=0, delay=0, most_waiting=2)
    tasks = [asyncio.create_task(call(batcher, rows(i))) for i in range(5)]
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    refused = [e for e in ended if isinstance(e, QueueFull)]
    assert refused
    assert all(e.retry_after for e in refused)
    assert len(refused) + sum(isinstance(e, dict) for e in ended) == 5


async def test_a_call_the_model_refuses_fails_alone():
    batcher = queue(Doubler(), max_rows=8, delay=0, most_waiting=100)
    values = [1, 2, -3, 4]
    ended = await asyncio.gather(*(call(batcher, rows(v)) for v in values), return_exceptions=True)
    assert [isinstance(e, ValueError) for e in ended] == [False, False, True, False]
    assert ended[3]["y"].item() == 8


async def test_a_call_larger_than_the_queue_runs_when_nobody_waits():
    batcher = queue(Doubler(0), max_rows=0, delay=0, most_waiting=2)
    answer = await call(batcher, rows(*range(10)))
    assert len(answer["y"]) == 10


async def test_a_call_that_cannot_end_in_time_is_refused_at_once():
    engine = Doubler(0.1)
    batcher = queue(engine, most_waiting=100)
    loop = asyncio.get_running_loop()
    await call(batcher, rows(1))
    running = asyncio.create_task(call(batcher, rows(2)))
    await asyncio.sleep(0.01)
    began = loop.time()
    with pytest.raises(TooLate):
        await call(batcher, rows(3), deadline=began + 0.15)
    assert loop.time() - began < 0.05
    await call(batcher, rows(4), deadline=began + 0.4)
    await running
    assert engine.first == [1, 2, 4]


async def test_an_idle_engine_tries_a_call_whatever_earlier_ones_took():
    engine = Doubler(0.1)
    batcher = queue(engine)
    await call(batcher, rows(1))
    engine.seconds = 0
    await call(batcher, rows(2), deadline=asyncio.get_running_loop().time() + 0.05)


async def test_a_run_ends_in_the_engine_when_all_its_callers_are_gone():
    engine = Doubler(5)
    batcher = queue(engine, max_rows=8)
    both = [asyncio.create_task(call(batcher, rows(i))) for i in (1, 2)]
    await asyncio.sleep(0.01)
    assert engine.runs == [2]
    both[0].cancel()
    await asyncio.sleep(0.01)
    assert engine.ended == 0
    both[1].cancel()
    await asyncio.sleep(0.01)
    assert engine.ended == 1
    engine.seconds = 0
    async with asyncio.timeout(1):
        assert (await call(batcher, rows(3)))["y"].item() == 6


async def test_a_run_ends_in_the_engine_when_its_deadline_passes():
    engine = Doubler(5)
    batcher = queue(engine)
    async with asyncio.timeout(1):
        with pytest.raises(DeadlineExceeded):
            await call(batcher, rows(1), deadline=asyncio.get_running_loop().time() + 0.03)
    await asyncio.sleep(0.01)
    assert engine.ended == 1


async def test_higher_classes_go_first_and_those_who_name_none_in_the_middle():
    engine = Doubler(0.01)
    batcher = queue(engine, levels=3, level=2)
    first = asyncio.create_task(call(batcher, rows(0)))
    await asyncio.sleep(0)
    waiting = [asyncio.create_task(call(batcher, rows(v), level=n)) for v, n in ((1, 3), (2, 0), (3, 1), (4, 2))]
    await asyncio.gather(first, *waiting)
    assert engine.first == [0, 3, 2, 4, 1]


async def test_a_full_queue_sheds_calls_of_lower_classes_for_higher_ones():
    engine = Doubler(0.02)
    batcher = queue(engine, most_waiting=2, levels=2, level=2)
    first = asyncio.create_task(call(batcher, rows(0)))
    await asyncio.sleep(0.005)
    low = [asyncio.create_task(call(batcher, rows(v))) for v in (1, 2)]
    await asyncio.sleep(0)
    high = asyncio.create_task(call(batcher, rows(3), level=1))
    ended = await asyncio.gather(first, *low, high, return_exceptions=True)
    assert [isinstance(e, QueueFull) for e in ended] == [False, False, True, False]


async def test_calls_wait_no_longer_in_the_queue_than_the_model_allows():
    batcher = queue(Doubler(0.1), timeout=0.02)
    first = asyncio.create_task(call(batcher, rows(0)))
    await asyncio.sleep(0.005)
    began = asyncio.get_running_loop().time()
    with pytest.raises(DeadlineExceeded):
        await call(batcher, rows(1))
    assert asyncio.get_running_loop().time() - began < 0.06
    await first


async def test_batches_wait_for_company_until_they_are_of_a_preferred_size():
    engine = Doubler(0.005)
    batcher = queue(engine, max_rows=100, delay=5.0, preferred=frozenset({4}))
    crowd = [asyncio.create_task(call(batcher, rows(v))) for v in range(2)]
    await asyncio.sleep(0.001)
    later = []
    for v in range(4):
        later.append(asyncio.create_task(call(batcher, rows(v))))
        await asyncio.sleep(0.01)
    async with asyncio.timeout(1):
        await asyncio.gather(*crowd, *later)
    assert engine.runs == [2, 4]


async def test_what_waits_runs_in_batches_of_the_largest_preferred_size_that_it_fills():
    engine = Doubler(0.005)
    batcher = queue(engine, max_rows=100, preferred=frozenset({4, 8}))
    await asyncio.gather(*(call(batcher, rows(v)) for v in range(23)))
    assert engine.runs == [8, 8, 4, 3]


async def test_a_call_of_several_rows_may_pass_a_preferred_size():
    engine = Doubler(0.005)
    batcher = queue(engine, max_rows=100, delay=5.0, preferred=frozenset({4}))
    crowd = [asyncio.create_task(call(batcher, rows(v))) for v in range(2)]
    await asyncio.sleep(0.001)
    later = []
    for _ in range(2):
        later.append(asyncio.create_task(call(batcher, rows(1, 2, 3))))
        await asyncio.sleep(0.01)
    async with asyncio.timeout(1):
        await asyncio.gather(*crowd, *later)
    assert engine.runs == [2, 3, 3]


class OneAtATime(Doubler):
    """An engine that takes runs ahead and begins each when the one before has ended."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.lock = asyncio.Lock()
        self.waiting = self.most_waiting = 0

    async def run(self, inputs, outputs):
        self.waiting += 1
        self.most_waiting = max(self.most_waiting, self.waiting)
        try:
            async with self.lock:
                return await super().run(inputs, outputs)
        finally:
            self.waiting -= 1


def ahead(engine: OneAtATime, **how) -> Batcher:
    return Batcher(engine, Queueing(**how), Figures("test/batcher", str(next(_number))), ahead=True)


async def test_the_next_full_batch_is_with_the_engine_before_it_is_free():
    engine = OneAtATime(0.01)
    batcher = ahead(engine, max_rows=4)
    await asyncio.gather(*(call(batcher, rows(v)) for v in range(4)))  # by which it knows how long a run takes
    answers = await asyncio.gather(*(call(batcher, rows(v)) for v in range(14)))
    assert [answer["y"].item() for answer in answers] == [2 * v for v in range(14)]
    assert engine.most_waiting == 2
    assert engine.runs == [4, 4, 4, 4, 2]
    last = asyncio.create_task(call(batcher, rows(1)))
    await asyncio.sleep(0.001)
    assert 0.005 < batcher.expected(0) < 0.015  # what a run takes, not how long it lay with the engine before
    await last


@pytest.mark.alone
async def test_less_than_a_batch_waits_for_company_while_the_engine_runs():
    engine = OneAtATime(0.02)
    batcher = ahead(engine, max_rows=4)
    await call(batcher, rows(0))
    calls = [asyncio.create_task(call(batcher, rows(v))) for v in range(3)]
    for _ in range(3):
        await asyncio.sleep(0.004)
        calls.append(asyncio.create_task(call(batcher, rows(1))))
    await asyncio.gather(*calls)
    assert engine.most_waiting == 1
    assert engine.runs == [1, 3, 3]


async def test_a_batch_that_was_handed_over_is_taken_back_when_nobody_waits_for_it():
    engine = OneAtATime(0.05)
    batcher = ahead(engine, max_rows=2)
    await call(batcher, rows(0))
    first = [asyncio.create_task(call(batcher, rows(1))) for _ in range(2)]
    second = [asyncio.create_task(call(batcher, rows(2))) for _ in range(2)]
    await asyncio.sleep(0.01)
    assert engine.waiting == 2
    for task in second:
        task.cancel()
    await asyncio.gather(*first)
    await asyncio.gather(*second, return_exceptions=True)
    assert engine.runs == [1, 2]
    await asyncio.sleep(0)
    assert not batcher.busy
