"""`mercat restart`: the processes of a running Mercat, one after the other."""

import os
import signal
import time
from typing import Annotated

import typer
from rich.console import Console

from services.cli.operate import HomeOption
from services.common.settings import load
from services.embedded import status
from services.embedded.errors import StartError
from services.embedded.home import Home
from services.embedded.server import write_private
from services.embedded.settings import UpSettings


def register(app: typer.Typer) -> None:
    app.command()(restart)


def restart(
    parts: Annotated[list[str] | None, typer.Argument(help="worker-0, control, envoy, …; none: all of them.")] = None,
    home: HomeOption = None,
    timeout: Annotated[int, typer.Option(help="Seconds to wait for each of them.")] = 180,
) -> None:
    """Restarts processes one after the other, while calls go on: a new one takes over from the old one.

    Examples: mercat restart · mercat restart worker-0 worker-1
    """
    place = Home(load(UpSettings, home=home).home)
    pid, now = place.owner(), status.Status.read(place.state)
    if pid is None or now is None or now.phase != status.READY:
        raise StartError(f"Mercat does not run in {place.path}, or is not ready; see `mercat status`.")
    if now.restart is not None and not now.restart.finished:
        raise StartError("A restart is under way; wait until it has ended.")
    there = [part.name for part in now.parts if part.state != status.EXTERNAL]
    for name in parts or ():
        if name not in there:
            raise StartError(f"{name} is none of Mercat's processes here; there are: {', '.join(there)}.")
    asked = status.Restart(id=os.urandom(8).hex(), parts=list(dict.fromkeys(parts or _in_order(there))))
    write_private(place.restart, asked.model_dump_json())
    os.kill(pid, signal.SIGUSR1)
    _follow(place, asked, timeout)


def _in_order(there: list[str]) -> list[str]:
    """Who is used before who uses; the front door last."""
    return [name for name in there if name != "envoy"] + [name for name in there if name == "envoy"]


def _follow(place: Home, asked: status.Restart, timeout: int) -> None:
    console = Console(highlight=False, soft_wrap=True)
    shown, since = 0, time.monotonic()
    while True:
        now = status.Status.read(place.state)
        going = now.restart if now is not None else None
        if now is not None and going is not None and going.id == asked.id:
            for name in asked.parts[shown : going.done]:
                pid = next((part.pid for part in now.parts if part.name == name), None)
                console.print(f"  [green]✓[/] {name:<10} process {pid}")
                shown, since = shown + 1, time.monotonic()
            if going.finished:
                if going.error:
                    raise StartError(f"{asked.parts[shown]} was not restarted: {going.error}")
                return
        if time.monotonic() > since + timeout or place.owner() is None:
            raise StartError(f"{asked.parts[shown]} was not restarted after {timeout} s; see `mercat status`.")
        time.sleep(0.05)
