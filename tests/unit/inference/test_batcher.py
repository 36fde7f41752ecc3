"""The batcher: everybody gets their own rows back, nothing runs for a caller who is gone, a full queue says so."""

import asyncio

import numpy as np
import pytest

from services.common.errors import DeadlineExceeded
from services.inference.batcher import Batcher, QueueFull


class Doubler:
    """An engine that doubles, slowly; remembers the rows of each run, and refuses negative numbers."""

    def __init__(self, seconds: float = 0.01) -> None:
        self.seconds = seconds
        self.runs: list[int] = []

    async def __call__(self, inputs, outputs):
        self.runs.append(len(inputs["x"]))
        await asyncio.sleep(self.seconds)
        if (inputs["x"] < 0).any():
            raise ValueError("negative")
        return {"y": inputs["x"] * 2}


def rows(*values: float) -> dict[str, np.ndarray]:
    return {"x": np.array(values, np.float32).reshape(len(values), 1)}


async def test_calls_that_wait_run_together_and_get_their_own_rows():
    engine = Doubler()
    batcher = Batcher(engine, max_rows=8, delay=0, most_waiting=1000)
    answers = await asyncio.gather(*(batcher.submit(rows(i, i + 0.5), 2, ["y"], None) for i in range(10)))
    for i, answer in enumerate(answers):
        assert answer["y"].ravel().tolist() == [2 * i, 2 * i + 1]
    assert max(engine.runs) == 8
    assert sum(engine.runs) == 20
    assert batcher.figures.calls == 10
    assert batcher.figures.rows == 20


async def test_a_lone_call_starts_at_once_also_when_a_delay_is_set():
    engine = Doubler(0)
    batcher = Batcher(engine, max_rows=8, delay=5.0, most_waiting=10)
    async with asyncio.timeout(1):
        await batcher.submit(rows(1), 1, ["y"], None)


async def test_shapes_that_differ_do_not_mix():
    engine = Doubler()
    batcher = Batcher(engine, max_rows=8, delay=0, most_waiting=100)
    wide = {"x": np.ones((1, 3), np.float32)}
    first, second, third = await asyncio.gather(
        batcher.submit(rows(1), 1, ["y"], None),
        batcher.submit(wide, 1, ["y"], None),
        batcher.submit(rows(2), 1, ["y"], None),
    )
    assert first["y"].shape == third["y"].shape == (1, 1)
    assert second["y"].shape == (1, 3)


async def test_without_a_batch_size_every_call_runs_alone():
    engine = Doubler(0.001)
    batcher = Batcher(engine, max_rows=0, delay=0, most_waiting=100)
    await asyncio.gather(*(batcher.submit(rows(i), 1, ["y"], None) for i in range(5)))
    assert engine.runs == [1] * 5


async def test_no_run_starts_after_the_deadline_or_for_a_caller_who_left():
    engine = Doubler(0.05)
    batcher = Batcher(engine, max_rows=0, delay=0, most_waiting=100)
    loop = asyncio.get_running_loop()
    first = asyncio.create_task(batcher.submit(rows(1), 1, ["y"], None))
    await asyncio.sleep(0)
    late = asyncio.create_task(batcher.submit(rows(2), 1, ["y"], loop.time() + 0.01))
    gone = asyncio.create_task(batcher.submit(rows(3), 1, ["y"], None))
    await asyncio.sleep(0)
    gone.cancel()
    await first
    with pytest.raises(DeadlineExceeded):
        await late
    await asyncio.sleep(0.01)
    assert engine.runs == [1]


async def test_a_full_queue_refuses_with_a_hint_when_to_come_back():
    batcher = Batcher(Doubler(), max_rows=0, delay=0, most_waiting=2)
    tasks = [asyncio.create_task(batcher.submit(rows(i), 1, ["y"], None)) for i in range(5)]
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    refused = [e for e in ended if isinstance(e, QueueFull)]
    assert refused
    assert all(e.retry_after for e in refused)
    assert len(refused) + sum(isinstance(e, dict) for e in ended) == 5


async def test_a_call_the_model_refuses_fails_alone():
    batcher = Batcher(Doubler(), max_rows=8, delay=0, most_waiting=100)
    values = [1, 2, -3, 4]
    ended = await asyncio.gather(*(batcher.submit(rows(v), 1, ["y"], None) for v in values), return_exceptions=True)
    assert [isinstance(e, ValueError) for e in ended] == [False, False, True, False]
    assert ended[3]["y"].item() == 8


async def test_a_call_larger_than_the_queue_runs_when_nobody_waits():
    batcher = Batcher(Doubler(0), max_rows=0, delay=0, most_waiting=2)
    answer = await batcher.submit(rows(*range(10)), 10, ["y"], None)
    assert len(answer["y"]) == 10
