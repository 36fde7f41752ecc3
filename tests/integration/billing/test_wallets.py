"""Wallets, leases and postings over real servers: nothing is spent twice, nothing is stranded."""

import asyncio
import random
from collections import Counter
from datetime import UTC, timedelta

import asyncpg
import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from mercat.billing.v1 import billing_pb2
from mercat.registry.v1 import registry_pb2
from mercat.usage.v1 import usage_pb2

from services.common import ids, pages
from services.common.errors import InsufficientCredit, from_rpc_error
from services.common.events import listen
from tests.integration.billing.books import USD, Books, Person


async def test_a_top_up_adds_credit_and_a_transaction(books: Books) -> None:
    person = await books.person()
    made = await books.top_up(person, 5 * USD)
    assert made.wallet.balance_nanos == 5 * USD
    listed = await books.billing.ListTransactions(billing_pb2.ListTransactionsRequest(), metadata=person.metadata)
    assert list(listed.transactions) == [made.transaction]
    assert made.transaction.type == billing_pb2.Transaction.TYPE_TOP_UP
    assert made.transaction.currency == "USD"


async def test_a_top_up_under_one_key_adds_once_even_ten_times_at_once(books: Books) -> None:
    person = await books.person()
    made = await asyncio.gather(*(books.top_up(person, USD, "one-key") for _ in range(10)), return_exceptions=True)
    errors = [from_rpc_error(e) for e in made if isinstance(e, grpc.RpcError)]
    assert len(errors) < 10
    assert {e.reason for e in errors} <= {"IDEMPOTENCY_KEY_RUNNING"}
    assert (await books.wallet(person)).balance_nanos == USD


async def test_concurrent_leases_never_reserve_more_than_there_is(books: Books) -> None:
    person = await books.person(10 * USD)
    made = await asyncio.gather(
        *(books.acquire(person, USD, 3 * USD, f"wrk_{n}") for n in range(50)), return_exceptions=True
    )
    granted = [m.granted_nanos for m in made if isinstance(m, billing_pb2.AcquireLeaseResponse)]
    refused = [m for m in made if isinstance(m, InsufficientCredit)]
    assert len(granted) + len(refused) == 50
    wallet = await books.wallet(person)
    assert wallet.reserved_nanos == sum(granted) <= 10 * USD
    assert 10 * USD - sum(granted) < USD  # no credit that somebody could have had was kept back
    assert all(int(e.metadata["reserved_nanos"]) > 0 and "mercat topup" in e.message for e in refused)


