"""What the proofs that run by themselves tell Prometheus."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from prometheus_client import REGISTRY

from services.billing.proof.found import LEDGER, Found
from services.billing.proof.hourly import ALL, MONTH, Hourly
from services.billing.proof.prover import Proof
from services.common.clock import SystemClock


class Books:
    """Answers a proof with as many differences as a test says of a month."""

    def __init__(self) -> None:
        self.wrong: dict[str, int] = {}
        self.unproven: list[str] = []
        self.asked: list[tuple[datetime, datetime]] = []

    async def prove(self, start: datetime, end: datetime, tell: Callable[[str, int], None]) -> Proof:
        self.asked.append((start, end))
        return self.proof(f"{start:%Y-%m}")

    def proof(self, what: str) -> Proof:
        found = Found(unproven=list(self.unproven))
        for n in range(self.wrong.get(what, 0)):
            found.add(LEDGER, "POSTING_EDITED", f"pst_{n}", "")
        at = datetime(2026, 11, 1, tzinfo=UTC)
        return Proof(at, at, found, Timestamp(), {}, 1.5)


class November(SystemClock):
    def __init__(self) -> None:
        self.month = 11

    def now(self) -> datetime:
        return datetime(2026, self.month, 26, 12, tzinfo=UTC)


def value(name: str, scope: str = "") -> float | None:
    return REGISTRY.get_sample_value(f"mercat_ledger_{name}", {"scope": scope} if scope else {})


@pytest.fixture
def hourly() -> tuple[Hourly, Books, November]:
    books, clock = Books(), November()
    return Hourly(books, clock, 3600), books, clock  # type: ignore[arg-type]


async def test_this_month_and_the_last_one_are_proven(hourly: tuple[Hourly, Books, November]) -> None:
    runs, books, _ = hourly
    await runs.prove_months()
    first, second, third = (datetime(2026, month, 1, tzinfo=UTC) for month in (10, 11, 12))
    assert books.asked == [(first, second), (second, third)]
    assert value("discrepancies") == 0
    assert value("proof_duration_seconds", MONTH) == 1.5


async def test_differences_of_all_last_proofs_add_up(hourly: tuple[Hourly, Books, November]) -> None:
    runs, books, clock = hourly
    books.wrong = {"2026-10": 2, "2026-11": 1}
    await runs.prove_months()
    runs.note(ALL, books.proof("2026-10"))
    assert value("discrepancies") == 5
    books.wrong["2026-11"] = 0
    runs.again("2026-11", books.proof("2026-11"))
    assert value("discrepancies") == 4
    runs.again("2025-01", books.proof("2026-10"))
    assert value("discrepancies") == 4, "nobody proves that month again by itself"
    clock.month = 12
    await runs.prove_months()
    assert value("discrepancies") == 2, "October is left to the proof of all"


async def test_a_proof_that_left_something_out_is_not_the_last_one(hourly: tuple[Hourly, Books, November]) -> None:
    runs, books, _ = hourly
    await runs.prove_months()
    ended = value("proof_end_seconds", MONTH)
    assert ended
    books.unproven = ["stripe"]
    await runs.prove_months()
    assert value("proof_end_seconds", MONTH) == ended
