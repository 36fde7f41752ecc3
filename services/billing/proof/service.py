"""ProveLedger: a proof, and how far it is while it runs."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from mercat.billing.v1 import proof_pb2, proof_pb2_grpc

from services.billing.proof.hourly import Hourly
from services.billing.proof.prover import Prover
from services.common.clock import Clock
from services.common.errors import InvalidFields, Violation
from services.common.months import month_of, next_month
from services.common.rpc.context import Context
from services.common.spans import BEGINNING, span

_EVERY = 0.5  # seconds between two words about how far it is


class ProofServicer(proof_pb2_grpc.ProofServiceServicer):
    """Serves `mercat.billing.v1.ProofService`."""

    def __init__(self, prover: Prover, hourly: Hourly, clock: Clock) -> None:
        self._prover = prover
        self._hourly = hourly
        self._clock = clock

    async def ProveLedger(
        self, request: proof_pb2.ProveLedgerRequest, context: Context
    ) -> AsyncIterator[proof_pb2.ProveLedgerResponse]:
        start, end = asked(request, self._clock.now())
        state = proof_pb2.ProveLedgerResponse()

        def tell(doing: str, rows: int) -> None:
            state.doing, state.rows = doing, state.rows + rows

        proving = asyncio.create_task(self._prover.prove(start, end, tell))
        try:
            while not (await asyncio.wait([proving], timeout=_EVERY))[0]:
                yield state
            proof = proving.result()
        finally:
            proving.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await proving
        if (start, end) == (month_of(start), next_month(start)):
            self._hourly.again(f"{start:%Y-%m}", proof)
        yield proof_pb2.ProveLedgerResponse(doing="proven", rows=state.rows, proof=proof.message())


def asked(request: proof_pb2.ProveLedgerRequest, now: datetime) -> tuple[datetime, datetime]:
    """From when until when.

    Raises:
        InvalidFields: a month and times, a time that ends before it begins or that has not begun.
    """
    field = "start_time"
    if request.period:
        if request.HasField("start_time") or request.HasField("end_time"):
            raise InvalidFields(violations=[Violation("period", "give either a month or times")])
        field = "period"
        year, month = request.period.split("-")
        if int(year) < BEGINNING.year:
            raise InvalidFields(violations=[Violation(field, f"must not be before {BEGINNING:%Y-%m}")])
        start = datetime(int(year), int(month), 1, tzinfo=UTC)
        end = next_month(start)
    elif request.HasField("start_time") or request.HasField("end_time"):
        start, end = span(request, now)
        start, end = max(start, BEGINNING), min(end, next_month(now))  # or it would take every month until year 9999
    else:
        start, end = month_of(now), next_month(now)
    if start > now:
        raise InvalidFields(violations=[Violation(field, "must have begun")])
    if end <= start:
        raise InvalidFields(violations=[Violation("end_time", "must be after start_time")])
    return start, end
