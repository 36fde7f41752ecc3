"""PostgreSQL, Valkey and NATS as they are embedded: they start, keep what they were given, come back, and end."""

import asyncio
import os
import sys
from pathlib import Path

import asyncpg
import nats
import psutil
import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from services.embedded.errors import ChildFailed
from services.embedded.nats import Nats
from services.embedded.postgres import Postgres
from services.embedded.process import Child, Spec, State
from services.embedded.server import Server
from services.embedded.valkey import Valkey

SERVERS = [Postgres, Valkey, Nats]


async def _write(server: Server) -> None:
    if isinstance(server, Postgres):
        connection = await asyncpg.connect(server.url)
        await connection.execute("CREATE EXTENSION vector; CREATE TABLE kept AS SELECT 41 + 1 AS answer")
        await connection.close()
    elif isinstance(server, Nats):
        client = await nats.connect(server.url)
        await client.jetstream().add_stream(name="KEPT", subjects=["kept"])
        await client.jetstream().publish("kept", b"42")
        await client.close()


async def _read(server: Server) -> object:
    if isinstance(server, Postgres):
        connection = await asyncpg.connect(server.url)
        try:
            return await connection.fetchval("SELECT answer FROM kept")
        finally:
            await connection.close()
    if isinstance(server, Nats):
        client = await nats.connect(server.url)
        try:
            return int((await client.jetstream().get_msg("KEPT", seq=1)).data or b"")
        finally:
            await client.close()
    redis = Redis.from_url(server.url)
    try:
        return 42 if await redis.ping() else 0
    finally:
        await redis.aclose()


@pytest.mark.parametrize("kind", SERVERS)
async def test_keeps_what_it_acknowledged_through_stop_and_kill(kind: type[Server], tmp_path: Path) -> None:
    server = kind(tmp_path / "data")
    async with server:
        await _write(server)
    async with server:
        assert await _read(server) == 42
        await server.kill()
        await server.start()
        assert await _read(server) == 42


@pytest.mark.parametrize("kind", SERVERS)
async def test_comes_back_by_itself_when_supervised(kind: type[Server], tmp_path: Path) -> None:
    server = kind(tmp_path / "data")
    states: list[State] = []
    await server.start(supervised=True, on_change=lambda child: states.append(child.state))
    assert server.child is not None
    await _write(server)
    before = server.child.pid
    await server.kill()
    await _until(lambda: states[-2:] == [State.RESTARTING, State.READY])
    assert server.child.pid != before
    assert server.child.restarts == 1
    assert await _read(server) == 42
    await server.stop()
    assert states[-1] == State.STOPPED


@pytest.mark.parametrize("kind", SERVERS)
async def test_two_of_a_kind_side_by_side(kind: type[Server], tmp_path: Path) -> None:
    async with kind(tmp_path / "one") as one, kind(tmp_path / "two") as two:
        assert one.url != two.url
        await _write(one)
        await _write(two)
        assert await _read(one) == await _read(two) == 42


async def test_nobody_without_the_password(tmp_path: Path) -> None:
    async with Postgres(tmp_path / "postgres") as postgres, Valkey(tmp_path / "valkey") as valkey:
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(_wrong(postgres))
        redis = Redis.from_url(_wrong(valkey))
        with pytest.raises(RedisError, match="invalid username-password"):
            await redis.ping()
        await redis.aclose()
    async with Nats(tmp_path / "nats") as server:
        # By hand: the client leaves its socket behind when it is refused.
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        await reader.readline()
        writer.write(b'CONNECT {"user":"mercat","pass":"wrong","verbose":false}\r\nPING\r\n')
        assert await reader.readline() == b"-ERR 'Authorization Violation'\r\n"
        writer.close()
        await writer.wait_closed()


def _wrong(server: Server) -> str:
    return server.url.replace((server.folder / "password").read_text().strip(), "wrong")


async def test_postgres_is_durable_and_another_database_is_a_url_away(tmp_path: Path) -> None:
    async with Postgres(tmp_path / "data") as postgres:
        connection = await asyncpg.connect(postgres.url)
        for name in ("fsync", "synchronous_commit", "full_page_writes", "data_checksums"):
            assert await connection.fetchval(f"SHOW {name}") == "on"
        await connection.execute("CREATE DATABASE other TEMPLATE template0")
        await connection.close()
        other = await asyncpg.connect(postgres.url_of("other"))
        assert await other.fetchval("SELECT current_database()") == "other"
        await other.close()


async def test_a_long_path_is_no_obstacle(tmp_path: Path) -> None:
    deep = tmp_path / ("a" * 60) / ("b" * 60) / ("c" * 60)
    async with Postgres(deep / "postgres") as postgres, Valkey(deep / "valkey") as valkey:
        await _write(postgres)
        assert await _read(postgres) == await _read(valkey) == 42


async def test_a_first_start_cut_short_leaves_nothing_half_made(tmp_path: Path) -> None:
    postgres = Postgres(tmp_path / "data")
    starting = asyncio.create_task(postgres.start())
    await asyncio.sleep(0.15)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    async with postgres:
        await _write(postgres)