async def test_leases_posting_and_spending_at_once_never_overdraw(books: Books) -> None:
    """Workers that take, spend and return slices while postings come in: what was granted was always there."""
    person, publisher = await books.person(USD), await books.person()
    cost, spent = USD // 40, 0

    async def worker(name: str) -> None:
        nonlocal spent
        for _ in range(20):
            try:
                lease = await books.acquire(person, cost, 2 * cost, name)
            except InsufficientCredit:
                await asyncio.sleep(0.05)
                continue
            calls = [
                books.call(person, publisher, cost, lease_id=lease.lease_id) for _ in range(lease.granted_nanos // cost)
            ]
            await books.send(*calls)
            spent += cost * len(calls)
            await books.close(lease.lease_id, cost * len(calls), name)
            wallet = await books.wallet(person)
            assert 0 <= wallet.reserved_nanos <= wallet.balance_nanos

    await asyncio.gather(*(worker(f"wrk_{n}") for n in range(8)))
    await books.settled()
    assert spent == USD, "all of the credit was to be had, and no more"
    assert await books.until_free(person) == 0
    assert await books.earned(publisher) == USD * 8 // 10


async def test_a_refusal_calls_idle_slices_back(books: Books) -> None:
    person = await books.person(USD)
    heard: asyncio.Queue[str] = asyncio.Queue()

    async def note(message: object) -> None:
        heard.put_nowait(person.org_id)

    stop = await listen(books.events, f"mercat.recall.{person.org_id}", note)
    await books.events.client.flush()
    await books.acquire(person, USD)
    with pytest.raises(InsufficientCredit) as refusal:
        await books.acquire(person, 1, worker="wrk_2")
    assert refusal.value.metadata["reserved_nanos"] == refusal.value.metadata["balance_nanos"] == str(USD)
    async with asyncio.timeout(5):
        await heard.get()
    await stop()


async def test_a_lease_closes_when_what_it_spent_is_posted(books: Books) -> None:
    person, publisher = await books.person(USD), await books.person()
    lease = await books.acquire(person, 1000, 1000)
    call = books.call(person, publisher, 600, lease_id=lease.lease_id)
    await books.close(lease.lease_id, 600)
    assert (await books.wallet(person)).reserved_nanos == 1000, "the spent part is not posted yet"
    await books.send(call)
    assert await books.until_free(person) == USD - 600
    assert await books.earned(publisher) == 480


async def test_renewal_names_lost_leases(books: Books) -> None:
    person = await books.person(USD)
    mine, other = await books.acquire(person, 10), await books.acquire(person, 10, worker="wrk_2")
    answer = await books.leases.RenewLeases(
        billing_pb2.RenewLeasesRequest(worker_id="wrk_1", lease_ids=[mine.lease_id, other.lease_id, "lse_none"])
    )
    assert list(answer.lost_lease_ids) == [other.lease_id, "lse_none"]
    assert answer.expires_at.ToDatetime(UTC) >= mine.expires_at.ToDatetime(UTC)


async def test_a_dead_workers_lease_comes_back_without_what_it_spent(books: Books) -> None:
    person, publisher = await books.person(USD), await books.person()
    lease = await books.acquire(person, USD)
    await books.send(books.call(person, publisher, USD // 4, lease_id=lease.lease_id))
    await books.settled()
    assert (await books.wallet(person)).reserved_nanos == USD - USD // 4
    books.clock.moved += timedelta(seconds=31)
    assert await books.until_free(person) == USD - USD // 4
    lost = await books.leases.RenewLeases(
        billing_pb2.RenewLeasesRequest(worker_id="wrk_1", lease_ids=[lease.lease_id])
    )  # fmt: skip
    assert list(lost.lost_lease_ids) == [lease.lease_id]


async def test_recovery_outlives_an_error_of_the_database(books: Books) -> None:
    person = await books.person(USD)
    await books.acquire(person, USD)
    async with books.superuser() as connection:
        await connection.execute("ALTER TABLE leases RENAME TO leases_away")
        try:
            await asyncio.sleep(3)  # at least one attempt fails
        finally:
            await connection.execute("ALTER TABLE leases_away RENAME TO leases")
    books.clock.moved += timedelta(seconds=31)
    assert await books.until_free(person) == USD


async def test_a_record_that_comes_after_its_lease_is_posted_all_the_same(books: Books) -> None:
    person, publisher = await books.person(USD), await books.person()
    lease = await books.acquire(person, 100, 100)
    await books.close(lease.lease_id, 0)
    await books.send(books.call(person, publisher, 60, lease_id=lease.lease_id))
    await books.settled()
    wallet = await books.wallet(person)
    assert (wallet.balance_nanos, wallet.reserved_nanos) == (USD - 60, 0)


async def test_the_same_batch_posts_once(books: Books) -> None:
    person, publisher = await books.person(USD), await books.person()
    lease = await books.acquire(person, 1000, 1000)
    calls = [books.call(person, publisher, 7, lease_id=lease.lease_id) for _ in range(50)]
    calls += [books.call(person, publisher, 0), books.call(person, publisher, 9, test=True)]
    await asyncio.gather(*(books.send(*calls) for _ in range(5)))
    first = await books.leases.PostUsage(billing_pb2.PostUsageRequest(records=calls))
    assert first.posted in (0, 50)
    again = await books.leases.PostUsage(billing_pb2.PostUsageRequest(records=calls))
    assert again.posted == 0
    await books.settled()
    await books.close(lease.lease_id, 350)
    assert await books.until_free(person) == USD - 350
    # Each call is rounded on its own: 20 % of 7 is 1.
    assert await books.earned(publisher) == 50 * 6


async def test_overlapping_batches_in_any_order_never_stop_each_other(books: Books) -> None:
    """Postings of many organisations, most of them new to the books, beside top-ups and leases of the same wallets."""
    people = await asyncio.gather(*(books.person() for _ in range(8)))
    calls = [books.call(people[n % 8], people[n * 5 % 7], 1 + n % 3) for n in range(400)]
    chance = random.Random(7)

    async def post() -> int:
        some = chance.sample(calls, 300)
        return (await books.leases.PostUsage(billing_pb2.PostUsageRequest(records=some))).posted

    async def spend(person: Person) -> None:
        for _ in range(3):
            await books.top_up(person, 10_000)
            lease = await books.acquire(person, 10)
            await books.close(lease.lease_id, 0)

    posted = asyncio.gather(*(post() for _ in range(12)))
    await asyncio.gather(*(spend(person) for person in people))
    assert sum(await posted) <= len(calls)
    await books.send(*calls)
    await books.settled()
    for person in people:
        spent = sum(c.cost_nanos for c in calls if c.org_id == person.org_id)
        assert await books.until_free(person) == 30_000 - spent
    checked = await books.check()
    assert checked.clean, checked.discrepancies


async def test_what_is_posted_is_what_is_stored(books: Books) -> None:
    """A second record under the same id, with another cost, changes neither usage nor ledger."""
    person, publisher = await books.person(USD), await books.person()
    call = books.call(person, publisher, 100)
    await books.send(call)
    await books.settled()
    changed = usage_pb2.UsageRecord()
    changed.CopyFrom(call)
    changed.cost_nanos = 999
    await books.send(changed, books.call(person, publisher, 1))
    await books.settled()
    assert (await books.wallet(person)).balance_nanos == USD - 101
    assert (await books.check()).clean


async def test_a_publisher_calling_its_own_model_pays_the_fee(books: Books) -> None:
    person = await books.person(USD)
    await books.send(books.call(person, person, 1000))
    await books.settled()
    assert (await books.wallet(person)).balance_nanos == USD - 1000
    assert await books.earned(person) == 800


async def test_prices_are_set_by_owners_and_never_changed(books: Books) -> None:
    owner, other = await books.person(), await books.person()
    created = await books.registry.CreateModel(
        registry_pb2.CreateModelRequest(name="m", summary="a test", category="other", task="test", license="MIT"),
        metadata=owner.metadata,
    )
    model = f"{owner.username}/m"
    # Before it is published nobody else learns that it exists.
    for metadata in (None, other.metadata):
        with pytest.raises(grpc.RpcError) as refused:
            await books.billing.GetModelPrice(billing_pb2.GetModelPriceRequest(model=model), metadata=metadata)
        assert from_rpc_error(refused.value).reason == "MODEL_NOT_FOUND"
    free = await books.billing.GetModelPrice(billing_pb2.GetModelPriceRequest(model=model), metadata=owner.metadata)
    assert not free.price.components
    assert not free.price.price_id
    request = billing_pb2.SetModelPriceRequest(
        model=model, components=[billing_pb2.PriceComponent(meter="requests", nanos_per_million=2 * USD)]
    )
    first = (await books.billing.SetModelPrice(request, metadata=owner.metadata)).price
    assert (first.model, first.components[0].nanos_per_million) == (model, 2 * USD)
    with pytest.raises(grpc.RpcError) as refused:
        await books.billing.SetModelPrice(request, metadata=other.metadata)
    assert from_rpc_error(refused.value).reason == "MODEL_NOT_FOUND"
    request.components[0].nanos_per_million = 3 * USD
    second = (await books.billing.SetModelPrice(request, metadata=owner.metadata)).price
    resolved = await books.leases.ResolvePrice(billing_pb2.ResolvePriceRequest(model_id=created.model.model_id))
    assert resolved.price == second
    assert second.price_id != first.price_id
    async with books.superuser() as connection:
        assert await connection.fetchval("SELECT count(*) FROM prices WHERE model = $1", model) == 2


async def test_statement_opens_and_closes_with_the_wallet(books: Books) -> None:
    person, publisher = await books.person(USD), await books.person()
    await books.send(*(books.call(person, publisher, 10) for _ in range(5)))
    await books.settled()
    entries: list[billing_pb2.StatementEntry] = []
    request = billing_pb2.GetStatementRequest(page_size=4)
    while True:
        page = await books.billing.GetStatement(request, metadata=person.metadata)
        entries += page.entries
        request.page_token = page.next_page_token
        if not request.page_token:
            break
    assert len({e.cause for e in entries}) == len(entries) == 6
    assert page.opening_nanos == 0
    assert page.closing_nanos == sum(e.amount_nanos for e in entries) == USD - 50
    assert {e.account for e in entries} == {"customer_wallet"}


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
async def test_a_statement_adds_up_for_who_earns_and_spends(books: Books, size: int) -> None:
    """Opening, every entry and closing fit, also when pages end between two entries of one posting."""
    person, other = await books.person(USD), await books.person(USD)
    await books.send(books.call(person, person, 1000), books.call(other, person, 500), books.call(person, other, 70))
    await books.settled()
    request = billing_pb2.GetStatementRequest(page_size=size)
    entries: list[billing_pb2.StatementEntry] = []
    while True:
        page = await books.billing.GetStatement(request, metadata=person.metadata)
        assert len(page.entries) <= size
        entries += page.entries
        request.page_token = page.next_page_token
        if not request.page_token:
            break
    assert Counter(e.account for e in entries) == {"customer_wallet": 3, "publisher_payable": 2}
    assert len({(e.posting_id, e.account) for e in entries}) == len(entries)
    assert [e.posting_id for e in entries] == sorted((e.posting_id for e in entries), reverse=True)
    balance, earned = (await books.wallet(person)).balance_nanos, await books.earned(person)
    assert (page.opening_nanos, page.closing_nanos) == (0, balance + earned)
    assert sum(e.amount_nanos for e in entries) == page.closing_nanos
    # From the middle on, the opening is what the earlier entries came to.
    earliest = min(e.created_at.ToNanoseconds() for e in entries)
    start = Timestamp()
    start.FromNanoseconds(earliest + 1000)
    later = await books.billing.GetStatement(
        billing_pb2.GetStatementRequest(start_time=start, page_size=1000), metadata=person.metadata
    )
    assert later.opening_nanos == sum(e.amount_nanos for e in entries if e.created_at.ToNanoseconds() == earliest)
    assert later.opening_nanos + sum(e.amount_nanos for e in later.entries) == later.closing_nanos


async def test_a_statement_page_of_another_list_is_refused(books: Books) -> None:
    person = await books.person(USD)
    token = pages.encode(["txn_1"])
    with pytest.raises(grpc.RpcError) as refused:
        await books.billing.GetStatement(
            billing_pb2.GetStatementRequest(page_token=token), metadata=person.metadata
        )  # fmt: skip
    assert [v.field for v in from_rpc_error(refused.value).violations] == ["page_token"]


async def test_prices_cannot_be_edited(books: Books) -> None:
    connection = await asyncpg.connect(books.postgres_url)
    try:
        await connection.execute("SET search_path TO billing")
        await connection.execute(
            "INSERT INTO prices VALUES ('prc_fixed', 'mdl_none', 'nobody/none', 'USD', '[]', now())"
            " ON CONFLICT DO NOTHING"
        )
        for statement in ("UPDATE prices SET components = '[]'", "DELETE FROM prices", "TRUNCATE prices"):
            with pytest.raises(asyncpg.RaiseError, match="immutable"):
                await connection.execute(statement)
    finally:
        await connection.close()


async def test_the_database_itself_refuses_entries_that_do_not_balance(books: Books) -> None:
    person = await books.person(USD)
    connection = await asyncpg.connect(books.postgres_url)
    try:
        await connection.execute("SET search_path TO billing")
        wallet = await connection.fetchval("SELECT account_id FROM wallets WHERE org_id = $1", person.org_id)
        clearing = await connection.fetchval("SELECT id FROM accounts WHERE kind = 'sandbox_clearing'")
        add = "INSERT INTO entry_rows SELECT $1, a, m FROM unnest($2::text[], $3::bigint[]) AS t (a, m)"
        for accounts, amounts, good in (
            ([wallet], [5], False), ([wallet, clearing], [5, -4], False), ([wallet, clearing], [5, -5], True),
        ):  # fmt: skip
            change = connection.transaction()
            await change.start()
            posting = ids.new("pst")
            await connection.execute("INSERT INTO postings VALUES ($1, $1, 'gift', 'x', now())", posting)
            if good:
                await connection.execute(add, posting, accounts, amounts)
            else:
                with pytest.raises(asyncpg.RaiseError, match="zero"):
                    await connection.execute(add, posting, accounts, amounts)
            await change.rollback()
    finally:
        await connection.close()


async def test_everybody_who_signs_up_has_a_subscription(books: Books) -> None:
    person = await books.person()
    async with books.superuser() as connection, asyncio.timeout(10):
        query = "SELECT plan_id FROM subscriptions WHERE org_id = $1"
        while await connection.fetchval(query, person.org_id) != "pay_as_you_go":
            await asyncio.sleep(0.05)


async def test_a_lease_that_waited_for_the_wallet_sees_the_balance_of_then(books: Books) -> None:
    """While a posting holds the wallet, what a waiting lease will find is the balance after it, not before."""
    person = await books.person(USD)
    await books.acquire(person, USD)
    async with books.superuser() as connection:
        move = (
            "UPDATE balances b SET balance = balance + $2 FROM wallets w"
            " WHERE w.org_id = $1 AND w.account_id = b.account_id"
        )
        free = "UPDATE wallets SET reserved = reserved + $2 WHERE org_id = $1"
        async with connection.transaction():
            await connection.execute("SELECT FROM wallets WHERE org_id = $1 FOR UPDATE", person.org_id)
            waiting = asyncio.create_task(books.acquire(person, 1, worker="wrk_2"))
            await asyncio.sleep(0.3)
            await connection.execute(free, person.org_id, -USD)
            await connection.execute(move, person.org_id, -USD)
        with pytest.raises(InsufficientCredit):
            await waiting
        await connection.execute(free, person.org_id, USD)
        await connection.execute(move, person.org_id, USD)
