"""Proves the postings of a time by themselves: each is what was posted and sums to zero."""

from services.billing.proof.found import LEDGER, Effects, Found, Range
from services.billing.proof.store import ProofStore, Row
from services.billing.proof.sums import Sums
from services.common.db import Connection


async def prove(
    c: Connection, store: ProofStore, part: Range, seed: int, sums: Sums, effects: Effects, found: Found
) -> int:
    """Adds what calls moved to `sums` and what the others did to `effects`; answers how many postings there were."""
    rows = await store.prove_postings(c, part, seed)
    others = [r for r in rows if r["id"] is not None]
    lines = {r["id"]: [line.rsplit(" ", 1) for line in (r["lines"] or "").split("\n") if line] for r in others}
    accounts = await store.accounts(c, {account_id for entries in lines.values() for account_id, _ in entries})
    postings = 0
    for row in rows:
        if row["id"] is None:
            postings += row["postings"]
            sums.add(row["digits"], row["postings"], row["paid"], row["checksum"])
            found.count(LEDGER, "calls", row["postings"], row["paid"])
            continue
        if row["cause"] is None:
            found.add(LEDGER, "ENTRY_ORPHANED", row["id"], f"{len(lines[row['id']])} entries without a posting")
            continue
        postings += 1
        _check(row, found)
        if not row["cause"].startswith(("req_", "cor_")):
            moved = effects.moved.setdefault(row["cause"], {})
            effects.posting_ids[row["cause"]] = row["id"]
            for account_id, amount in lines[row["id"]]:
                if account_id in accounts:
                    account = accounts[account_id]
                    moved[account] = moved.get(account, 0) + int(amount)
            found.count(LEDGER, "others", 1, sum(amount for amount in moved.values() if amount > 0))
        else:
            found.count(LEDGER, "calls", 1, int(row["paid"]))
    return postings


def _check(row: Row, found: Found) -> None:
    if not row["kept"]:
        found.add(LEDGER, "POSTING_EDITED", row["id"], f"the posting of {row['cause']} is not what was posted")
    if not row["balanced"]:
        found.add(LEDGER, "POSTING_UNBALANCED", row["id"], f"its entries sum to {row['total']}, not to zero")
