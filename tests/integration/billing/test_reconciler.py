"""A row that a superuser edits, adds or takes away is named by the next check; immutable rows need a superuser."""

import asyncio
from dataclasses import dataclass

import asyncpg
import grpc
import pytest
from mercat.billing.v1 import billing_pb2

from services.billing import ledger
from services.common import ids
from tests.integration.billing.books import USD, Books, Person


@dataclass
class Paid:
    """A posted call, and where it stands in the books."""

    request_id: str
    consumer: Person
    publisher: Person
    posting_id: str
    wallet_id: str


@pytest.fixture
async def paid(books: Books) -> Paid:
    consumer, publisher = await books.person(USD), await books.person()
    call = books.call(consumer, publisher, 1000)
    await books.send(call)
    await books.settled()
    async with books.superuser() as connection:
        posting = await connection.fetchval("SELECT id FROM postings WHERE cause = $1", call.request_id)
        wallet = await connection.fetchval("SELECT account_id FROM wallets WHERE org_id = $1", consumer.org_id)
    return Paid(call.request_id, consumer, publisher, posting, wallet)


async def _found(books: Books) -> set[tuple[str, str]]:
    checked = await books.check()
    assert checked.clean == (not checked.discrepancies)
    return {(d.code, d.subject) for d in checked.discrepancies}


async def _edit(books: Books, change: str, undo: str, *args: object, schema: str = "billing") -> set[tuple[str, str]]:
    """What the check names while the change stands; the books are clean before it and after."""
    before = await books.check()
    assert before.clean, before.discrepancies
    async with books.superuser(schema) as connection:
        await connection.execute(change, *args)
        try:
            return await _found(books)
        finally:
            await connection.execute(undo, *args)
            assert (await books.check()).clean


async def test_a_clean_check_says_what_it_saw(books: Books, paid: Paid) -> None:
    checked = await books.check()
    assert checked.clean
    assert checked.postings_checked >= 2
    assert checked.usage_checked >= 1


async def test_an_edited_amount_is_named(books: Books, paid: Paid) -> None:
    statement = "UPDATE postings SET wallet_amount = wallet_amount {} 5 WHERE id = $1 AND wallet_id = $2"
    found = await _edit(books, statement.format("+"), statement.format("-"), paid.posting_id, paid.wallet_id)
    assert found == {
        ("POSTING_EDITED", paid.posting_id), ("POSTING_UNBALANCED", paid.posting_id),
        ("BALANCE_DIFFERS", paid.wallet_id), ("COST_DIFFERS", paid.request_id),
    }  # fmt: skip


async def test_money_moved_between_entries_is_named_though_it_balances(books: Books, paid: Paid) -> None:
    """The publisher's share goes to the platform: sums and balances fit, the digest does not."""
    statement = """
        WITH moved AS (
            UPDATE postings SET fee_amount = fee_amount {0} 10, payable_amount = payable_amount {0} -10 WHERE id = $1
            RETURNING fee_id, payable_id
        )
        UPDATE balances b SET balance = balance {0} (CASE b.account_id WHEN m.fee_id THEN 10 ELSE -10 END)
        FROM moved m WHERE b.account_id IN (m.fee_id, m.payable_id)
    """
    found = await _edit(books, statement.format("+"), statement.format("-"), paid.posting_id)
    assert found == {("POSTING_EDITED", paid.posting_id)}


async def test_an_edited_posting_is_named(books: Books, paid: Paid) -> None:
    found = await _edit(
        books, "UPDATE postings SET kind = 'gift' WHERE id = $1", "UPDATE postings SET kind = 'charge' WHERE id = $1",
        paid.posting_id,
    )  # fmt: skip
    assert found == {("POSTING_EDITED", paid.posting_id)}


async def test_a_posting_of_another_call_is_named(books: Books, paid: Paid) -> None:
    other = ids.new("req")
    found = await _edit(
        books, "UPDATE postings SET cause = $2 WHERE cause = $1", "UPDATE postings SET cause = $1 WHERE cause = $2",
        paid.request_id, other,
    )  # fmt: skip
    assert found == {
        ("POSTING_EDITED", paid.posting_id), ("USAGE_MISSING", other), ("POSTING_MISSING", paid.request_id),
    }  # fmt: skip


