"""Case 12: somebody with all rights in the database edits the books; the next reconciliation names the row."""

import asyncio
import random
from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.platform import Account, Platform
from tests.robustness.oracle import judge
from tests.robustness.run import CREDIT, PRICE, priced
from tests.robustness.traffic import Caller
from tests.sizes import Size

pytestmark = pytest.mark.case


@pytest.fixture
async def superuser(pair: Platform) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(pair.postgres_url(), server_settings={"search_path": "billing,usage"})
    yield connection
    await connection.close()


@pytest.fixture(scope="module")
async def consumer(pair: Platform, size: Size) -> Account:
    """Somebody with many calls behind them, and clean books."""
    consumer = pair.sign_up(credit=CREDIT)
    caller = Caller(pair.grpc, consumer.api_key, priced(pair))
    await caller.many(size.calls)
    await caller.channel.close()
    await asyncio.to_thread(judge, pair, consumer, caller.seen, credit=CREDIT, price=PRICE)
    return consumer


async def test_triggers_refuse_edits(superuser: asyncpg.Connection, consumer: Account) -> None:
    for statement in (
        "UPDATE entry_rows SET amount = amount + 1", "DELETE FROM entry_rows", "TRUNCATE entry_rows",
        "UPDATE postings SET kind = 'gift'", "DELETE FROM postings", "TRUNCATE postings CASCADE",
    ):  # fmt: skip
        with pytest.raises(asyncpg.RaiseError, match="immutable"):
            await superuser.execute(statement)


EDITS = {
    "an amount": "UPDATE postings SET wallet_amount = wallet_amount - 1 WHERE id = $1",
    "two amounts that still sum to zero": (
        "UPDATE postings SET wallet_amount = wallet_amount - 7, payable_amount = payable_amount + 7 WHERE id = $1"
    ),
    "the cause": "UPDATE postings SET cause = 'req_00000000000000000000000000' WHERE id = $1",
    "all entries": (
        "UPDATE postings SET wallet_id = NULL, wallet_amount = NULL, credit_id = NULL, credit_amount = NULL,"
        " payable_id = NULL, payable_amount = NULL, fee_id = NULL, fee_amount = NULL WHERE id = $1"
    ),
}


@pytest.mark.parametrize("what", EDITS)
async def test_an_edit_past_the_triggers_is_named(
    pair: Platform, superuser: asyncpg.Connection, consumer: Account, what: str, seed: random.Random
) -> None:
    posting = seed.choice(await superuser.fetch("SELECT * FROM postings WHERE kind = 'charge' ORDER BY id"))
    try:
        await edit(superuser, EDITS[what], posting["id"])
        found = pair.admin().check_ledger()
        assert not found.clean
        named = {d.subject for d in found.discrepancies}
        assert named & {posting["id"], posting["cause"]}, found.discrepancies
    finally:
        columns = ", ".join(f"{name} = ${at}" for at, name in enumerate(posting.keys(), 1))
        await edit(superuser, f"UPDATE postings SET {columns} WHERE id = $1", *posting.values())
    assert pair.admin().check_ledger().clean


async def test_a_balance_that_was_helped_is_named(
    pair: Platform, superuser: asyncpg.Connection, consumer: Account
) -> None:
    where = "WHERE account_id = (SELECT account_id FROM wallets WHERE org_id = $1)"
    await superuser.execute(f"UPDATE balances SET balance = balance + 1000000 {where}", consumer.profile.org_id)
    found = pair.admin().check_ledger()
    assert "BALANCE_DIFFERS" in {d.code for d in found.discrepancies}
    await superuser.execute(f"UPDATE balances SET balance = balance - 1000000 {where}", consumer.profile.org_id)
    assert pair.admin().check_ledger().clean


async def edit(connection: asyncpg.Connection, statement: str, *arguments: object) -> None:
    """As an attacker would: with the triggers out of the way."""
    async with connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        await connection.execute(statement, *arguments)
