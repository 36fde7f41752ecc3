"""Budgets over real servers: what they count, whom they refuse and what they tell. Their arithmetic is proven in
`test_leases.py`, five hundred calls at once in `tests/robustness/test_budgets.py`."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from mercat.auth.v1 import auth_pb2
from mercat.billing.v1 import billing_pb2, budgets_pb2
from mercat.event.v1 import event_pb2
from nats.aio.msg import Msg

from services.common.errors import BudgetExceeded
from services.common.events import listen
from tests.expect import failed
from tests.integration.billing.books import USD, Books, Person

DAILY, MONTHLY = budgets_pb2.BUDGET_PERIOD_DAILY, budgets_pb2.BUDGET_PERIOD_MONTHLY


def budget(name: str, limit: int, period: int = DAILY, **fields: object) -> budgets_pb2.SetBudgetRequest:
    return budgets_pb2.SetBudgetRequest(name=name, limit_nanos=limit, period=period, **fields)  # type: ignore[arg-type]


async def put(
    books: Books, person: Person, name: str, limit: int, period: int = DAILY, **fields: object
) -> budgets_pb2.Budget:
    request = budget(name, limit, period, **fields)
    return (await books.budgets.SetBudget(request, metadata=person.metadata)).budget


async def listed(books: Books, person: Person) -> dict[str, budgets_pb2.Budget]:
    got = await books.budgets.ListBudgets(budgets_pb2.ListBudgetsRequest(), metadata=person.metadata)
    return {b.name: b for b in got.budgets}


async def own_key(books: Books, person: Person) -> str:
    made = await books.auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name="k"), metadata=person.metadata)
    return made.api_key.key_id


async def test_a_budget_is_made_replaced_listed_and_deleted(books: Books) -> None:
    person = await books.person(USD)
    key_id = await own_key(books, person)
    first = await put(books, person, "one", 500, thresholds=[100, 50, 50])
    assert (first.limit_nanos, list(first.thresholds), first.remaining_nanos) == (500, [50, 100], 500)
    tomorrow = books.clock.now().replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    assert first.reset_time.ToDatetime(UTC) == tomorrow
    second = await put(books, person, "one", 700, MONTHLY, key_id=key_id)
    assert (second.budget_id, second.limit_nanos, second.key_id) == (first.budget_id, 700, key_id)
    today = tomorrow - timedelta(days=1)
    assert second.reset_time.ToDatetime(UTC) == (today.replace(day=1) + timedelta(days=32)).replace(day=1)
    await put(books, person, "two", 1)
    page = await books.budgets.ListBudgets(budgets_pb2.ListBudgetsRequest(page_size=1), metadata=person.metadata)
    assert [b.name for b in page.budgets] == ["one"]
    request = budgets_pb2.ListBudgetsRequest(page_size=1, page_token=page.next_page_token)
    page = await books.budgets.ListBudgets(request, metadata=person.metadata)
    assert ([b.name for b in page.budgets], page.next_page_token) == (["two"], "")
    assert not await listed(books, await books.person()), "they are of one organisation"
    gone = budgets_pb2.DeleteBudgetRequest(name="one")
    await books.budgets.DeleteBudget(gone, metadata=person.metadata)
    assert (await failed(books.budgets.DeleteBudget(gone, metadata=person.metadata))).reason == "BUDGET_NOT_FOUND"
    assert set(await listed(books, person)) == {"two"}


async def test_budgets_of_what_is_not_there_are_refused(books: Books) -> None:
    person, other = await books.person(), await books.person()
    key_id = await own_key(books, other)
    for fields, reason in (
        ({"key_id": key_id}, "API_KEY_NOT_FOUND"), ({"key_id": "key_none"}, "API_KEY_NOT_FOUND"),
        ({"model": "nobody/nothing"}, "MODEL_NOT_FOUND"), ({"key_id": key_id, "model": "a/b"}, "INVALID_FIELDS"),
        ({"thresholds": [0]}, "INVALID_FIELDS"),
    ):  # fmt: skip
        error = await failed(books.budgets.SetBudget(budget("b", 1, **fields), metadata=person.metadata))
        assert error.reason == reason, fields
    assert not await listed(books, person)


async def test_a_call_counts_for_all_of_its_budgets_and_the_tightest_refuses(books: Books) -> None:
    person, publisher = await books.person(USD), await books.person()
    key_id = await own_key(books, person)
    await put(books, person, "all", 1000, MONTHLY)
    mine = await put(books, person, "key", 300, key_id=key_id)
    lease = await books.acquire(person, 200, key_id=key_id)
    assert (lease.by_key, lease.by_model) == (True, False)
    await books.charge(books.call(person, publisher, 150, lease_id=lease.lease_id, key_id=key_id))
    found = await listed(books, person)
    assert [(b.spent_nanos, b.reserved_nanos, b.remaining_nanos) for b in found.values()] == [
        (150, 50, 850),
        (150, 50, 150),
    ]
    with pytest.raises(BudgetExceeded) as refusal:
        await books.acquire(person, 101, worker="wrk_2", key_id=key_id)
    told = refusal.value.metadata
    assert (told["budget"], told["budget_id"], told["scope"], told["period"]) == ("key", mine.budget_id, "key", "daily")
    assert (told["limit_nanos"], told["spent_nanos"], told["reserved_nanos"]) == ("300", "150", "50")
    resets = datetime.fromisoformat(told["reset_time"])
    assert resets == mine.reset_time.ToDatetime(UTC)
    assert refusal.value.retry_after == pytest.approx((resets - books.clock.now()).total_seconds(), abs=5)
    other = await books.acquire(person, 800, worker="wrk_2", key_id="key_other")
    with pytest.raises(BudgetExceeded, match="monthly budget all "):
        await books.acquire(person, 1, worker="wrk_3", key_id="key_third")
    await books.close(lease.lease_id, 150)
    await books.close(other.lease_id, 0, "wrk_2")
    assert (await books.acquire(person, 150, key_id=key_id)).granted_nanos == 150
    assert (await books.check()).clean


async def test_a_budget_made_late_knows_what_its_period_has_spent(books: Books) -> None:
    """A call of a job carries the time at which the job was made; it counts when its money was set aside."""
    person, publisher = await books.person(USD), await books.person()
    lease = await books.acquire(person, 1000)
    long_ago = datetime.now(UTC) - timedelta(days=40)
    await books.charge(
        books.call(person, publisher, 300, lease_id=lease.lease_id),
        books.call(person, publisher, 400, lease_id=lease.lease_id, key_id="key_y", arrived=long_ago),
        books.call(person, publisher, 100, lease_id=lease.lease_id, test=True),
    )
    await books.close(lease.lease_id, 700)
    made = await put(books, person, "late", 650)
    assert (made.spent_nanos, made.remaining_nanos) == (700, 0)
    assert (await put(books, person, "told", 100, notify_only=True)).spent_nanos == 700
    with pytest.raises(BudgetExceeded, match="late"):
        await books.acquire(person, 1)
    await books.budgets.DeleteBudget(budgets_pb2.DeleteBudgetRequest(name="late"), metadata=person.metadata)
    assert await books.acquire(person, 1), "the other only tells"
    assert (await books.check()).clean


async def test_a_period_that_begins_anew_has_all_of_its_limit(books: Books) -> None:
    person, publisher = await books.person(USD), await books.person()
    await put(books, person, "day", 100)
    lease = await books.acquire(person, 100)
    await books.charge(books.call(person, publisher, 100, lease_id=lease.lease_id))
    await books.close(lease.lease_id, 100)
    with pytest.raises(BudgetExceeded) as refusal:
        await books.acquire(person, 1)
    assert refusal.value.retry_after is not None
    wait = timedelta(seconds=refusal.value.retry_after + 1)
    books.clock.moved += wait
    try:
        lease = await books.acquire(person, 100)
        await books.close(lease.lease_id, 0)
    finally:
        books.clock.moved -= wait
    with pytest.raises(BudgetExceeded):
        await books.acquire(person, 1)


async def test_each_threshold_is_told_once(books: Books) -> None:
    person, publisher = await books.person(USD), await books.person()
    subscription = await books.events.js.subscribe("mercat.event.BudgetThresholdReached", ordered_consumer=True)

    async def told() -> list[tuple[str, int, int]]:
        """The next ones of this person's, until none comes for a second."""
        found = []
        try:
            while True:
                event = event_pb2.BudgetThresholdReached.FromString((await subscription.next_msg(timeout=1)).data)
                if event.org_id == person.org_id:
                    assert event.reset_time.ToDatetime(UTC) > books.clock.now()
                    found.append((event.name, event.percent, event.spent_nanos))
        except TimeoutError:
            return found

    await put(books, person, "all", 1000, thresholds=[50, 80, 100])
    await put(books, person, "watch", 200, MONTHLY, thresholds=[100, 150], notify_only=True)
    lease = await books.acquire(person, 1000)
    spend = [books.call(person, publisher, cost, lease_id=lease.lease_id) for cost in (150, 400, 60, 390)]
    await books.charge(spend[0])
    assert await told() == []
    await books.charge(spend[1])
    assert sorted(await told()) == [("all", 50, 550), ("watch", 100, 550), ("watch", 150, 550)]
    await books.charge(spend[1], spend[2])
    assert await told() == []
    await books.charge(spend[3])
    assert await told() == [("all", 80, 1000), ("all", 100, 1000)]
    assert list((await listed(books, person))["all"].reached) == [50, 80, 100]
    await put(books, person, "all", 1200, thresholds=[80])
    assert await told() == [("all", 80, 1000)], "of another limit, and told when it is set"
    await put(books, person, "all", 1200, thresholds=[80])
    assert await told() == []
    await books.close(lease.lease_id, 1000)
    await subscription.unsubscribe()


