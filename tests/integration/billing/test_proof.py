"""The proof of a month: what was counted where, and rows that a superuser edits, adds or takes away."""

import asyncio
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from mercat.billing.v1 import proof_pb2
from mercat.usage.v1 import usage_pb2

from services.common import ids
from services.common.errors import InvalidFields, from_rpc_error
from services.common.months import month_of
from tests.integration.billing.books import USD, Books, Person


def counted(proof: proof_pb2.Proof) -> dict[str, tuple[int, int]]:
    """Rows and nanos by name."""
    return {f"{s.name}: {c.name}": (c.rows, c.nanos) for s in proof.sections for c in s.counts}


def named(proof: proof_pb2.Proof) -> set[tuple[str, str, str]]:
    assert proof.clean == (not proof.discrepancies)
    assert sum(s.differences for s in proof.sections) >= len(proof.discrepancies)
    return {(d.section, d.code, d.subject) for d in proof.discrepancies}


@pytest.fixture
async def parties(books: Books) -> tuple[Person, Person]:
    return await books.person(USD), await books.person()


async def test_a_proof_says_what_it_counted(books: Books, parties: tuple[Person, Person]) -> None:
    start = ids.timestamp(ids.new("req"))  # of calls before it, other tests made some
    consumer, publisher = parties
    free = books.call(consumer, publisher, 0)
    free.price_id = ""
    await books.charge(
        *(books.call(consumer, publisher, 1000) for _ in range(30)), free,
        books.call(consumer, publisher, 1000, test=True),
    )  # fmt: skip
    proof = await books.prove(start_time=start)
    assert proof.clean, proof
    got = counted(proof)
    assert got["usage: records"] == (32, 0)
    assert got["usage: calls"] == got["ledger: calls"] == (30, 30_000)
    assert got["usage: rated"][0] == 31, "a call with a test key costs nothing whatever its price"
    assert proof.start_time.ToDatetime(UTC) == start
    assert proof.settled_through.ToDatetime(UTC) > start


async def test_a_price_that_is_first_named_during_a_proof_is_rated_by_all_that_it_counts(
    books: Books, parties: tuple[Person, Person]
) -> None:
    request = usage_pb2.GroupCallsRequest()  # names the prices that there were when calls were counted
    request.start_time.FromDatetime(ids.timestamp(ids.new("req")))
    call, free = books.call(*parties, 1000), books.call(*parties, 0)
    free.price_id = ""
    await books.charge(call, free)
    request.end_time.FromDatetime(books.clock.now() + timedelta(days=1))
    groups = [group.call async for page in books.settlement.GroupCalls(request) for group in page.groups]
    assert {c.request_id: dict(c.units) for c in groups} == {call.request_id: dict(call.units), free.request_id: {}}


async def test_this_month_is_proven_when_nothing_is_said(books: Books, parties: tuple[Person, Person]) -> None:
    await books.charge(books.call(*parties, 1000))
    proof = await books.prove()
    month = month_of(books.clock.now())
    assert proof.clean
    assert proof.start_time.ToDatetime(UTC) == month
    assert counted(proof)["usage: calls"] == counted(await books.prove(f"{month:%Y-%m}"))["usage: calls"]


async def test_it_says_within_a_second_what_it_does(books: Books) -> None:
    stream = books.proof.ProveLedger(proof_pb2.ProveLedgerRequest(), metadata=await books.admin())
    first = await asyncio.wait_for(stream.read(), 10)
    assert first.doing or first.HasField("proof")
    last = first
    while not last.HasField("proof"):
        last = await stream.read()
    assert last.proof.clean


@pytest.mark.parametrize(
    ("schema", "change", "undo", "codes"),
    [
        (
            "usage", "UPDATE usage_records SET status_code = 13 WHERE request_id = $1",
            "UPDATE usage_records SET status_code = 0 WHERE request_id = $1", {"FAILED_CALL_CHARGED"},
        ),
        ("usage", "UPDATE usage_records SET cost = cost + 1 WHERE request_id = $1",
         "UPDATE usage_records SET cost = cost - 1 WHERE request_id = $1", {"COST_DIFFERS", "RATING_DIFFERS"}),
        ("billing", "UPDATE postings SET kind = 'gift' WHERE cause = $1",
         "UPDATE postings SET kind = 'charge' WHERE cause = $1", {"POSTING_EDITED"}),
    ],
)  # fmt: skip
async def test_an_edited_call_is_named_by_the_proof_of_its_time_alone(
    books: Books, parties: tuple[Person, Person], schema: str, change: str, undo: str, codes: set[str]
) -> None:
    start = datetime.now(UTC) - timedelta(seconds=1)
    call, later = books.call(*parties, 1000), books.call(*parties, 1000)
    await books.charge(call, later)
    async with books.superuser(schema) as connection:
        await connection.execute(change, call.request_id)
        try:
            found = named(await books.prove(start_time=start))
            before = await books.prove(start_time=start - timedelta(days=1), end_time=start - timedelta(milliseconds=1))
        finally:
            await connection.execute(undo, call.request_id)
    assert {code for _, code, _ in found} == codes
    assert not {subject for _, _, subject in found} & {later.request_id}
    assert {section for section, _, _ in found} <= {"usage", "ledger"}
    assert not {d.subject for d in before.discrepancies} & {call.request_id}
    assert (await books.prove(start_time=start)).clean


