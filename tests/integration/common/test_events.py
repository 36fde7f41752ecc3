"""Durable consumers on the real JetStream: what they are given, and how they change."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
from nats.js.api import ConsumerConfig

from services.common import ids
from services.common.events import EVENT_STREAM, EVENT_SUBJECTS, Events
from tests.platform import Platform


@pytest.fixture
async def events(platform: Platform) -> AsyncIterator[Events]:
    connected = await Events.connect(platform.nats_url(), "tests")
    yield connected
    await connected.close()


@pytest.fixture
async def durable(events: Events) -> AsyncIterator[str]:
    name = ids.new("evt")
    yield name
    await events.js.delete_consumer(EVENT_STREAM, name)


async def taken(events: Events, durable: str, subjects: list[str], count: int) -> list[str]:
    """The subjects of the next messages of a consumer, which are acknowledged."""
    found: list[str] = []
    async with asyncio.timeout(20), aclosing(events.pull(EVENT_STREAM, durable, subjects, batch=10)) as batches:  # type: ignore[type-var]
        async for messages in batches:
            for message in messages:
                await message.ack_sync()
                found.append(message.subject)
            if len(found) >= count:
                break
    return found


def names(count: int) -> list[str]:
    return ["mercat.event." + ids.new("evt") for _ in range(count)]


async def publish(events: Events, subjects: list[str]) -> None:
    for subject in subjects:
        await events.publish(subject, b"", ids.new("evt"))


async def test_a_consumer_is_given_what_it_asked_for_alone(events: Events, durable: str) -> None:
    mine, others, also = names(3)
    await publish(events, [others, mine, others, also])
    assert await taken(events, durable, [mine, also], 2) == [mine, also]
    state = await events.js.consumer_info(EVENT_STREAM, durable)
    assert state.delivered is not None
    assert state.delivered.consumer_seq == 2
    assert (state.num_pending, state.num_ack_pending) == (0, 0)


async def test_a_consumer_that_took_everything_is_narrowed_and_misses_nothing(events: Events, durable: str) -> None:
    mine, others = names(2)
    wide = ConsumerConfig(name=durable, durable_name=durable, filter_subject=EVENT_SUBJECTS, max_ack_pending=1000)
    await events.js.add_consumer(EVENT_STREAM, wide)
    await publish(events, [others, mine, mine])
    assert await taken(events, durable, [mine], 2) == [mine, mine]
    await publish(events, [others, mine])
    assert await taken(events, durable, [mine], 1) == [mine]
    config = (await events.js.consumer_info(EVENT_STREAM, durable)).config
    assert config.filter_subject is None
    assert config.filter_subjects == [mine]


async def test_a_consumer_that_was_lost_is_made_again(events: Events, durable: str) -> None:
    (mine,) = names(1)
    await publish(events, [mine])
    assert await taken(events, durable, [mine], 1) == [mine]
    await events.js.delete_consumer(EVENT_STREAM, durable)
    await publish(events, [mine])
    assert await taken(events, durable, [mine], 2) == [mine, mine]


async def test_what_comes_after_a_silence_is_handed_on_at_once(events: Events) -> None:
    """Longer than a request for messages is open: that it ends must hold nothing up."""
    names_ = {ids.new("evt"): subject for subject in names(30)}
    taking = [asyncio.create_task(taken(events, name, [subject], 2)) for name, subject in names_.items()]
    await asyncio.sleep(5.5)
    for _ in range(2):
        await publish(events, list(names_.values()))
        await asyncio.sleep(0.5)
    waiting = [task for task in taking if not task.done()]
    for task in waiting:
        task.cancel()
    await asyncio.wait(taking)
    for name in names_:
        await events.js.delete_consumer(EVENT_STREAM, name)
    assert not waiting, f"{len(waiting)} consumers wait for their messages"
