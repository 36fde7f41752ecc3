"""The tables of credit. Whoever writes holds the wallet's lock."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from services.billing.credits.burning import Grant, in_order
from services.common import ids
from services.common.db import Connection, load_queries

Row = Mapping[str, Any]


class Usable(NamedTuple):
    """Credit that can be spent now, nanos, and when the first of it expires."""

    amount: int
    until: datetime | None


class CreditStore:
    """Reads and writes within the transaction of the connection given."""

    def __init__(self) -> None:
        self._q = load_queries("services.billing.credits")

    async def add_grant(self, c: Connection, **columns: Any) -> bool:
        """Whether it was not there before."""
        return bool([r async for r in self._q.add_grant(c, **columns)])

    async def get_grant(self, c: Connection, grant_id: str) -> Row:
        """A grant that there is."""
        row: Row = await self._q.get_grant(c, id=grant_id)
        return row

    async def list_grants(self, c: Connection, org_id: str, before: str | None, most: int) -> list[Row]:
        return [r async for r in self._q.list_grants(c, org_id=org_id, before=before, most=most)]

    async def left(self, c: Connection, org_ids: Iterable[str]) -> dict[str, list[Grant]]:
        """What is not spent of the grants of organisations, also of expired ones, in the order in which it is spent;
        those without any are left out."""
        found: dict[str, list[Grant]] = {}
        async for r in self._q.left(c, org_ids=sorted(set(org_ids))):
            grant = Grant(r["id"], r["remaining"], r["priority"], r["expires_at"], r["created_at"])
            found.setdefault(r["org_id"], []).append(grant)
        return {org_id: in_order(grants) for org_id, grants in found.items()}

    async def usable(self, c: Connection, org_id: str, now: datetime) -> Usable:
        row = await self._q.usable(c, org_id=org_id, now=now)
        return Usable(row["amount"], row["until"])

    async def burn(self, c: Connection, burnt: Sequence[tuple[str, str, int]]) -> None:
        """Notes what calls have spent: grant, cause and nanos of each."""
        if not burnt:
            return
        grant_ids, causes, amounts = zip(*burnt, strict=True)
        await self._q.add_burns(c, grant_ids=list(grant_ids), causes=list(causes), amounts=list(amounts))
        sums: dict[str, int] = {}
        for grant_id, _, amount in burnt:
            sums[grant_id] = sums.get(grant_id, 0) + amount
        await self._q.burn(c, ids=list(sums), amounts=list(sums.values()))

    async def give_back(self, c: Connection, org_id: str, cause: str, refund_id: str, now: datetime) -> None:
        """Makes what a call had burnt usable again, as grants like those that it came from. Their money is in the
        posting of the refund."""
        burnt = [r async for r in self._q.burnt_by(c, cause=cause)]
        for at, r in enumerate(burnt):
            await self._q.add_grant(
                c, id=ids.derived("crg", refund_id, at), org_id=org_id, amount=r["amount"], priority=r["priority"],
                expires_at=r["expires_at"], reason=r["reason"], now=now,
            )  # fmt: skip

    async def expired(self, c: Connection, now: datetime) -> list[Row]:
        """Grants past their end of which something is left, and from which no call can spend any more: every lease made
        before their end is closed."""
        return [r async for r in self._q.expired(c, now=now, most=1000)]

    async def lapse(self, c: Connection, grant_ids: Sequence[str], now: datetime) -> list[Row]:
        """Takes the rest of those that are still as `expired` says; answers them with what `lapsed`, nanos."""
        return [r async for r in self._q.lapse(c, ids=grant_ids, now=now)]

    async def set_limit(self, c: Connection, org_id: str, credit_limit: int) -> None:
        await self._q.set_limit(c, org_id=org_id, credit_limit=credit_limit)

    async def wrong_grants(self, c: Connection) -> list[Row]:
        return [r async for r in self._q.wrong_grants(c)]

    async def wrong_credit(self, c: Connection) -> list[Row]:
        return [r async for r in self._q.wrong_credit(c)]