async def test_a_process_that_ends_at_once_says_why(tmp_path: Path) -> None:
    async def ready() -> bool:
        return False

    log = tmp_path / "logs" / "sorry.log"
    child = Child(Spec("sorry", ["/bin/sh", "-c", "echo no such luck; exit 3"], log, ready))
    with pytest.raises(ChildFailed, match=r"(?s)sorry ended while starting \(exit status 3\).*no such luck"):
        await child.start()
    assert child.state == State.STOPPED


async def test_a_process_that_does_not_listen_is_killed_with_all_it_started(tmp_path: Path) -> None:
    async def ready() -> bool:
        return (tmp_path / "inner").exists()

    script = f"trap '' TERM; sleep 60 & echo $! > {tmp_path}/inner; wait; sleep 60"
    spec = Spec("deaf", ["/bin/sh", "-c", script], tmp_path / "deaf.log", ready, stop_timeout=0.3)
    child = Child(spec)
    await child.start()
    outer, inner = child.pid, int((tmp_path / "inner").read_text())
    await child.stop()
    assert outer is not None
    await _until(lambda: not _runs(outer) and not _runs(inner))


async def test_what_served_is_back_at_once_and_what_does_not_start_waits(tmp_path: Path) -> None:
    """However often it is killed; the pauses grow only while starting it does not help."""
    ready_file, broken = tmp_path / "ready", tmp_path / "broken"

    async def ready() -> bool:
        return ready_file.exists()

    script = f"test ! -e {broken} || exit 3; touch {ready_file}; sleep 60"
    said: list[str] = []
    child = Child(Spec("fragile", ["/bin/sh", "-c", script], tmp_path / "log", ready), supervised=True)
    child.on_change = lambda changed: said.append(f"{changed.state}: {changed.detail}")
    await child.start()
    for killed in range(1, 6):
        await asyncio.sleep(0.3)
        ready_file.unlink()
        child.kill()
        await _until(lambda n=killed: child.restarts == n and child.state == State.READY)
    assert {line for line in said if "again" in line} == {"restarting: killed by SIGKILL; again in 0.2 s"}
    await asyncio.sleep(0.3)
    said.clear()
    broken.touch()
    ready_file.unlink()
    child.kill()
    await _until(lambda: child.restarts == 8)
    assert [line.rpartition(" in ")[2] for line in said if "again" in line] == ["0.2 s", "0.4 s", "0.8 s"]
    await child.stop()


async def test_one_that_is_started_again_and_never_answers_is_ended_and_started_again(tmp_path: Path) -> None:
    ready_file = tmp_path / "ready"

    async def ready() -> bool:
        return ready_file.exists()

    script = f"test -e {tmp_path}/second && touch {ready_file}; test -e {tmp_path}/first && touch {tmp_path}/second; "
    script += f"test -e {tmp_path}/first || touch {tmp_path}/first {ready_file}; sleep 60"
    child = Child(Spec("mute", ["/bin/sh", "-c", script], tmp_path / "log", ready, start_timeout=1.5), supervised=True)
    await child.start()
    ready_file.unlink()
    child.kill()
    await _until(lambda: child.restarts == 2 and child.state == State.READY)
    await child.stop()


async def test_a_stop_that_comes_just_when_a_probe_ends_is_heard(tmp_path: Path) -> None:
    """While it is being started again; `wait_for` of Python 3.11 then loses the cancellation."""
    stopping: list[asyncio.Task[None]] = []

    async def ready() -> bool:
        if child.restarts and not stopping:
            stopping.append(asyncio.create_task(child.stop()))
        return not child.restarts

    child = Child(Spec("brief", ["/bin/sh", "-c", "sleep 60"], tmp_path / "log", ready), supervised=True)
    await child.start()
    child.kill()
    await _until(lambda: bool(stopping))
    stopped, _ = await asyncio.wait(stopping, timeout=15)
    assert stopped
    assert child.state == State.STOPPED


async def test_children_end_with_their_parent(tmp_path: Path) -> None:
    """A supervisor that is killed takes its processes with it."""
    script = tmp_path / "parent.py"
    script.write_text(
        "import asyncio, pathlib, sys\n"
        "from services.embedded.valkey import Valkey\n"
        "async def main():\n"
        "    valkey = Valkey(pathlib.Path(sys.argv[1]))\n"
        "    await valkey.start(supervised=True)\n"
        "    print(valkey.child.pid, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    root = Path(__file__).parents[3]
    parent = await asyncio.create_subprocess_exec(
        *[sys.executable, str(script), str(tmp_path / "valkey")],
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": f"{root}:{root / 'gen'}"},
    )
    assert parent.stdout is not None
    pid = int(await asyncio.wait_for(parent.stdout.readline(), 20))
    assert _runs(pid)
    parent.kill()
    await parent.wait()
    await _until(lambda: not _runs(pid))


def _runs(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


async def _until(condition: object, seconds: float = 15) -> None:
    assert callable(condition)
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not happen in time")
