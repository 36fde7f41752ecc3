"""`mercat up --detach`, `status`, `logs`, `down` as they are typed; small processes stand in for Mercat's own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from services.embedded.ports import free_ports

ROOT = Path(__file__).parents[3]
STAND_INS = """\
import services.embedded.topology
from tests.integration.embedded.peers import peers
services.embedded.topology.own_processes = peers
"""


class Mercat:
    """The command in a home and at a port of its own."""

    def __init__(self, folder: Path) -> None:
        (folder / "sitecustomize.py").write_text(STAND_INS)
        self.home = folder / "home"
        self.port = free_ports(1)[0]
        mine = {"MERCAT_HOME": str(self.home), "MERCAT_PORT": str(self.port), "MERCAT_WORKERS": "1"}
        path = os.pathsep.join([str(folder), str(ROOT), str(ROOT / "gen")])
        self.environment = {**os.environ, **mine, "PYTHONPATH": path, "NO_COLOR": "1", "COLUMNS": "60"}

    def __call__(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            self.command(*arguments), capture_output=True, text=True, timeout=60, check=False, env=self.environment
        )

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "services.cli.main", *arguments]


@pytest.fixture
def mercat(tmp_path: Path) -> Iterator[Mercat]:
    made = Mercat(tmp_path)
    yield made
    made("down")


def test_detached_seen_followed_and_ended(mercat: Mercat) -> None:
    up = mercat("up", "--detach", "--no-demo")
    assert up.returncode == 0, up.stderr
    for name in ("postgres", "valkey", "nats", "envoy", "control", "worker-0", "gateway"):
        assert f"✓ {name}" in up.stdout
    for shown in (f"127.0.0.1:{mercat.port}", f"http://127.0.0.1:{mercat.port}/docs", "admin@mercat.localhost"):
        assert shown in up.stdout
    secret = json.loads((mercat.home / "connection.json").read_text())["accounts"]["admin"]["password"]
    assert secret in up.stdout  # whole, to be copied

    status = mercat("status", "--json")
    assert status.returncode == 0
    seen = json.loads(status.stdout)
    assert {part["state"] for part in seen["parts"]} == {"ready"}
    assert "worker-0" in mercat("status").stdout
    again = mercat("up")
    assert (again.returncode, "already" in again.stderr) == (1, True)

    following = subprocess.Popen(
        mercat.command("logs", "postgres", "-f", "-n", "0"), stdout=subprocess.PIPE, text=True, env=mercat.environment
    )
    time.sleep(2)
    [postgres] = [part["pid"] for part in seen["parts"] if part["name"] == "postgres"]
    os.kill(postgres, signal.SIGKILL)
    assert following.stdout is not None
    assert "database system" in following.stdout.readline()
    following.send_signal(signal.SIGINT)
    following.communicate(timeout=10)
    assert following.returncode == 130
    unknown = mercat("logs", "nobody")
    assert (unknown.returncode, "postgres" in unknown.stderr) == (1, True)

    down = mercat("down")
    assert (down.returncode, "is stopped" in down.stdout) == (0, True)
    assert not [part for part in seen["parts"] if psutil.pid_exists(part["pid"])]
    assert mercat("status").returncode == 1
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{mercat.port}/healthz")


def test_ctrl_c_in_the_foreground(mercat: Mercat) -> None:
    with subprocess.Popen(
        mercat.command("up", "--no-demo"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=mercat.environment,
    ) as running:
        assert running.stdout is not None
        lines = []
        for line in running.stdout:
            lines.append(line)
            if "Mercat is ready" in line:
                break
        running.send_signal(signal.SIGINT)
        rest, errors = running.communicate(timeout=60)
    assert (running.returncode, errors) == (0, "")
    said = "".join(lines) + rest
    assert said.index("✓ postgres") < said.index("✓ control") < said.index("stopping") < said.index("· postgres")
    assert rest.rstrip().endswith("stopped")


def test_ended_while_it_starts(mercat: Mercat) -> None:
    with subprocess.Popen(mercat.command("up"), stdout=subprocess.PIPE, text=True, env=mercat.environment) as running:
        assert running.stdout is not None
        assert "✓" in running.stdout.readline()
        running.send_signal(signal.SIGTERM)
        running.communicate(timeout=60)
    assert running.returncode == 0
    for process in psutil.process_iter(["cmdline"]):
        assert str(mercat.home) not in " ".join(process.info["cmdline"] or [])
