"""All of `mercat up` but Mercat's own code: order, repair, draining, two homes, what is left behind."""

import asyncio
import json
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import psutil
import pytest

from services.embedded import status
from services.embedded.connection import Connection
from services.embedded.errors import StartError
from services.embedded.home import Home
from services.embedded.ports import free_ports
from services.embedded.postgres import Postgres
from services.embedded.process import Spec
from services.embedded.settings import UpSettings
from services.embedded.supervisor import Supervisor
from services.embedded.topology import Addresses, Urls

from .peers import peers

HERE = Path(__file__).parent


def settings(home: Path, **values: Any) -> UpSettings:
    return UpSettings(home=home, port=free_ports(1)[0], workers=2, **values)


@asynccontextmanager
async def running(supervisor: Supervisor) -> AsyncIterator[asyncio.Task[None]]:
    """Ready within, and stopped in order afterwards."""
    stop = asyncio.Event()
    life = asyncio.create_task(supervisor.run(stop))
    try:
        while supervisor.status.phase != status.READY:
            assert not life.done(), life.exception()
            await asyncio.sleep(0.02)
        yield life
    finally:
        stop.set()
        await life


async def test_a_life(tmp_path: Path) -> None:
    home = tmp_path / "home"
    phases: list[tuple[str, str]] = []

    def changed(now: status.Status) -> None:
        phases.extend((part.name, part.state) for part in now.parts)

    supervisor = Supervisor(settings(home), own_processes=peers, on_change=changed)
    async with running(supervisor):
        parts = {part.name: part for part in supervisor.status.parts}
        assert set(parts) == {"postgres", "valkey", "nats", "envoy", "control", "worker-0", "worker-1", "gateway"}
        assert {part.state for part in parts.values()} == {"ready"}
        written = status.Status.read(home / "run" / "state.json")
        assert written is not None
        assert (written.phase, written.pid) == ("ready", os.getpid())
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"http://127.0.0.1:{supervisor.settings.port}/v1/me")).status_code == 200
        given = psutil.Process(parts["worker-1"].pid).environ()
        connection = await asyncpg.connect(given["MERCAT_POSTGRES_URL"])
        await connection.close()
        assert given["MERCAT_GRPC"] == f"127.0.0.1:{supervisor.settings.port}"
        assert given["MERCAT_STORAGE_URL"] == (home / "artifacts").as_uri()
        pids = [part.pid for part in parts.values() if part.pid]
    stopped = list(dict.fromkeys(name for name, state in phases if state == "stopped"))
    assert stopped.index("envoy") == 0
    assert stopped.index("control") > max(stopped.index("worker-0"), stopped.index("worker-1"))
    assert stopped[-4:] == ["gateway", "nats", "valkey", "postgres"]
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
    assert not Home(home).is_locked()


async def test_connection_json_and_secrets_are_the_owner_s_alone(tmp_path: Path) -> None:
    home = tmp_path / "home"
    published: list[Connection] = []

    async def publish(connection: Connection) -> Connection:
        published.append(connection)
        for account in connection.accounts.values():
            account.api_key = f"mk_live_{account.email}"
        connection.models = ["demo/one"]
        return connection

    first = Supervisor(settings(home), own_processes=peers, publish=publish)
    async with running(first):
        path = home / "connection.json"
        written = json.loads(path.read_text())
        address = f"127.0.0.1:{first.settings.port}"
        assert (written["grpc"], written["rest"]) == (address, f"http://{address}")
        assert written["console"].startswith(f"http://{address}")
        assert written["tls"] == {
            "address": f"127.0.0.1:{first.settings.port + 443}",
            "ca": str(home / "tls" / "ca.pem"),
        }
        assert set(written["accounts"]) == {"admin", "publisher", "consumer"}
        assert {tuple(account) for account in written["accounts"].values()} == {("email", "password", "api_key")}
        assert written["models"] == ["demo/one"]
        for file in [path, home / "secrets" / "jwt.pem", home / "secrets" / "internal-token", home / "tls" / "ca.key"]:
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
    again = Supervisor(settings(home), own_processes=peers, publish=publish)
    async with running(again):
        assert json.loads(path.read_text())["accounts"] == written["accounts"]
    assert len(published) == 1


async def test_two_homes_side_by_side(tmp_path: Path) -> None:
    one = Supervisor(settings(tmp_path / "one", tls=False), own_processes=peers)
    two = Supervisor(settings(tmp_path / "two", tls=False), own_processes=peers)
    async with running(one), running(two), httpx.AsyncClient() as client:
        pids = set()
        for supervisor in (one, two):
            answer = await client.get(f"http://127.0.0.1:{supervisor.settings.port}/v1/me")
            pids.add(answer.headers["mercat-pid"])
        assert len(pids) == 2


@pytest.mark.parametrize("name", ["postgres", "nats", "control", "worker-0", "gateway", "envoy"])
async def test_what_dies_comes_back(tmp_path: Path, name: str) -> None:
    supervisor = Supervisor(settings(tmp_path / "home", tls=False), own_processes=peers)
    async with running(supervisor):
        part = supervisor.status.part(name)
        before = part.pid
        assert before is not None
        os.kill(before, signal.SIGKILL)
        for _ in range(1000):
            if part.restarts and part.state == "ready":
                break
            await asyncio.sleep(0.02)
        assert part.state == "ready"
        assert part.pid != before
        assert "SIGKILL" in part.detail
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"http://127.0.0.1:{supervisor.settings.port}/v1/me")).status_code == 200


