"""The peers' exact versions."""

import re
import sys
from pathlib import Path

import psutil
import pytest

from benchmarks import peers

LOCK = Path(__file__).parents[3] / "requirements.lock"


@pytest.mark.parametrize("name", ["mlserver", "litserve"])
def test_peers_run_the_same_engine(name: str) -> None:
    found = re.search(r"^onnxruntime==([^ ;]+)", LOCK.read_text(), re.MULTILINE)
    assert found is not None
    assert peers.version(name, "onnxruntime") == found[1]


@pytest.mark.parametrize("path", sorted(peers.HERE.glob("*.txt")), ids=lambda path: path.stem)
def test_every_version_is_exact(path: Path) -> None:
    for line in path.read_text().splitlines():
        assert re.fullmatch(r"[\w.-]+==[\w.]+", line), line


def test_a_peer_leaves_no_process_behind(tmp_path: Path) -> None:
    child = "import time; time.sleep(60)"
    parent = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"
    with peers.Server("parent", [sys.executable, "-c", parent], 0, tmp_path, {}) as server:
        server.wait(lambda: bool(psutil.Process(server.pid).children()))
        started = psutil.Process(server.pid).children()
    assert started
    assert not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in started)
