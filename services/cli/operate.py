"""`mercat status`, `logs`, `down`, `serve` and `migrate`: the platform and its parts from another terminal."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from services.common.db import migrate as migrate_schema
from services.common.settings import load
from services.embedded import status
from services.embedded.errors import StartError
from services.embedded.home import Home
from services.embedded.postgres import Postgres
from services.embedded.process import tail
from services.embedded.settings import UpSettings

SCHEMAS = ("auth", "storage", "registry", "usage", "billing", "marketplace", "notification", "inference")
HomeOption = Annotated[Path | None, typer.Option("--home", help="Folder of all state. [MERCAT_HOME, .mercat]")]
JsonOption = Annotated[bool, typer.Option("--json", help="For programs.")]


def register(app: typer.Typer) -> None:
    app.command("status")(show_status)
    app.command()(logs)
    app.command()(down)
    app.command()(migrate)
    app.command()(serve)


def _home(home: Path | None) -> tuple[UpSettings, Home]:
    settings = load(UpSettings, home=home)
    return settings, Home(settings.home)


def show_status(home: HomeOption = None, as_json: JsonOption = False) -> int:
    """Shows every process: state, process id, restarts. Exit status 0 only when all are ready.

    Example: mercat status --json
    """
    _, place = _home(home)
    now = status.Status.read(place.state)
    if now is None or place.owner() is None:
        if as_json:
            typer.echo(json.dumps({"phase": "down", "home": str(place.path), "parts": []}))
        else:
            Console(soft_wrap=True).print(f"Mercat does not run in {place.path}; start it with `mercat up`.")
        return 1
    ready = now.phase == status.READY and all(part.state in ("ready", status.EXTERNAL) for part in now.parts)
    if as_json:
        typer.echo(now.model_dump_json(indent=2))
        return 0 if ready else 1
    table = Table(title=f"{now.home}: {now.phase}", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for heading in ("process", "state", "pid", "restarts", ""):
        table.add_column(heading)
    for part in now.parts:
        table.add_row(part.name, part.state, str(part.pid or ""), str(part.restarts or ""), part.detail)
    Console(highlight=False).print(table)
    return 0 if ready else 1


def logs(
    service: Annotated[str | None, typer.Argument(help="postgres, valkey, nats, envoy, control, worker-0, …")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines are written.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the last lines.")] = 100,
    home: HomeOption = None,
) -> None:
    """Shows what the processes wrote.

    Examples: mercat logs · mercat logs worker-0 -f
    """
    _, place = _home(home)
    there = {path.stem: path for path in sorted(place.logs.glob("*.log"))}
    if service is not None and service not in there:
        known = ", ".join(there) or "none yet"
        raise StartError(f"There is no log of {service} in {place.logs}; there are: {known}.")
    chosen = {service: there[service]} if service is not None else there
    if not chosen:
        raise StartError(f"There are no logs in {place.logs}; start Mercat with `mercat up`, or name its --home.")
    width = max(map(len, chosen)) if service is None else 0
    offsets = {name: path.stat().st_size for name, path in chosen.items()}
    for name, path in chosen.items():
        for line in tail(path, lines if service is not None else max(1, lines // len(chosen)) if lines else 0):
            typer.echo(f"{name:<{width}} {line}" if width else line)
    while follow:
        time.sleep(0.2)
        for name, path in chosen.items():
            for line in _since(path, offsets, name):
                typer.echo(f"{name:<{width}} {line}" if width else line)


def _since(path: Path, offsets: dict[str, int], name: str) -> list[str]:
    size = path.stat().st_size if path.exists() else 0
    if size < offsets[name]:
        offsets[name] = 0  # set aside and begun anew
    if size == offsets[name]:
        return []
    with path.open("rb") as file:
        file.seek(offsets[name])
        text = file.read(size - offsets[name])
    whole, _, _ = text.rpartition(b"\n")
    offsets[name] += len(whole) + 1 if whole else 0
    return whole.decode(errors="replace").splitlines() if whole else []


def down(
    home: HomeOption = None,
    timeout: Annotated[int, typer.Option(help="Seconds to wait for it to end.")] = 90,
) -> None:
    """Ends Mercat: calls under way are finished, usage is written, then everything stops in order.

    Example: mercat down --home /srv/mercat
    """
    _, place = _home(home)
    pid = place.owner()
    console = Console(soft_wrap=True, highlight=False)
    if pid is None:
        console.print(f"Mercat does not run in {place.path}.")
        return
    os.kill(pid, signal.SIGTERM)
    until = time.monotonic() + timeout
    while place.is_locked():
        if time.monotonic() > until:
            raise StartError(
                f"Mercat (process {pid}) has not ended after {timeout} s; see `mercat logs`, or end it yourself."
            )
        time.sleep(0.05)
    console.print(f"Mercat in {place.path} is stopped.")


def serve(
    services: Annotated[list[str], typer.Argument(help="auth, billing, …; control: all but inference; gateway.")],
    listen: Annotated[str, typer.Option(help="host:port to listen on.")],
    metrics: Annotated[int | None, typer.Option(help="Port of 127.0.0.1 for Prometheus.")] = None,
) -> None:
    """Hosts services in this process until SIGTERM, as an orchestrator does; servers are given by MERCAT_* variables.

    Example: mercat serve auth billing --listen 0.0.0.0:8001
    """
    argv = [sys.executable, "-m", "services", "serve", *services, "--listen", listen]
    os.execv(sys.executable, argv + (["--metrics", str(metrics)] if metrics else []))  # noqa: S606


def migrate(home: HomeOption = None) -> None:
    """Brings the tables of every service up to date, as `mercat up` does at its start.

    Example: MERCAT_POSTGRES_URL=postgresql://… mercat migrate
    """
    settings, place = _home(home)
    asyncio.run(_migrate(settings, place))


async def _migrate(settings: UpSettings, place: Home) -> None:
    async with postgres_of(settings, place) as url:
        await _migrate_all(url)


@asynccontextmanager
async def postgres_of(settings: UpSettings, place: Home) -> AsyncIterator[str]:
    """The address of a home's database, which is started where Mercat does not run."""
    if settings.postgres_url:
        yield settings.postgres_url
        return
    postgres = Postgres(place.path / "postgres", log=place.log("postgres"))
    if place.is_locked():
        postgres.locate()
        yield postgres.url
        return
    place.open(min_free_mb=settings.min_free_mb)
    try:
        async with postgres:
            yield postgres.url
    finally:
        place.close()


async def _migrate_all(url: str) -> None:
    console = Console(highlight=False)
    for schema in SCHEMAS:
        done = await migrate_schema(url, schema, f"services.{schema}")
        console.print(f"  [green]✓[/] {schema:<12} {', '.join(done) or 'up to date'}")
