"""What was read lately is here again, whole, and never more of it than there is room for."""

import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.storage.cache import Cache


def named(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


async def pieces(*data: bytes, then: BaseException | None = None) -> AsyncIterator[bytes]:
    for piece in data:
        yield piece
    if then is not None:
        raise then


async def read(cache: Cache, digest: str, size: int, *data: bytes, then: BaseException | None = None) -> bytes:
    return b"".join([piece async for piece in cache.keeping(digest, size, pieces(*data, then=then))])


def held(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


async def test_what_was_read_is_here(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c", 100)
    assert cache.find(named(b"abcdef")) is None
    assert await read(cache, named(b"abcdef"), 6, b"abc", b"def") == b"abcdef"
    found = Cache(tmp_path / "c", 100).find(named(b"abcdef"))
    assert found is not None
    assert found.read_bytes() == b"abcdef"
    cache.forget(named(b"abcdef"))
    cache.forget(named(b"abcdef"))
    assert cache.find(named(b"abcdef")) is None


async def test_what_is_not_the_artifact_is_handed_on_and_not_kept(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c", 100)
    assert await read(cache, named(b"abcdef"), 6, b"abc", b"deX") == b"abcdeX"
    with pytest.raises(ConnectionError):
        await read(cache, named(b"abcdef"), 6, b"abc", then=ConnectionError())
    stream = cache.keeping(named(b"abcdef"), 6, pieces(b"abc", b"def"))
    assert await anext(stream) == b"abc"
    await stream.aclose()  # type: ignore[attr-defined]
    assert not list((tmp_path / "c").iterdir())


async def test_what_was_not_read_for_longest_makes_room(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c", 10)
    for i, data in enumerate((b"aaaa", b"bbbb")):
        await read(cache, named(data), 4, data)
        path = cache.find(named(data))
        assert path is not None
        os.utime(path, (i, i))
    assert cache.find(named(b"aaaa"))  # and so it is now the one read last
    await read(cache, named(b"cccc"), 4, b"cccc")
    assert [cache.find(named(data)) is not None for data in (b"aaaa", b"bbbb", b"cccc")] == [True, False, True]
    assert held(tmp_path / "c") <= 10


async def test_what_is_larger_than_the_cache_passes_by(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c", 5)
    await read(cache, named(b"aaaa"), 4, b"aaaa")
    assert await read(cache, named(b"bbbbbb"), 6, b"bbbbbb") == b"bbbbbb"
    assert cache.find(named(b"aaaa")) is not None
    assert await read(Cache(tmp_path / "none", 0), named(b"a"), 1, b"a") == b"a"
    assert not (tmp_path / "none").exists()


async def test_those_read_at_once_fit_together(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c", 10)
    streams = [cache.keeping(named(data * 6), 6, pieces(data * 3, data * 3)) for data in (b"a", b"b")]
    assert [await anext(stream) for stream in streams] == [b"aaa", b"bbb"]
    assert [[piece async for piece in stream] for stream in streams] == [[b"aaa"], [b"bbb"]]
    assert held(tmp_path / "c") == 6
