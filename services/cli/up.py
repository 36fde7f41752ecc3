"""`mercat up`: the whole platform in the foreground, or with `--detach` behind it."""

import asyncio
import importlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from services.cli.progress import Progress
from services.cli.screen import closing
from services.common import clock
from services.common.settings import load
from services.embedded import status
from services.embedded.connection import Connection
from services.embedded.errors import StartError
from services.embedded.home import Home
from services.embedded.process import open_log
from services.embedded.settings import UpSettings
from services.embedded.supervisor import Supervisor


def register(app: typer.Typer) -> None:
    app.command()(up)


def up(
    home: Annotated[Path | None, typer.Option(help="Folder of all state. [MERCAT_HOME, .mercat]")] = None,
    port: Annotated[int | None, typer.Option(help="Port of the front door; TLS at +443. [MERCAT_PORT, 8000]")] = None,
    workers: Annotated[int | None, typer.Option(help="Inference workers. [MERCAT_WORKERS, cores - 1]")] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when it runs, and leave it running.")] = False,
    demo: Annotated[
        bool | None, typer.Option("--demo/--no-demo", help="Publish the demo catalogue. [MERCAT_DEMO, yes]")
    ] = None,
) -> None:
    """Starts Mercat on this machine and watches over it until Ctrl-C.

    Examples:

      mercat up

      mercat up --home /srv/mercat --port 9000 --workers 4 --detach
    """
    settings = load(UpSettings, home=home, port=port, workers=workers, demo=demo)
    clock.check(settings.home, settings.test_clock)
    if detach:
        _detached(settings)
    else:
        asyncio.run(_foreground(settings))


async def _foreground(settings: UpSettings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    progress = Progress()

    def changed(now: status.Status) -> None:
        progress.show(now)
        if now.phase == status.READY and not shown:
            shown.append(True)
            if supervisor.connection is not None:
                closing(supervisor.connection, calls())

    shown: list[bool] = []
    supervisor = Supervisor(settings, on_change=changed, publish=demo_publisher())

    def asked() -> None:
        if stop.is_set():
            supervisor.kill()
        else:
            progress.say("stopping: calls under way are finished first; press Ctrl-C again to end at once")
            stop.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, asked)
    loop.add_signal_handler(signal.SIGUSR1, supervisor.restart)
    await supervisor.run(stop)


def _detached(settings: UpSettings) -> None:
    home = Home(settings.home)
    given = {
        "MERCAT_HOME": str(settings.home),
        "MERCAT_PORT": str(settings.port),
        "MERCAT_WORKERS": str(settings.workers),
        "MERCAT_DEMO": str(int(settings.demo)),
    }
    log = home.log("mercat")
    home.make()
    with open_log(log) as output:
        before = output.tell()
        process = subprocess.Popen(
            [sys.executable, "-m", "services.cli.main", "up"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **given, "COLUMNS": "200"},
            start_new_session=True,
        )
    progress = Progress()
    while True:
        ended = process.poll() is not None
        now = status.Status.read(home.state)
        if now is not None and now.pid == process.pid:
            progress.show(now)
            if now.phase == status.READY:
                break
        if ended:
            said = log.read_bytes()[before:].decode(errors="replace").partition("mercat: ")[2].strip()
            raise StartError(said or f"Mercat ended with exit status {process.returncode}; see {log}.")
        time.sleep(0.05)
    connection = Connection.read(home.connection)
    if connection is not None:
        closing(connection, calls())
    progress.say("Mercat runs in the background: mercat status, mercat logs -f, mercat down")


def demo_publisher() -> Callable[[Connection], Awaitable[Connection]] | None:
    """The demo's `publish`, where the demo is installed."""
    return getattr(_demo(), "publish", None)


def calls() -> Callable[[Connection], list[tuple[str, str]]] | None:
    """The demo's `calls`: titles and what to paste."""
    return getattr(_demo(), "calls", None)


def _demo() -> Any:
    if importlib.util.find_spec("services.cli.demo") is None:
        return None
    return importlib.import_module("services.cli.demo")