async def test_calls_that_only_one_side_has_are_named(books: Books, parties: tuple[Person, Person]) -> None:
    start = datetime.now(UTC) - timedelta(seconds=1)
    calls = [books.call(*parties, 1000) for _ in range(3)]
    await books.charge(*calls)
    async with books.superuser("usage") as connection:
        row = await connection.fetchrow(
            "DELETE FROM usage_records WHERE request_id = $1 RETURNING *", calls[1].request_id
        )
        found = named(await books.prove(start_time=start))
        values = ", ".join(f"${n + 1}" for n in range(len(row)))
        await connection.execute(f"INSERT INTO usage_records VALUES ({values})", *row.values())
    assert ("usage", "USAGE_MISSING", calls[1].request_id) in found
    assert (await books.prove(start_time=start)).clean


async def test_many_differences_are_counted_and_some_are_named(books: Books, parties: tuple[Person, Person]) -> None:
    start = datetime.now(UTC) - timedelta(seconds=1)
    await books.charge(*(books.call(*parties, 1000) for _ in range(150)))
    change = "UPDATE usage_records SET units = '{\"requests\": %d}' WHERE org_id = $1"
    async with books.superuser("usage") as connection:
        await connection.execute(change % 2, parties[0].org_id)
        proof = await books.prove(start_time=start)
        await connection.execute(change % 1, parties[0].org_id)
    usage = next(s for s in proof.sections if s.name == "usage")
    assert usage.differences == 150, "they are alike, and told of together"
    assert [d.code for d in proof.discrepancies] == ["RATING_DIFFERS"]
    assert "149 more" in proof.discrepancies[0].message


@pytest.mark.parametrize(
    ("change", "undo", "code"),
    [
        ("UPDATE sandbox_objects SET cents = cents + 1 WHERE id = $1",
         "UPDATE sandbox_objects SET cents = cents - 1 WHERE id = $1", "PROVIDER_DIFFERS"),
        ("UPDATE sandbox_objects SET status = 'failed' WHERE id = $1",
         "UPDATE sandbox_objects SET status = 'succeeded' WHERE id = $1", "PROVIDER_DIFFERS"),
        ("UPDATE sandbox_objects SET kind = 'gone' WHERE id = $1",
         "UPDATE sandbox_objects SET kind = 'payment_intent' WHERE id = $1", "PROVIDER_MISSING"),
    ],
)  # fmt: skip
async def test_a_payment_that_the_provider_knows_otherwise_is_named(
    books: Books, change: str, undo: str, code: str
) -> None:
    person = await books.person()
    await books.card(person)
    paid = await books.pay(person, 10 * USD)
    async with books.superuser() as connection:
        ref = await connection.fetchval("SELECT provider_ref FROM payments WHERE id = $1", paid.payment_id)
        await connection.execute(change, ref)
        found = named(await books.prove())
        await connection.execute(undo, ref)
    assert found == {("payments", code, paid.payment_id)}
    proof = await books.prove()
    assert proof.clean
    assert counted(proof)["payments: payments"] == counted(proof)["payments: payments at sandbox"]


async def test_money_that_only_the_provider_knows_is_named_and_what_is_under_way_is_not(books: Books) -> None:
    person = await books.person()
    await books.card(person)
    paid = await books.pay(person, 10 * USD)
    forged, opened = ids.new("pi"), ids.new("pi")
    async with books.superuser() as connection:
        for ref, status in ((forged, "succeeded"), (opened, "requires_confirmation")):
            await connection.execute(
                "INSERT INTO sandbox_objects (id, key, kind, parent, status, cents) VALUES ($1, $1, 'payment_intent',"
                " 'cus_x', $2, 500)", ref, status,
            )  # fmt: skip
        # One that the provider has charged, and whose end is about to be written down.
        await connection.execute(
            "UPDATE payments SET status = 'processing', next_attempt_at = now() + interval '1 day' WHERE id = $1",
            paid.payment_id,
        )
        found = named(await books.prove())
        await connection.execute(
            "UPDATE payments SET status = 'succeeded', next_attempt_at = NULL WHERE id = $1", paid.payment_id
        )
        await connection.execute("DELETE FROM sandbox_objects WHERE id = ANY($1)", [forged, opened])
    assert found == {("payments", "PROVIDER_ONLY", forged), ("payments", "PAYMENT_DIFFERS", paid.payment_id)}
    assert (await books.prove()).clean


@pytest.mark.parametrize(
    ("request_of", "field"),
    [
        (proof_pb2.ProveLedgerRequest(period="2026-13"), "period"),
        (proof_pb2.ProveLedgerRequest(period="1999-01"), "period"),
        (proof_pb2.ProveLedgerRequest(period="2099-01"), "period"),
        (proof_pb2.ProveLedgerRequest(period="2026-11", start_time={"seconds": 1_700_000_000}), "period"),
        (proof_pb2.ProveLedgerRequest(start_time={"seconds": 4_000_000_000}), "end_time"),
        (proof_pb2.ProveLedgerRequest(start_time={"seconds": 10}, end_time={"seconds": 10}), "end_time"),
    ],
)  # fmt: skip
async def test_a_time_that_cannot_be_proven_is_refused(
    books: Books, request_of: proof_pb2.ProveLedgerRequest, field: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        await books.proof.ProveLedger(request_of, metadata=await books.admin()).read()
    error = from_rpc_error(caught.value)
    assert isinstance(error, InvalidFields)
    assert [v.field for v in error.violations] == [field]


async def test_only_admins_prove(books: Books, parties: tuple[Person, Person]) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        await books.proof.ProveLedger(proof_pb2.ProveLedgerRequest(), metadata=parties[0].metadata).read()
    assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED
