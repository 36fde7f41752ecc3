"""What the child cannot do, tried in processes of their own."""

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from services.registry.validation import Limits, validate
from tests import graphs
from tests.robustness import artifacts

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what a process can give up differs by system")
CONFINED = """
from services.registry.validation import Limits
from services.registry.validation.confine import confine, start_nothing
"""


def confined(code: str) -> str:
    """What `code` prints."""
    done = subprocess.run([sys.executable, "-c", CONFINED + code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_no_connection_gets_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        said = confined(f"""
import os, socket
before = os.readlink("/proc/self/ns/net")
confine(Limits())
if os.readlink("/proc/self/ns/net") == before:
    print("same network")
else:
    try:
        socket.create_connection(("127.0.0.1", {server.getsockname()[1]}), timeout=5)
        print("connected")
    except OSError as error:
        print("refused")
""")
    if said == "same network":
        pytest.skip("this kernel lets nobody make networks")
    assert said == "refused"


def test_no_further_process() -> None:
    # As root the kernel does not count, so it is tried as somebody else.
    said = confined("""
import os
confine(Limits())
start_nothing()
if os.getuid() == 0:
    os.setuid(65534)
try:
    if os.fork() == 0:
        os._exit(0)
    print("forked")
except BlockingIOError:
    print("refused")
""")
    assert said == "refused"


def test_no_large_file_and_no_large_memory(tmp_path: Path) -> None:
    said = confined(f"""
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
confine(Limits(file_bytes=1024**2, memory_bytes=2 * 1024**3))
try:
    open({str(tmp_path / "large")!r}, "wb").write(bytes(2 * 1024**2))
    open({str(tmp_path / "large")!r}, "ab").write(bytes(1024**2))
    print("wrote")
except OSError:
    print("no file")
try:
    bytes(3 * 1024**3)
except MemoryError:
    print("no memory")
""")
    assert said.split("\n") == ["no file", "no memory"]


async def test_it_knows_no_secret_and_lives_in_a_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MERCAT_INTERNAL_TOKEN", "planted")
    path = tmp_path / "model.onnx"
    path.write_bytes(graphs.slow(2_000_000_000))
    running = asyncio.create_task(validate(path, Limits(wall_seconds=20)))
    child = await _child()
    environment, folder = child.environ(), Path(child.cwd())
    child.kill()
    report = await running
    assert [f.code for f in report.findings] == ["VALIDATION_KILLED"]
    assert "planted" not in str(environment)
    assert not [name for name in environment if name.startswith("MERCAT_")]
    assert folder.name.startswith("validate-")
    assert not folder.exists()


async def _child() -> psutil.Process:
    """The one that validates, when it runs its own program."""
    for _ in range(200):
        for process in psutil.Process(os.getpid()).children():
            if "services.registry.validation" in process.cmdline():
                return process
        await asyncio.sleep(0.05)
    raise AssertionError("no child")


async def test_the_report_does_not_name_where_the_file_lies(tmp_path: Path) -> None:
    path = tmp_path / "secret-folder" / "model.onnx"
    path.parent.mkdir()
    path.write_bytes(artifacts.opset(999))
    report = await validate(path, Limits())
    assert [f.code for f in report.findings] == ["ENGINE_REFUSES"]
    assert "secret-folder" not in report.to_json()
