"""A partial upload is the length of its file, whatever breaks off."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.common.errors import Aborted, InvalidFields, OutOfRange
from services.storage.spool import MAX_CHUNK, Spool


async def pieces(*data: bytes, then: BaseException | None = None) -> AsyncIterator[bytes]:
    for piece in data:
        yield piece
    if then is not None:
        raise then


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "uploads")


async def test_what_arrived_before_a_break_is_kept(spool: Spool) -> None:
    assert spool.offset("u") == 0
    with pytest.raises(ConnectionError):
        await spool.append("u", 0, 10, pieces(b"abc", b"def", then=ConnectionError()))
    assert spool.offset("u") == 6
    assert await spool.append("u", 6, 10, pieces(b"ghij")) == 10
    assert await spool.digest("u") == "sha256:" + hashlib.sha256(b"abcdefghij").hexdigest()
    spool.remove("u")
    spool.remove("u")
    assert spool.offset("u") == 0


async def test_nothing_past_the_announced_size_is_kept(spool: Spool) -> None:
    with pytest.raises(OutOfRange):
        await spool.append("u", 0, 5, pieces(b"abc", b"def"))
    assert spool.offset("u") == 3


async def test_large_chunks_are_refused(spool: Spool) -> None:
    with pytest.raises(InvalidFields):
        await spool.append("u", 0, 2**40, pieces(bytes(MAX_CHUNK + 1)))
    assert spool.offset("u") == 0


async def test_one_writes_at_a_time(spool: Spool) -> None:
    go = asyncio.Event()

    async def waiting() -> AsyncIterator[bytes]:
        yield b"a"
        await go.wait()
        yield b"b"

    first = asyncio.create_task(spool.append("u", 0, 2, waiting()))
    await asyncio.sleep(0.05)
    with pytest.raises(Aborted) as caught:
        await spool.append("u", 1, 2, pieces(b"x"))
    assert (caught.value.reason, caught.value.retry_after) == ("UPLOAD_BUSY", 1)
    assert await spool.append("other", 0, 1, pieces(b"y")) == 1
    go.set()
    assert await first == 2
    with pytest.raises(Aborted) as caught:
        await spool.append("u", 1, 2, pieces(b"x"))
    assert caught.value.metadata == {"offset": "2"}
