"""Proves by itself: every hour this month, and the last one too, whose calls may still be corrected; every day all."""

import asyncio
import logging
from datetime import timedelta

from prometheus_client import Gauge

from services.billing.proof.prover import Proof, Prover
from services.common.clock import Clock
from services.common.errors import Unavailable
from services.common.months import month_of, next_month

log = logging.getLogger(__name__)
DISCREPANCIES = Gauge("mercat_ledger_discrepancies", "Rows of the books that disagreed at the last proofs")
ENDED = Gauge("mercat_ledger_proof_end_seconds", "When the last proof of a time that left nothing out ended", ["scope"])
TOOK = Gauge("mercat_ledger_proof_duration_seconds", "How long the last proof of a time took", ["scope"])
MONTH, ALL = "month", "all"
_FIRST = 60.0  # seconds until the first proof: a process that is often started anew proves all the same
_ALL_EVERY = timedelta(days=1)


class Hourly:
    """Runs the proofs, and keeps what they found as metrics."""

    def __init__(self, prover: Prover, clock: Clock, seconds: float) -> None:
        self._prover = prover
        self._clock = clock
        self._seconds = seconds
        self._differences: dict[str, int] = {}  # of the last proof, by month or `all`

    async def run(self) -> None:
        """A minute after the start, and then every so often, for ever."""
        wait, all_at = min(self._seconds, _FIRST), self._clock.now()
        while True:
            await asyncio.sleep(wait)
            wait = self._seconds
            try:
                await self.prove_months()
                if self._clock.now() >= all_at:
                    self.note(ALL, await self._prover.prove_all(lambda doing, rows: None))
                    all_at = self._clock.now() + _ALL_EVERY
            except Unavailable as e:
                log.warning("the books were not proven: %s", e)
            except Exception:  # a proof that fails must not stop the services beside it
                log.exception("the books were not proven")

    async def prove_months(self) -> None:
        """This month and the one before."""
        this = month_of(self._clock.now())
        last = month_of(this - timedelta(days=1))
        for gone in self._differences.keys() - {ALL, f"{this:%Y-%m}", f"{last:%Y-%m}"}:
            del self._differences[gone]
        for month in (last, this):
            self.note(f"{month:%Y-%m}", await self._prover.prove(month, next_month(month), lambda doing, rows: None))

    def note(self, what: str, proof: Proof) -> None:
        """Of a month, such as 2026-11, or of all there is."""
        scope, found = ALL if what == ALL else MONTH, proof.found
        self._differences[what] = sum(found.differences.values())
        DISCREPANCIES.set(sum(self._differences.values()))
        TOOK.labels(scope).set(proof.seconds)
        if not found.unproven:
            ENDED.labels(scope).set(self._clock.machine().timestamp())
        for d in found.discrepancies:
            log.error("ledger: %s %s: %s", d.code, d.subject, d.message)
        for text in found.unproven:
            log.warning("not proven of %s: %s", what, text)

    def again(self, what: str, proof: Proof) -> None:
        """Somebody proved it in between: of a month that is proven by itself, that is the last proof."""
        if what in self._differences:
            self.note(what, proof)
