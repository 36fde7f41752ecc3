"""Case 18: the disk is full for PostgreSQL and NATS: what needs room is refused clearly, and all is well when there is
some."""

import asyncio
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import pytest

from services.common.errors import from_rpc_error
from tests.platform import USD, Account, Platform
from tests.robustness.oracle import judge
from tests.robustness.run import CREDIT, PRICE, priced
from tests.robustness.traffic import Caller
from tests.sizes import WHOLE, Size

pytestmark = pytest.mark.case

SIZE = 600  # MiB
BACK_WITHIN = 30.0  # seconds until calls are answered again
LAST_TRY = 90.0  # seconds: a record that failed over and over is tried again once a minute


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}m,mode=755", "mercat-tests", str(folder)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip(f"no small disk can be made here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Takes all the room that there is."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))
    return ballast


def top_ups(person: Account, seconds: float) -> list[str]:
    """How top-ups ended that were tried for a time."""
    ended, until = [], time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            person.top_up(USD)
            ended.append("OK")
        except grpc.RpcError as e:
            ended.append(f"{e.code().name} {from_rpc_error(e).reason}")
            time.sleep(0.2)
    return ended


async def test_the_disk_is_full(disk: Path, size: Size) -> None:
    full = size.of(60, 8)  # seconds
    with Platform(disk / "home", workers=1) as platform:
        model = priced(platform)
        consumer, saver = platform.sign_up(credit=CREDIT), platform.sign_up()
        caller = Caller(platform.grpc, consumer.api_key, model)
        await caller.many(size.calls // 2, in_flight=8)
        ballast = fill(disk)
        going = asyncio.create_task(caller.many(10**9, in_flight=8, seconds=full))
        saved = await asyncio.to_thread(top_ups, saver, full)
        await going
        print(f"\noracle L: while the disk was full: calls {dict(caller.seen.errors)}, top-ups {sorted(set(saved))}")
        assert {name.partition(" ")[0] for name in caller.seen.errors} <= {"UNAVAILABLE"}
        assert not caller.seen.hintless
        assert {name.partition(" ")[0] for name in saved} <= {"OK", "UNAVAILABLE"}
        ballast.unlink()
        began = time.monotonic()
        while await caller.call() != "OK" and time.monotonic() < began + BACK_WITHIN:
            await asyncio.sleep(0.2)
        back = time.monotonic() - began
        print(f"oracle L: calls are answered {back:.1f} s after there was room again")
        assert back < BACK_WITHIN
        await caller.many(size.calls - len(caller.seen.ok), in_flight=8)
        await caller.channel.close()
        verdict = await asyncio.to_thread(
            judge, platform, consumer, caller.seen, credit=CREDIT, price=PRICE, backlog=LAST_TRY,
            rate=size.calls == WHOLE,  # a small run is mostly the disk's being full
        )  # fmt: skip
        assert verdict.ok >= size.calls
        assert saver.balance() == saved.count("OK") * USD
