"""Losses beside the books: publishers bore their shares of disputes that are lost, and no others, and all shares of one
are no more than was lost."""

from services.billing.ledger import PAYABLE
from services.billing.losses import sharing
from services.billing.losses.store import CHARGED, LossStore
from services.billing.proof.found import PAYMENTS, Effects, Found, Range
from services.common.db import Connection


class LossProof:
    """An `Area`."""

    def __init__(self, store: LossStore) -> None:
        self._store = store

    async def prove(self, c: Connection, span: Range, effects: Effects, found: Found) -> None:
        for row in await self._store.shares_between(c, span.after, span.until):
            charged = row["amount"] if row["status"] == CHARGED else 0
            found.count(PAYMENTS, "shares of losses", int(bool(charged)), charged)
            causes = sharing.causes(row["reversal_id"], row["publisher_org_id"])
            effects.explain(*causes)
            moved = effects.to(row["publisher_org_id"], *causes, kind=PAYABLE)
            if moved != -charged or row["total"] > row["lost"]:
                text = f"{row['status']}: the share of {row['publisher_org_id']} is {row['amount']} nanos, and {moved}"
                text += f" moved, or all shares, {row['total']}, are more than the {row['lost']} that were lost"
                found.add(PAYMENTS, "LOSS_DIFFERS", row["reversal_id"], text)

    async def prove_all(self, c: Connection, found: Found) -> None:
        """Each is of a month."""
