"""Records on their way to JetStream: on a connection of their own, and by the client library while there is none."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import psutil
import pytest

from services.common.events import USAGE_STREAM, USAGE_SUBJECT, Events
from services.embedded.nats import Nats
from services.embedded.ports import free_ports
from services.inference.publisher import NotStored, Publisher


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[Nats]:
    async with Nats(tmp_path / "nats", port=free_ports(1)[0]) as server:
        yield server


@pytest.fixture
async def events(nats: Nats) -> AsyncIterator[Events]:
    events = await Events.connect(nats.url, "tests")
    yield events
    await events.close()


@pytest.fixture
async def publisher(events: Events, nats: Nats) -> AsyncIterator[Publisher]:
    """With a connection of its own."""
    publisher = Publisher(events, USAGE_SUBJECT)
    keeping = asyncio.create_task(publisher.keep())
    await until(lambda: connections(nats) == 2)
    yield publisher
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)


def connections(nats: Nats) -> int:
    """Of this process to the server."""
    there = [c for c in psutil.Process().net_connections("tcp") if c.raddr and c.raddr.port == nats.port]
    return sum(c.status == psutil.CONN_ESTABLISHED for c in there)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.02)


async def publish(publisher: Publisher, payload: bytes, patience: float) -> None:
    told: list[bytes] = []
    await publisher.publish(payload, patience, lambda: told.append(payload))
    assert told == [payload]


async def stored(events: Events) -> list[bytes]:
    state = (await events.js.stream_info(USAGE_STREAM)).state
    numbers = range(state.first_seq, state.last_seq + 1)
    return [(await events.js.get_msg(USAGE_STREAM, number)).data or b"" for number in numbers]


async def eventually(publishing: Callable[[], Awaitable[None]]) -> None:
    """As the meter does: until it is stored."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await publishing()
            except Exception:
                await asyncio.sleep(0.05)


async def test_what_is_answered_is_stored(events: Events, publisher: Publisher) -> None:
    texts = [f"{number}\r\nMSG x 1 5\r\n".encode() + bytes(number) for number in range(300)]
    for text in texts[:100]:
        await publish(publisher, text, 5)
    assert await stored(events) == texts[:100]
    await asyncio.gather(*(publish(publisher, text, 5) for text in texts[100:]))
    assert await stored(events) == texts


async def test_without_a_connection_of_its_own_the_library_carries_them(events: Events, nats: Nats) -> None:
    publisher = Publisher(events, USAGE_SUBJECT)
    await publish(publisher, b"by the library", 5)
    assert connections(nats) == 1
    assert await stored(events) == [b"by the library"]


async def test_a_message_that_no_stream_takes_fails(events: Events, nats: Nats, publisher: Publisher) -> None:
    await events.js.delete_stream(USAGE_STREAM)
    with pytest.raises(NotStored, match="no stream takes it"):
        await publish(publisher, b"lost", 5)


async def test_a_stream_that_is_full_says_so(events: Events, publisher: Publisher) -> None:
    config = (await events.js.stream_info(USAGE_STREAM)).config
    config.max_bytes = 1000
    await events.js.update_stream(config)
    await publish(publisher, bytes(600), 5)
    with pytest.raises(NotStored, match="maximum bytes exceeded"):
        await publish(publisher, bytes(600), 5)
    assert len(await stored(events)) == 1


async def test_a_server_that_hangs_is_given_up_and_found_again(
    events: Events, nats: Nats, publisher: Publisher
) -> None:
    assert nats.child is not None
    process = psutil.Process(nats.child.pid)
    process.suspend()
    try:
        began = time.monotonic()
        with pytest.raises(NotStored, match="the connection was lost"):
            await publish(publisher, b"one", 0.3)
        assert 0.2 < time.monotonic() - began < 2
    finally:
        process.resume()
    await eventually(lambda: publish(publisher, b"two", 1))
    assert b"two" in await stored(events)
    await until(lambda: connections(nats) == 2)
    await publish(publisher, b"three", 5)
    assert (await stored(events))[-1] == b"three"


async def test_a_server_that_was_killed_is_found_again(events: Events, nats: Nats, publisher: Publisher) -> None:
    await publish(publisher, b"one", 5)
    publishing = asyncio.create_task(eventually(lambda: publish(publisher, b"two", 0.5)))
    await nats.kill()
    await nats.start()
    await publishing
    await until(lambda: connections(nats) == 2)
    await publish(publisher, b"three", 5)
    texts = await stored(events)
    assert (texts[0], texts[-1]) == (b"one", b"three")
    assert b"two" in texts