async def test_a_new_budget_calls_back_what_workers_hold_and_counts_it_until_then(books: Books) -> None:
    person = await books.person(USD)
    key_id = await own_key(books, person)
    lease = await books.acquire(person, 500)
    assert not lease.by_key
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def note(message: Msg) -> None:
        heard.put_nowait(message.data)

    stop = await listen(books.events, f"mercat.recall.{person.org_id}", note)
    await books.events.client.flush()
    made = await put(books, person, "key", 600, key_id=key_id)
    async with asyncio.timeout(5):
        assert await heard.get() == b"all"
    await stop()
    assert made.reserved_nanos == 500, "any key may spend it"
    with pytest.raises(BudgetExceeded):
        await books.acquire(person, 101, key_id=key_id)
    request = billing_pb2.RenewLeasesRequest(worker_id="wrk_1", lease_ids=[lease.lease_id])
    assert list((await books.leases.RenewLeases(request)).ended_lease_ids) == [lease.lease_id]
    await books.close(lease.lease_id, 0)
    again = await books.acquire(person, 600, key_id=key_id)
    assert (again.granted_nanos, again.by_key) == (600, True)
    await books.close(again.lease_id, 0)


async def test_edited_spending_is_named(books: Books) -> None:
    person, publisher = await books.person(USD), await books.person()
    lease = await books.acquire(person, 100)
    await books.charge(books.call(person, publisher, 100, lease_id=lease.lease_id))
    await books.close(lease.lease_id, 100)
    assert (await books.check()).clean
    async with books.superuser() as connection:
        await connection.execute("UPDATE spending SET spent = spent - 1 WHERE org_id = $1", person.org_id)
        found = {(d.code, d.subject) for d in (await books.check()).discrepancies}
        await connection.execute("UPDATE spending SET spent = spent + 1 WHERE org_id = $1", person.org_id)
    assert found == {("SPENDING_DIFFERS", person.org_id)}
    assert (await books.check()).clean