async def test_calls_under_way_are_finished(tmp_path: Path) -> None:
    supervisor = Supervisor(settings(tmp_path / "home", tls=False), own_processes=peers)
    url = f"http://127.0.0.1:{supervisor.settings.port}"
    async with httpx.AsyncClient() as client:
        async with running(supervisor):
            predict = client.post(f"{url}/v1/models/a/b:predict", json={"inputs": []}, headers={"test-sleep": "1.5"})
            call = asyncio.create_task(predict)
            await asyncio.sleep(0.5)
        assert (await call).status_code == 200


async def test_who_cannot_wait_ends_everything_at_once(tmp_path: Path) -> None:
    """The second Ctrl-C, while a call is waited for."""
    supervisor = Supervisor(settings(tmp_path / "home", tls=False), own_processes=peers)
    url = f"http://127.0.0.1:{supervisor.settings.port}"
    stop = asyncio.Event()
    life = asyncio.create_task(supervisor.run(stop))
    while supervisor.status.phase != status.READY:
        assert not life.done(), life.exception()
        await asyncio.sleep(0.02)
    async with httpx.AsyncClient() as client:
        predict = client.post(f"{url}/v1/models/a/b:predict", json={"inputs": []}, headers={"test-sleep": "30"})
        call = asyncio.create_task(predict)
        await asyncio.sleep(0.5)
        stop.set()
        await asyncio.sleep(0.5)
        supervisor.kill()
        async with asyncio.timeout(15):
            await life
        await asyncio.gather(call, return_exceptions=True)
    assert {part.restarts for part in supervisor.status.parts} == {0}
    assert not _of(tmp_path)


async def test_a_part_that_cannot_start_stops_the_rest(tmp_path: Path) -> None:
    def broken(settings: UpSettings, home: Home, urls: Urls, addresses: Addresses) -> dict[str, Spec]:
        specs = peers(settings, home, urls, addresses)
        spec = specs["worker-1"]
        script = ["-c", "import sys; sys.exit('the model is on fire')"]
        specs["worker-1"] = Spec(spec.name, [sys.executable, *script], spec.log, spec.ready)
        return specs

    supervisor = Supervisor(settings(tmp_path / "home", tls=False), own_processes=broken)
    with pytest.raises(StartError, match=r"(?s)worker-1 ended while starting \(exit status 1\).*the model is on fire"):
        await supervisor.run(asyncio.Event())
    assert {part.state for part in supervisor.status.parts} <= {"stopped", "waiting"}
    assert supervisor.status.phase == status.FAILED
    assert not Home(tmp_path / "home").is_locked()
    assert not _of(tmp_path)


async def test_servers_of_one_s_own(tmp_path: Path) -> None:
    async with Postgres(tmp_path / "mine") as mine:
        supervisor = Supervisor(settings(tmp_path / "home", tls=False, postgres_url=mine.url), own_processes=peers)
        async with running(supervisor):
            assert supervisor.status.part("postgres").state == status.EXTERNAL
            given = psutil.Process(supervisor.status.part("control").pid).environ()
            assert given["MERCAT_POSTGRES_URL"] == mine.url
            assert not (tmp_path / "home" / "postgres").exists()
    gone = Supervisor(settings(tmp_path / "other", postgres_url=mine.url), own_processes=peers)
    with pytest.raises(StartError, match=r"PostgreSQL cannot be reached .* MERCAT_POSTGRES_URL"):
        await gone.run(asyncio.Event())


async def test_starts_after_a_supervisor_that_was_killed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    port = free_ports(1)[0]
    script = tmp_path / "up.py"
    script.write_text(
        "import asyncio, sys\n"
        f"sys.path[:0] = [{str(HERE.parents[2])!r}, {str(HERE.parents[2] / 'gen')!r}]\n"
        "from tests.integration.embedded.peers import peers\n"
        "from services.embedded.settings import UpSettings\n"
        "from services.embedded.supervisor import Supervisor\n"
        f"settings = UpSettings(home={str(home)!r}, port={port}, workers=1, tls=False)\n"
        "asyncio.run(Supervisor(settings, own_processes=peers).run(asyncio.Event()))\n"
    )
    first = await asyncio.create_subprocess_exec(sys.executable, str(script))
    for _ in range(1000):
        now = status.Status.read(home / "run" / "state.json")
        if now is not None and now.phase == status.READY:
            break
        assert first.returncode is None
        await asyncio.sleep(0.02)
    first.kill()
    await first.wait()
    supervisor = Supervisor(UpSettings(home=home, port=port, workers=1, tls=False), own_processes=peers)
    async with running(supervisor):
        assert {part.state for part in supervisor.status.parts} == {"ready"}
    assert not _of(tmp_path)


def _of(folder: Path) -> list[str]:
    """Processes that have to do with a folder."""
    found = []
    for process in psutil.process_iter(["cmdline", "pid"]):
        command = " ".join(process.info["cmdline"] or [])
        if str(folder) in command and process.info["pid"] != os.getpid():
            found.append(command)
    return found
