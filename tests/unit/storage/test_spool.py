"""A partial upload is the length of its file, whatever breaks off."""

import asyncio
import base64
import hashlib
import resource
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.common.errors import Aborted, DataLoss, InvalidFields, OutOfRange, Unavailable
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


@pytest.mark.parametrize("algorithm", ["sha256", "sha1", "md5"])
async def test_what_its_checksum_denies_is_not_kept(spool: Spool, algorithm: str) -> None:
    def checksum(data: bytes) -> str:
        return f"{algorithm} {base64.b64encode(hashlib.new(algorithm, data).digest()).decode()}"

    assert await spool.append("u", 0, 9, pieces(b"abc"), checksum(b"abc")) == 3
    with pytest.raises(DataLoss):
        await spool.append("u", 3, 9, pieces(b"de", b"f"), checksum(b"xyz"))
    assert spool.offset("u") == 3
    with pytest.raises(ConnectionError):  # what of it arrived cannot be checked
        await spool.append("u", 3, 9, pieces(b"de", then=ConnectionError()), checksum(b"def"))
    assert spool.offset("u") == 3
    with pytest.raises(InvalidFields):
        await spool.append("u", 3, 9, pieces(b"def"), f"{algorithm} YWJj")
    assert await spool.append("u", 3, 9, pieces(b"de", b"f"), checksum(b"def")) == 6


async def test_processes_that_share_the_folder_keep_off_each_other(spool: Spool, tmp_path: Path) -> None:
    other = Spool(tmp_path / "uploads")
    await spool.append("u", 0, 9, pieces(b"abc"))
    with other.claim("u"):
        with pytest.raises(Aborted):
            await spool.append("u", 3, 9, pieces(b"def"))
        with pytest.raises(Aborted), spool.claim("u"):
            pass
    assert await spool.append("u", 3, 9, pieces(b"def")) == 6


async def test_a_full_disk_is_said_and_what_was_kept_goes_on(spool: Spool) -> None:
    assert await spool.append("u", 0, 9, pieces(b"abc")) == 3
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5, hard))
    try:
        with pytest.raises(Unavailable):
            await spool.append("u", 3, 9, pieces(b"defghi"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert spool.offset("u") == 5
    assert await spool.append("u", 5, 9, pieces(b"fghi")) == 9
    assert spool.path("u").read_bytes() == b"abcdefghi"


async def test_a_claim_leaves_nothing(spool: Spool, tmp_path: Path) -> None:
    for _ in range(2):
        with spool.claim("u"):
            pass
        (tmp_path / "uploads").mkdir(exist_ok=True)
    assert not list((tmp_path / "uploads").iterdir())
