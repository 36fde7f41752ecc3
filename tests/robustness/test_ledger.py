"""Case 12: somebody with all rights in the database edits the books; the next reconciliation names the row."""

from collections.abc import AsyncIterator, Iterator

import asyncpg
import psutil
import pytest

from tests import graphs
from tests.platform import USD, Account, Platform
from tests.robustness.oracle import judge
from tests.robustness.traffic import Caller

PRICE = 2_000_000  # nanos a call


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with Platform(tmp_path_factory.mktemp("books") / "home") as running:
        yield running


@pytest.fixture
async def superuser(books: Platform) -> AsyncIterator[asyncpg.Connection]:
    url = psutil.Process(books.pids()["control"]).environ()["MERCAT_POSTGRES_URL"]
    connection = await asyncpg.connect(url, server_settings={"search_path": "billing,usage"})
    yield connection
    await connection.close()


@pytest.fixture(scope="module")
async def consumer(books: Platform) -> Account:
    """Somebody with ten calls behind them, and clean books."""
    model = books.publish(books.publisher(), graphs.tiny(), batch=64, price={"requests": PRICE * 1_000_000})
    consumer = books.sign_up(credit=USD)
    caller = Caller(books.grpc, consumer.api_key, model)
    await caller.many(10, in_flight=2)
    judge(books, consumer, caller.seen, credit=USD, price=PRICE, rate=False)
    return consumer


async def test_triggers_refuse_edits(superuser: asyncpg.Connection, consumer: Account) -> None:
    for statement in (
        "UPDATE entries SET amount = amount + 1", "DELETE FROM entries", "TRUNCATE entries",
        "UPDATE postings SET kind = 'gift'", "DELETE FROM postings", "TRUNCATE postings CASCADE",
    ):  # fmt: skip
        with pytest.raises(asyncpg.RaiseError, match="immutable"):
            await superuser.execute(statement)


EDITS = {
    "an amount": "UPDATE entries SET amount = amount - 1 WHERE posting_id = $1 AND amount < 0",
    "two amounts that still sum to zero": (
        "UPDATE entries SET amount = amount + CASE WHEN amount < 0 THEN -7 ELSE 7 END"
        " WHERE posting_id = $1 AND (amount < 0 OR amount = (SELECT max(amount) FROM entries WHERE posting_id = $1))"
    ),
    "the cause": "UPDATE postings SET cause = 'req_00000000000000000000000000' WHERE id = $1",
    "a whole posting": "DELETE FROM entries WHERE posting_id = $1",
}


@pytest.mark.parametrize("what", EDITS)
async def test_an_edit_past_the_triggers_is_named(
    books: Platform, superuser: asyncpg.Connection, consumer: Account, what: str
) -> None:
    posting = await superuser.fetchrow("SELECT * FROM postings WHERE kind = 'charge' ORDER BY id LIMIT 1")
    entries = await superuser.fetch("SELECT * FROM entries WHERE posting_id = $1", posting["id"])
    try:
        await edit(superuser, EDITS[what], posting["id"])
        found = books.admin().check_ledger()
        assert not found.clean
        named = {d.subject for d in found.discrepancies}
        assert named & {posting["id"], posting["cause"]}, found.discrepancies
    finally:
        await edit(superuser, "UPDATE postings SET cause = $2 WHERE id = $1", posting["id"], posting["cause"])
        await edit(superuser, "DELETE FROM entries WHERE posting_id = $1", posting["id"])
        for e in entries:
            await edit(superuser, "INSERT INTO entries VALUES ($1, $2, $3)", *e.values())
    assert books.admin().check_ledger().clean


async def test_a_balance_that_was_helped_is_named(
    books: Platform, superuser: asyncpg.Connection, consumer: Account
) -> None:
    where = "WHERE account_id = (SELECT account_id FROM wallets WHERE org_id = $1)"
    await superuser.execute(f"UPDATE balances SET balance = balance + 1000000 {where}", consumer.profile.org_id)
    found = books.admin().check_ledger()
    assert "BALANCE_DIFFERS" in {d.code for d in found.discrepancies}
    await superuser.execute(f"UPDATE balances SET balance = balance - 1000000 {where}", consumer.profile.org_id)
    assert books.admin().check_ledger().clean


async def edit(connection: asyncpg.Connection, statement: str, *arguments: object) -> None:
    """As an attacker would: with the triggers out of the way."""
    async with connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        await connection.execute(statement, *arguments)
