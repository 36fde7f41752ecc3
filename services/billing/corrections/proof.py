"""Corrections beside the books: each moved what it says, and follows those before."""

from services.billing.proof.found import LEDGER, Effects, Found, Range
from services.common.db import Connection, load_queries


class CorrectionProof:
    """An `Area`. That usage has them, too, is proven with the calls."""

    def __init__(self) -> None:
        self._q = load_queries("services.billing.corrections")

    async def prove(self, c: Connection, span: Range, effects: Effects, found: Found) -> None:
        async for row in self._q.wrong_corrections(c, **span.ids("req")):
            text = f"it says {row['cost_change']} nanos, its posting {row['moved']}, or it does not follow those before"
            found.add(LEDGER, "CORRECTION_DIFFERS", row["id"], text)
        async for row in self._q.unexplained_corrections(c, **span.ids("cor")):
            text = f"nothing of the name {row['cause']} ever happened"
            found.add(LEDGER, "POSTING_UNEXPLAINED", row["id"], text)

    async def prove_all(self, c: Connection, found: Found) -> None:
        """Each is of a month."""
