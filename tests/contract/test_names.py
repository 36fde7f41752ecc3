"""Names that were there before look-alikes were told apart are kept, and SQL makes the skeletons that Python does."""

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from services.common.db import migrate
from services.common.names import skeleton
from services.embedded.postgres import Postgres

HANDLES = ["ada", "a-da", "acme", "acrne", "g00gle", "google", "vvave", "wave-1", "deleted-2", "x", "m-i-l-l", "m111"]
NAMES = ["resnet-50", "resnet_5.0", "yolos", "yolo5", "encoder.rn", "encoderm", "vv", "w", "tiny"]


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[asyncpg.Connection]:
    async with Postgres(tmp_path / "postgres") as server:
        for service in ("auth", "registry"):
            await migrate(server.url, service, f"services.{service}")
        connection = await asyncpg.connect(server.url)
        # As it was before.
        await connection.execute(
            "ALTER TABLE auth.organisations DROP COLUMN skeleton; DROP TABLE auth.handle_keys;"
            " ALTER TABLE auth.retired_handles DROP COLUMN keyed;"
            " ALTER TABLE registry.models DROP COLUMN skeleton;"
            " ALTER TABLE registry.model_addresses DROP COLUMN left_at;"
            " ALTER TABLE registry.versions DROP COLUMN review;"
            " DELETE FROM auth.schema_migrations WHERE name LIKE '%0020_names%';"
            " DELETE FROM registry.schema_migrations WHERE name LIKE '%0018_names%'"
        )
        for i, handle in enumerate(HANDLES):
            await connection.execute(
                "INSERT INTO auth.organisations (id, handle, created_at) VALUES ($1, $2, now() + $3 * interval '1 s')",
                f"org_{i if handle != 'deleted-2' else 2}{'x' if handle != 'deleted-2' else ''}", handle, i,
            )  # fmt: skip
        for i, (publisher, name) in enumerate((p, n) for p in ("ada", "bob") for n in NAMES):
            await connection.execute(
                "INSERT INTO registry.models (id, org_id, publisher, name, display_name, summary, description,"
                " category, task, tags, license, homepage, created_at, updated_at)"
                " VALUES ($1, '', $2, $3, '', '', '', '', '', '{}', '', '', now(), now())",
                f"mdl_{i:02}", publisher, name,
            )  # fmt: skip
        for number, (state, gone) in enumerate(
            [(3, None), (4, None), (5, None), (6, None), (10, None), (9, 3), (9, 5)]
        ):
            await connection.execute(
                "INSERT INTO registry.versions (id, model_id, number, version, state, deleted_from, framework, digest,"
                " size_bytes, signature, document, release_notes, created_at) VALUES ($1, 'mdl_00', $2, $1, $3, $4, '',"
                " '', 0, '', '', '', now())", f"ver_{number}", number, state, gone,
            )  # fmt: skip
        for service in ("auth", "registry"):
            await migrate(server.url, service, f"services.{service}")
        yield connection
        await connection.close()


def expected(names: list[str]) -> dict[str, str | None]:
    """The first that looks like it has the skeleton."""
    found: dict[str, str | None] = {}
    for name in names:
        made = skeleton(name)
        found[name] = None if made in found.values() else made
    return found


async def test_names_from_before_are_kept(database: asyncpg.Connection) -> None:
    rows = await database.fetch("SELECT handle, skeleton FROM auth.organisations")
    assert dict(map(tuple, rows)) == expected([h for h in HANDLES if h != "deleted-2"]) | {"deleted-2": None}  # type: ignore[arg-type]
    for publisher in ("ada", "bob"):
        rows = await database.fetch("SELECT name, skeleton FROM registry.models WHERE publisher = $1", publisher)
        assert dict(map(tuple, rows)) == expected(NAMES)  # type: ignore[arg-type]


async def test_what_was_published_before_was_reviewed(database: asyncpg.Connection) -> None:
    rows = await database.fetch("SELECT review FROM registry.versions ORDER BY id")
    assert [r["review"] for r in rows] == [0, 1, 2, 2, 2, 0, 2]
