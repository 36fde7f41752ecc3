"""What the embedded servers have in common: `async with Postgres(folder) as postgres: postgres.url`."""

import asyncio
import hashlib
import os
import secrets
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from services.embedded.errors import StartError
from services.embedded.process import Child, Spec

_SOCKET_PATH_MOST = 100  # bytes; the kernel takes 107 (Linux) or 103 (macOS) and servers append to the name


class Server(ABC):
    """A server of somebody else's whose data lies in one folder. Start, stop and kill it as often as you like;
    the same folder is the same server."""

    name: str
    url: str

    def __init__(self, folder: Path, *, log: Path | None = None) -> None:
        self.folder = folder.absolute()
        self.log = log or self.folder / f"{self.name}.log"
        self.child: Child | None = None

    @abstractmethod
    async def prepare(self) -> None:
        """Writes what the server needs before it runs. StartError when that is not possible."""

    @abstractmethod
    def spec(self) -> Spec: ...

    async def finish(self) -> None:
        """What is left to do once it answers, each time the starter starts it."""
        await asyncio.sleep(0)

    async def start(self, *, supervised: bool = False, on_change: Callable[[Child], None] | None = None) -> None:
        """Returns when the server answers. StartError when it does not come up."""
        await self.prepare()
        self.child = Child(self.spec(), supervised, on_change or (lambda child: None))
        await self.child.start()
        await self.finish()

    async def stop(self) -> None:
        if self.child is not None:
            await self.child.stop()

    async def restart(self) -> None:
        """Stops and starts it. ChildFailed when it does not come up."""
        if self.child is not None:
            await self.child.stop()
            await self.child.start()
            await self.finish()

    async def kill(self) -> None:
        """SIGKILL, and waits until it is gone. A supervised server comes back by itself, another by `start`."""
        if self.child is not None:
            process = self.child
            process.kill()
            await process.exited()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


def socket_folder(folder: Path) -> Path:
    """Where the Unix sockets of `folder` go: in it, or when its path is too long for the kernel, in an owner-only
    folder of the temporary directory."""
    inside = folder / "socket"
    if len(os.fsencode(inside)) + len("/.s.PGSQL.5432") <= _SOCKET_PATH_MOST:
        inside.mkdir(mode=0o700, parents=True, exist_ok=True)
        return inside
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    outside = Path(tempfile.gettempdir()) / f"mercat-{digest}"
    outside.mkdir(mode=0o700, exist_ok=True)
    if outside.is_symlink() or outside.stat().st_uid not in (os.geteuid(), _owner(folder)):
        raise StartError(
            f"{outside} belongs to somebody else; remove it, or choose a home with a shorter path (--home)."
        )
    return outside


def _owner(folder: Path) -> int:
    return folder.stat().st_uid


def kept_secret(path: Path) -> str:
    """The password in an owner-only file, made on first use."""
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        value = secrets.token_hex(20)
        write_private(path, value + "\n")
        return value


def write_private(path: Path, text: str) -> None:
    """Writes a file only its owner can read, whole or not at all."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    draft.replace(path)
