"""A large upload goes on where it was when the processes behind it were killed half-way, and no process of the platform
holds much of it in memory. The whole: `--upload-gib 5`."""

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from mercat.storage.v1 import storage_pb2

from tests.platform import Platform
from tests.robustness.sender import peak

MOST = 300 * 1024**2  # bytes of memory of any process


class Memory:
    """The most that each process of a platform held while it was watched, by part; those of a part together count one
    by one."""

    def __init__(self, platform: Platform) -> None:
        self.most: dict[str, int] = {}
        self._platform = platform
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._ended.wait(0.25):
            with contextlib.suppress(OSError, ValueError):
                for part, pid in self._platform.pids().items():
                    with contextlib.suppress(psutil.Error):
                        for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
                            with contextlib.suppress(OSError):
                                self.most[part] = max(self.most.get(part, 0), peak(process.pid))

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with Platform(tmp_path_factory.mktemp("uploads") / "home") as platform:
        yield platform


def _arrived(folder: Path) -> int:
    return max((file.stat().st_size for file in folder.glob("upl_*")), default=0)


@pytest.mark.case
@pytest.mark.parametrize("way", ["grpc", "http"])
def test_it_goes_on_after_a_kill(way: str, running: Platform, request: pytest.FixtureRequest) -> None:
    size = int(request.config.getoption("--upload-gib") * 1024**3)
    person = running.publisher()
    killed = ("control", "gateway") if way == "http" else ("control",)
    memory = Memory(running)
    seed = time.time_ns()
    program = [sys.executable, "-m", "tests.robustness.sender"]
    argv = [*program, way, running.grpc, person.api_key, str(seed), str(size)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as sender:
        try:
            while (half := _arrived(running.home / "uploads")) < size // 2:
                assert sender.poll() is None
                time.sleep(0.005)
            died = {part: running.kill(part) for part in killed}
            for part, pid in died.items():
                running.until_ready(part, pid)
            out, _ = sender.communicate(timeout=3600)
        finally:
            sender.kill()
            memory.stop()
    said = json.loads(out)
    print(
        f"\noracle L: {size:,} bytes over {way}, {', '.join(killed)} killed at {half:,} (seed {seed}): "
        f"went on {said['again']} times, {said['seconds']:.0f} s in all; "
        f"most memory, MiB: the client {said['peak'] >> 20}, "
        + ", ".join(f"{part} {most >> 20}" for part, most in sorted(memory.most.items()))
    )
    assert size // 2 <= half < size, "it was over before anything was killed"
    assert said["again"] >= 1
    assert said["told"] == said["sent"]
    got = next(
        iter(person.storage.DownloadArtifact(storage_pb2.DownloadArtifactRequest(digest=said["sent"], length=8)))
    )
    assert got.chunk.data == bytes(8)
    assert max(said["peak"], *memory.most.values()) < MOST
    # Disk is given back, or the next one would not fit.
    name = said["sent"].removeprefix("sha256:")
    stored = running.home / "artifacts" / "sha256" / name[:2] / name
    assert stored.stat().st_size == size
    assert not _arrived(running.home / "uploads")
    stored.unlink()
