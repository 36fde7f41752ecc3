"""The interface: what a service has of a person."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

from mercat.event.v1 import event_pb2

from services.common.db import Connection, Database, load_queries, rows_affected

# Those that each have a part. One that is added here is waited for by every export and every erasure.
SERVICES = ("auth", "storage", "registry", "usage", "billing", "marketplace", "inference", "notification")
Person = event_pb2.PersonTaskRequested


class PersonalData(Protocol):
    """Both may be asked for again, after a death at any point, and by two at once. Both raise MercatError where they
    cannot go on yet: they are asked again later."""

    def export(self, person: Person) -> AsyncIterator[tuple[str, AsyncIterator[str]]]:
        """What is kept of a person and of the organisations that are theirs alone: by the name of a file its lines,
        each a JSON object. Never a secret, nor what is another's."""
        ...

    async def erase(self, person: Person) -> None:
        """Removes it, or what in it names the person where the row must stay."""
        ...


class Tables:
    """Of a service of which tables are all: `queries.sql` in a package has a query `export_FILE` for each file, whose
    rows have one column, the line, and queries that erase, in their order. They take what they name of `user_id`,
    `org_ids`, `handles` and `pseudonyms`."""

    def __init__(
        self, database: Database, package: str, files: Sequence[str], erasing: Sequence[str], some: Sequence[str] = ()
    ) -> None:
        """`some`: queries that do a part of what there is each time, and before all others until nothing is left."""
        self._database = database
        self._files = files
        self._erasing = erasing
        self._some = some
        self._q = load_queries(package)

    async def export(self, person: Person) -> AsyncIterator[tuple[str, AsyncIterator[str]]]:
        for file in self._files:
            yield file, self._lines(file, person)

    async def _lines(self, file: str, person: Person) -> AsyncIterator[str]:
        async with (
            self._database.connection() as connection,
            getattr(self._q, f"export_{file}_cursor")(connection, **_named(person)) as rows,
        ):
            async for row in rows:  # some at a time
                yield row["line"]

    async def erase(self, person: Person) -> None:
        for name in self._some:
            left = 1
            while left:
                async with self._database.transaction() as connection:
                    left = rows_affected(await getattr(self._q, name)(connection, **_named(person)))
        async with self._database.transaction() as connection:
            await self.erase_within(connection, person)

    async def erase_within(self, connection: Connection, person: Person) -> None:
        for name in self._erasing:
            await getattr(self._q, name)(connection, **_named(person))


def _named(person: Person) -> dict[str, Any]:
    """What queries take, of which each takes what it names."""
    return {
        "user_id": person.user_id, "org_ids": [o.org_id for o in person.organisations],
        "handles": [o.handle for o in person.organisations], "pseudonyms": [o.pseudonym for o in person.organisations],
    }  # fmt: skip
