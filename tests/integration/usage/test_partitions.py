"""Months come and go: records find the partition of their month, and strays move in when it is made."""

from datetime import UTC, datetime

import pytest

from services.common import ids
from services.usage.partitions import make_partitions, month
from services.usage.store import moment
from tests.integration.billing.books import USD, Books

PARTITION = "SELECT tableoid::regclass::text FROM usage.usage_records WHERE request_id = $1"


@pytest.mark.parametrize(
    ("year", "number", "start"),
    [(2026, 1, (2026, 1)), (2026, 12, (2026, 12)), (2026, 13, (2027, 1)), (2026, 14, (2027, 2))],
)
def test_months_pass_over_the_year(year: int, number: int, start: tuple[int, int]) -> None:
    assert month(year, number) == datetime(*start, 1, tzinfo=UTC)


async def test_a_call_is_in_its_months_partition(books: Books) -> None:
    call = books.call(await books.person(USD), await books.person(), 1)
    await books.send(call)
    await books.settled()
    async with books.superuser("usage") as connection:
        name = await connection.fetchval(PARTITION, call.request_id)
    assert name == f"usage_records_{moment(call.request_id):%Y_%m}"


async def test_strays_move_into_their_month(books: Books) -> None:
    """Calls of a month without a partition are kept, and counted once, before and after it is made."""
    far = datetime(2041, 5, 31, 23, 59, 59, tzinfo=UTC)
    call = books.call(await books.person(USD), await books.person(), 1)
    call.request_id = ids.new("req", int(far.timestamp() * 1000))
    await books.send(call)
    await books.settled()
    database = books.deps["usage"].database
    async with books.superuser("usage") as connection:
        assert await connection.fetchval(PARTITION, call.request_id) == "usage_records_rest"
        await make_partitions(database, datetime(2041, 4, 15, tzinfo=UTC))
        await make_partitions(database, datetime(2041, 4, 15, tzinfo=UTC))
        assert await connection.fetchval(PARTITION, call.request_id) == "usage_records_2041_05"
        await books.send(call)
        await books.settled()
        rows = await connection.fetchval(
            "SELECT count(*) FROM usage_records WHERE request_id = $1", call.request_id
        )  # fmt: skip
        assert rows == 1
        # Indexed like its siblings, though it was made apart.
        count = "SELECT count(*) FROM pg_index WHERE indrelid = $1::regclass"
        ready = f"usage_records_{moment(ids.new('req')):%Y_%m}"
        assert await connection.fetchval(count, "usage_records_2041_05") == await connection.fetchval(count, ready)
