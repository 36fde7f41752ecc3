"""What is kept of people is exported and erased: every table that names somebody is in its service's part of both, or
below with the reason why not. All queries of services fit the tables."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from services.__main__ import CONTRACTS
from services.common.db import load_queries, migrate
from services.embedded.postgres import Postgres

ROOT = Path(__file__).parents[2]
NAMING = re.compile(
    r"(^|_)(user_id|org_id|owner_id|email|handle|username|author|publisher|organisation|ip_address|user_agent"
    r"|(created|invited|accepted|requested)_by|personal_of)$"
)
BOOKS = "books, which the law keeps, under ids"
SHORT = "is there for minutes, and of no use to anybody"
SHREDDED = "a key, which is shredded when all else is done"
LOOKUP = "a secret alone"
# Tables whose rows stay as they are when somebody is erased.
STAYS = {
    "auth.data_keys": SHREDDED,
    "auth.mails": "forgotten by MailOutbox.forget",
    "auth.person_requests": "the request itself, by which its state is asked for",
    "billing.accounts": BOOKS,
    "billing.corrections": BOOKS,
    "billing.invoices": BOOKS,
    "billing.leases": BOOKS,
    "billing.losses": BOOKS,
    "billing.loss_shares": BOOKS,
    "billing.payouts": BOOKS,
    "billing.spending": "sums of the books, by day",
    "billing.transactions": BOOKS,
    "billing.wallets": BOOKS,
    "notification.data_keys": SHREDDED,
}
# Tables that no export has rows of.
NOT_GIVEN = {
    "auth.data_keys": SHREDDED,
    "auth.device_codes": SHORT,
    "auth.identity_attempts": SHORT,
    "auth.mail_codes": LOOKUP,
    "auth.mails": SHORT,
    "auth.passkey_challenges": SHORT,
    "auth.person_requests": "the request itself",
    "auth.recovery_codes": LOOKUP,
    "auth.refresh_tokens": LOOKUP,
    "billing.leases": "what a worker holds of a wallet for seconds",
    "billing.payment_customers": "the payment provider's name for who has the cards that are given",
    "billing.wallets": "which of the accounts that are given it is",
    "billing.spending": "sums of the calls that are given",
    "marketplace.endings": "copies of versions, which the registry gives",
    "marketplace.publications": "copies of versions, which the registry gives",
    "notification.data_keys": SHREDDED,
    "notification.quota_notices": "which of the events that are given were told",
}


def folder(service: str) -> Path:
    return ROOT / "services" / service / ("privacy" if service == "auth" else "personal")


def queries(service: str) -> dict[str, str]:
    """Of a service's part, by name."""
    parts = re.split(r"^-- name: (\w+).*$", (folder(service) / "queries.sql").read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def touched(service: str, *, export: bool) -> set[str]:
    """Tables that its queries read for exports, or delete from or change for erasures."""
    asked, words = (r"export_", r"FROM|JOIN") if export else (r"(erase|rename)_", r"DELETE FROM|UPDATE")
    return {
        f"{service}.{table}"
        for name, sql in queries(service).items()
        if re.match(asked, name)
        for table in re.findall(rf"\b(?:{words}) (\w+)", sql)
    }


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[asyncpg.Connection]:
    """With every schema as it is made today."""
    async with Postgres(tmp_path / "postgres") as server:
        for service in CONTRACTS:
            await migrate(server.url, service, f"services.{service}")
        connection = await asyncpg.connect(server.url)
        yield connection
        await connection.close()


async def test_every_table_that_names_people_is_exported_and_erased(database: asyncpg.Connection) -> None:
    rows = await database.fetch(
        "SELECT n.nspname || '.' || c.relname AS name, a.attname AS field FROM pg_class c"
        " JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid"
        " WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND a.attnum > 0 AND NOT a.attisdropped"
        " AND n.nspname = ANY($1::text[])",
        list(CONTRACTS),
    )
    naming = {row["name"] for row in rows if NAMING.search(row["field"])}
    assert {"auth.users", "marketplace.reviews", "usage.usage_records", "registry.model_addresses"} <= naming
    # What lies under another table goes with it.
    cascades = await database.fetch(
        "SELECT r.conrelid::regclass::text AS child, r.confrelid::regclass::text AS parent FROM pg_constraint r"
        " WHERE r.contype = 'f' AND r.confdeltype = 'c'"
    )
    for export, kept in ((False, STAYS), (True, NOT_GIVEN)):
        found = set().union(*(touched(service, export=export) for service in CONTRACTS))
        if not export:
            found |= {row["child"] for row in cascades if row["parent"] in found}
        assert naming - found == kept.keys(), "exports" if export else "erasures"


@pytest.mark.parametrize("service", CONTRACTS)
def test_every_query_of_a_part_is_asked(service: str) -> None:
    code = "".join(path.read_text() for path in folder(service).glob("*.py"))
    for name in queries(service):
        assert re.search(rf"\b{name.removeprefix('export_')}\b", code), name


async def test_every_query_fits_its_tables(database: asyncpg.Connection) -> None:
    wrong = []
    for path in sorted((ROOT / "services").rglob("queries.sql")):
        package = path.parent.relative_to(ROOT)
        service = package.parts[1]
        asked = load_queries(".".join(package.parts))
        await database.execute(f"SET search_path TO {'auth' if service == 'common' else service}, public")
        for name in asked.available_queries:
            if not name.endswith("_cursor"):
                try:
                    await database.prepare(getattr(asked, name).sql)
                except asyncpg.PostgresError as e:
                    wrong.append(f"{package}: {name}: {e}")
    assert wrong == []
