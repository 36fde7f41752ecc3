"""PostgreSQL: one pool and one schema per service, transactions, named queries and forward-only migrations."""

import asyncio
import contextlib
import hashlib
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any, TypeAlias

import aiosql
import asyncpg

from services.common.errors import DatabaseUnavailable, FailedPrecondition
from services.common.rpc.context import maybe_current

log = logging.getLogger(__name__)
Connection: TypeAlias = Any  # an asyncpg connection, or its pool's proxy of one; the library has no types
_MIGRATION = re.compile(r"(\d{4})_\w+\.sql")
_GONE = (OSError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.CannotConnectNowError,
         asyncpg.AdminShutdownError, asyncpg.CrashShutdownError, asyncpg.InternalClientError,
         TimeoutError)  # fmt: skip

_NOT_THERE = (OSError, asyncpg.CannotConnectNowError, asyncpg.ConnectionDoesNotExistError)
PATIENCE = 5.0  # seconds for which calls wait for a database that is away, as while it is started anew


class _Held:
    until = 0.0  # event loop's clock


def hold() -> None:
    """The database is about to be started anew: what comes now waits for that, until `release` and at most `PATIENCE`
    seconds."""
    _Held.until = asyncio.get_running_loop().time() + PATIENCE


def release() -> None:
    _Held.until = 0.0


def load_queries(package: str) -> Any:
    """The named queries of `queries.sql` beside a package's code, as aiosql methods that take a connection."""
    text = (resources.files(package) / "queries.sql").read_text()
    return aiosql.from_str(text, "asyncpg")


class Database:
    """A service's schema. Every statement runs with `search_path` set to it."""

    def __init__(self, pool: asyncpg.Pool, schema: str, url: str) -> None:
        self._pool = pool
        self._url = url
        self.schema = schema
        self.relays: list[asyncio.Event] = []  # set when a transaction that added to the outbox has committed
        self._gone_since: float | None = None

    @classmethod
    async def connect(cls, url: str, schema: str, *, max_size: int = 8) -> "Database":
        """Opens the pool. Raises Unavailable when the server cannot be reached."""
        try:
            pool = await asyncpg.create_pool(
                url, min_size=1, max_size=max_size, command_timeout=30,
                server_settings={"search_path": f"{schema},public", "application_name": f"mercat-{schema}"},
                reset=_as_it_is,
            )  # fmt: skip
        except _GONE as e:
            raise DatabaseUnavailable(f"PostgreSQL cannot be reached: {e}") from e
        return cls(pool, schema, url)

    async def close(self) -> None:
        await self._pool.close()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A pooled connection in autocommit, for single reads. Raises DatabaseUnavailable when the database is gone for
        longer than it needs to start anew, or has no room."""
        try:
            connection = await self._acquire()
            try:
                yield connection
            finally:
                with contextlib.suppress(*_GONE):  # what was asked is answered, whatever becomes of the connection
                    await self._pool.release(connection)
        except _GONE as e:
            raise DatabaseUnavailable("the database is not available", retry_after=1) from e
        except asyncpg.InsufficientResourcesError as e:  # disk, memory or connections; what was under way is undone
            log.error("PostgreSQL: %s", e)
            raise DatabaseUnavailable("the database has no room just now", retry_after=5) from e

    @asynccontextmanager
    async def apart(self, snapshot: str = "") -> AsyncIterator[Connection]:
        """A connection beside the pool for questions that may take minutes: it reads one state of the schema, that of
        another connection whose exported `snapshot` is given, and has memory to sort in. Raises DatabaseUnavailable."""
        try:
            connection = await asyncpg.connect(
                self._url, server_settings={
                    "search_path": f"{self.schema},public", "application_name": f"mercat-{self.schema}-apart",
                    "work_mem": "256MB", "max_parallel_workers_per_gather": "0", "statement_timeout": "0",
                },
            )  # fmt: skip
            try:
                async with connection.transaction(isolation="repeatable_read", readonly=True):
                    if snapshot:
                        await connection.execute(f"SET TRANSACTION SNAPSHOT '{snapshot}'")
                    yield connection
            finally:
                await connection.close(timeout=5)
        except _GONE as e:
            raise DatabaseUnavailable("the database is not available", retry_after=1) from e

    async def _acquire(self) -> Connection:
        loop = asyncio.get_running_loop()
        while loop.time() < _Held.until:  # noqa: ASYNC110 - it passes by itself
            await asyncio.sleep(0.01)
        while True:
            try:
                connection = await self._pool.acquire(timeout=10)
            except _NOT_THERE:
                if self._gone_since is None:
                    self._gone_since = loop.time()
                if loop.time() > self._gone_since + PATIENCE:
                    raise
                await asyncio.sleep(0.05)
            else:
                self._gone_since = None
                return connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """One transaction, READ COMMITTED, rolled back on any exception. An audited call's event joins it."""
        async with self.connection() as connection:
            try:
                async with connection.transaction():
                    yield connection
                    await _audit(connection)
                    if (call := maybe_current()) is not None:
                        call.wrote = True  # from here on nobody can tell whether a commit that fails was one
                if connection in _adding:
                    for relay in self.relays:
                        relay.set()
            finally:
                _adding.discard(connection)