async def test_an_edited_balance_is_named(books: Books, paid: Paid) -> None:
    statement = "UPDATE balances SET balance = balance {} 1 WHERE account_id = $1"
    found = await _edit(books, statement.format("+"), statement.format("-"), paid.wallet_id)
    assert found == {("BALANCE_DIFFERS", paid.wallet_id)}


async def test_an_edited_reservation_is_named(books: Books, paid: Paid) -> None:
    statement = "UPDATE wallets SET reserved = reserved {} 1 WHERE org_id = $1"
    found = await _edit(books, statement.format("+"), statement.format("-"), paid.consumer.org_id)
    assert found == {("RESERVATION_DIFFERS", paid.consumer.org_id)}


@pytest.mark.parametrize(
    ("change", "undo", "codes"),
    [
        ("SET cost = cost + 1", "SET cost = cost - 1", {"COST_DIFFERS", "RATING_DIFFERS"}),
        ("SET cost = 0", "SET cost = 1000", {"COST_DIFFERS", "RATING_DIFFERS"}),
        ("SET test = true", "SET test = false", {"COST_DIFFERS"}),
        ("SET units = '{\"requests\": 2}'", "SET units = '{\"requests\": 1}'", {"RATING_DIFFERS"}),
        ("SET price_id = 'prc_none'", "SET price_id = 'prc_1000'", {"RATING_DIFFERS"}),
        ("SET price_id = ''", "SET price_id = 'prc_1000'", {"RATING_DIFFERS"}),
        ("SET rating = '{\"discount_ppm\": 1000}'", "SET rating = NULL", {"RATING_DIFFERS"}),
    ],
)
async def test_edited_usage_is_named(books: Books, paid: Paid, change: str, undo: str, codes: set[str]) -> None:
    statement = "UPDATE usage_records {} WHERE request_id = $1"
    found = await _edit(books, statement.format(change), statement.format(undo), paid.request_id, schema="usage")
    assert found == {(code, paid.request_id) for code in codes}


async def test_a_forged_top_up_is_named(books: Books, paid: Paid) -> None:
    """Balanced, with a fitting digest and balances: but no transaction ever was."""
    posting_id = ids.new("pst")
    async with books.superuser() as connection:
        clearing = await connection.fetchval("SELECT id FROM accounts WHERE kind = 'sandbox_clearing'")
        entries = [(paid.wallet_id, 5), (clearing, -5)]
        cause = f"topup:{ids.new('req')}"
        digest = ledger.digest(cause, "top_up", entries)
        move = "UPDATE balances SET balance = balance + $2 WHERE account_id = $1"
        await connection.execute(
            "INSERT INTO postings VALUES ($1, $2, 'top_up', $3, now())", posting_id, cause, digest
        )  # fmt: skip
        for account, amount in entries:
            await connection.execute("INSERT INTO entry_rows VALUES ($1, $2, $3)", posting_id, account, amount)
            await connection.execute(move, account, amount)
        assert await _found(books) == {("POSTING_UNEXPLAINED", posting_id)}
        await connection.execute("DELETE FROM postings WHERE id = $1", posting_id)
        assert await _found(books) == {("ENTRY_ORPHANED", posting_id)}
        await connection.execute("DELETE FROM entry_rows WHERE posting_id = $1", posting_id)
        for account, amount in entries:
            await connection.execute(move, account, -amount)
    assert (await books.check()).clean


async def test_earnings_given_to_somebody_else_are_named_though_all_sums_fit(books: Books, paid: Paid) -> None:
    """The posting is rewritten to pay another publisher, with its digest and both balances."""
    thief = await books.person(USD)
    await books.send(books.call(thief, thief, 50))  # so that they have an account for earnings
    await books.settled()
    async with books.superuser() as connection:
        account = "SELECT id FROM accounts WHERE org_id = $1 AND kind = 'publisher_payable'"
        from_, to = [await connection.fetchval(account, p.org_id) for p in (paid.publisher, thief)]
        row = await connection.fetchrow("SELECT * FROM postings WHERE id = $1", paid.posting_id)
        moved = [
            (row["wallet_id"], row["wallet_amount"]), (to, row["payable_amount"]), (row["fee_id"], row["fee_amount"])
        ]  # fmt: skip
        after = ledger.digest_in_order(paid.request_id, "charge", moved)

        async def pay(old: str, new: str, digest: bytes) -> None:
            change = "UPDATE postings SET payable_id = $3 WHERE id = $1 AND payable_id = $2"
            await connection.execute(change, paid.posting_id, old, new)
            await connection.execute("UPDATE postings SET digest = $2 WHERE id = $1", paid.posting_id, digest)
            for account_id, amount in ((old, -800), (new, 800)):
                move = "UPDATE balances SET balance = balance + $2 WHERE account_id = $1"
                await connection.execute(move, account_id, amount)

        await pay(from_, to, after)
        assert await _found(books) == {("PARTIES_DIFFER", paid.request_id)}
        await pay(to, from_, row["digest"])
    assert (await books.check()).clean