_adding: set[Connection] = set()


def added_to_outbox(connection: Connection) -> None:
    """The transaction of `connection` has something for the relays when it commits."""
    _adding.add(connection)


async def _as_it_is(connection: Connection) -> None:
    """Between two users of a pooled connection: nobody changes its settings, and the question whether somebody did is
    one more for each transaction."""


async def _audit(connection: Connection) -> None:
    from services.common import audit  # audit writes through outbox, which needs this module

    await audit.record(connection)


async def migrate(url: str, schema: str, package: str) -> list[str]:
    """Brings a schema up to date: first the tables every service has, then the service's own `migrations/*.sql`.
    An advisory lock lets many processes start at once.

    Returns:
        The names of the migrations applied now.

    Raises:
        FailedPrecondition: the schema is newer than this code, or an applied migration was edited.
    """
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("SELECT pg_advisory_lock(hashtext($1))", f"mercat-migrate-{schema}")
        await connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
        await connection.execute(f'SET search_path TO "{schema}", public')
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS schema_migrations (name text PRIMARY KEY, checksum text NOT NULL,"
            " applied_at timestamptz NOT NULL DEFAULT now())"
        )
        done = {
            r["name"]: r["checksum"] for r in await connection.fetch("SELECT name, checksum FROM schema_migrations")
        }
        known = _migrations("services.common", "common") | _migrations(package, schema)
        if newer := sorted(set(done) - set(known)):
            raise FailedPrecondition(
                f"schema {schema} was made by a newer Mercat (it has {newer[-1]}); install that version",
                reason="SCHEMA_TOO_NEW",
            )
        applied = []
        for name, sql in known.items():
            checksum = hashlib.sha256(sql.encode()).hexdigest()
            if name not in done:
                async with connection.transaction():
                    await connection.execute(sql)
                    await connection.execute("INSERT INTO schema_migrations VALUES ($1, $2)", name, checksum)
                applied.append(name)
            elif done[name] != checksum:
                raise FailedPrecondition(f"{name} was edited after it was applied", reason="MIGRATION_EDITED")
        return applied
    finally:
        await connection.close()


def _migrations(package: str, prefix: str) -> dict[str, str]:
    folder: Traversable = resources.files(package) / "migrations"
    if not folder.is_dir():
        return {}
    files = sorted((f for f in folder.iterdir() if _MIGRATION.fullmatch(f.name)), key=lambda f: f.name)
    return {f"{prefix}/{f.name}": f.read_text() for f in files}


async def copy_new(
    c: Connection, table: str, columns: Sequence[str], rows: Mapping[str, Sequence[Any]],
    stored: Callable[[list[str]], Awaitable[set[str]]],
) -> set[str]:  # fmt: skip
    """Writes the rows whose keys are not stored already, by COPY, which costs about half of an INSERT. Mostly all are
    new, so `stored` is asked only when one was not.

    Returns:
        The keys of those written now.

    Raises:
        asyncpg.UniqueViolationError: rows have something else in common than their keys.
    """
    left = dict(rows)
    while left:
        try:
            async with c.transaction():
                await c.copy_records_to_table(table, columns=columns, records=left.values())
            break
        except asyncpg.UniqueViolationError:
            known = await stored(list(left))
            if not known & left.keys():
                raise
            left = {key: row for key, row in left.items() if key not in known}
    return set(left)


def rows_affected(status: Any) -> int:
    """The count in a command tag such as `UPDATE 3`."""
    return int(str(status).rsplit(" ", 1)[-1])