async def test_an_account_given_to_somebody_else_is_named(books: Books, paid: Paid) -> None:
    found = await _edit(
        books, "UPDATE accounts SET org_id = $2 WHERE org_id = $1 AND kind = 'publisher_payable'",
        "UPDATE accounts SET org_id = $1 WHERE org_id = $2 AND kind = 'publisher_payable'",
        paid.publisher.org_id, ids.new("org"),
    )  # fmt: skip
    assert found == {("PARTIES_DIFFER", paid.request_id)}


async def test_a_wallet_with_somebody_elses_account_is_named(books: Books, paid: Paid) -> None:
    other = await books.person(USD)
    async with books.superuser() as connection:
        theirs = await connection.fetchval("SELECT account_id FROM wallets WHERE org_id = $1", other.org_id)
    found = await _edit(
        books, "UPDATE wallets SET account_id = $3 WHERE org_id = $1 AND account_id = $2",
        "UPDATE wallets SET account_id = $2 WHERE org_id = $1 AND account_id = $3",
        paid.consumer.org_id, paid.wallet_id, theirs,
    )  # fmt: skip
    assert found == {("WALLET_MISPLACED", paid.consumer.org_id)}


async def test_a_call_charged_to_somebody_else_is_named(books: Books, paid: Paid) -> None:
    found = await _edit(
        books, "UPDATE usage_records SET org_id = $3 WHERE request_id = $1 AND org_id = $2",
        "UPDATE usage_records SET org_id = $2 WHERE request_id = $1 AND org_id = $3",
        paid.request_id, paid.consumer.org_id, ids.new("org"), schema="usage",
    )  # fmt: skip
    assert found == {("PARTIES_DIFFER", paid.request_id)}


async def test_a_top_up_taken_away_is_named(books: Books, paid: Paid) -> None:
    async with books.superuser() as connection:
        row = await connection.fetchrow("SELECT id, amount FROM transactions WHERE org_id = $1", paid.consumer.org_id)
        await connection.execute("UPDATE transactions SET amount = amount + 1 WHERE id = $1", row["id"])
        assert await _found(books) == {("TRANSACTION_DIFFERS", row["id"])}
        await connection.execute("UPDATE transactions SET amount = amount - 1 WHERE id = $1", row["id"])


@pytest.mark.parametrize("table", ["postings", "entry_rows"])
@pytest.mark.parametrize("statement", ["UPDATE {} SET {}", "DELETE FROM {}", "TRUNCATE {} CASCADE"])
async def test_the_services_own_role_cannot_change_the_books(
    books: Books, paid: Paid, table: str, statement: str
) -> None:
    column = "kind = 'x'" if table == "postings" else "amount = 0"
    connection = await asyncpg.connect(books.postgres_url)
    try:
        await connection.execute("SET search_path TO billing")
        with pytest.raises(asyncpg.RaiseError, match="immutable"):
            await connection.execute(statement.format(table, column))
    finally:
        await connection.close()


async def test_a_check_during_traffic_finds_nothing(books: Books, paid: Paid) -> None:
    async def traffic() -> None:
        for _ in range(30):
            await books.send(*(books.call(paid.consumer, paid.publisher, 3) for _ in range(20)))
            await asyncio.sleep(0.01)

    sending = asyncio.create_task(traffic())
    while not sending.done():
        checked = await books.check()
        assert checked.clean, checked.discrepancies
    await sending
    await books.settled()
    assert (await books.check()).clean


async def test_only_admins_check(books: Books, paid: Paid) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        await books.billing.CheckLedger(billing_pb2.CheckLedgerRequest(), metadata=paid.consumer.metadata)
    assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED
