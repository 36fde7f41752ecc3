"""The tables of credit. Whoever writes holds the wallet's lock."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from services.billing.credits.burning import Grant, in_order
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

    async def spent_by(self, c: Connection, org_id: str, request_id: str) -> list[Grant]:
        """Of which grants a call has spent how much (`remaining`) that is not back in them, in the order in which it
        did."""
        rows = self._q.spent_by(c, org_id=org_id, request_id=request_id)
        return in_order(
            [Grant(r["id"], r["spent"], r["priority"], r["expires_at"], r["created_at"]) async for r in rows]
        )

    async def paid_by(self, c: Connection, org_id: str, request_id: str) -> int:
        """How much of a call credit pays, nanos."""
        return sum(grant.remaining for grant in await self.spent_by(c, org_id, request_id))

    async def give_back(self, c: Connection, request_id: str, cause: str, back: Sequence[tuple[str, int]]) -> None:
        """Makes what a call had spent credit again: grants, and nanos of each. The posting of the cause has the
        money."""
        grant_ids, amounts = [grant for grant, _ in back], [amount for _, amount in back]
        await self._q.add_returns(c, grant_ids=grant_ids, cause=cause, request_id=request_id, amounts=amounts)
        await self._q.burn(c, ids=grant_ids, amounts=[-amount for amount in amounts])

    async def expired(self, c: Connection, now: datetime) -> list[Row]:
        """Grants past their end of which something is left, and from which no call can spend any more: every lease made
        before their end is closed."""
        return [r async for r in self._q.expired(c, now=now, most=1000)]

    async def lapse(self, c: Connection, grant_ids: Sequence[str], now: datetime) -> list[Row]:
        """Takes the rest of those that are still as `expired` says; answers them with what `lapsed`, nanos, and how
        often something of them had before (`earlier`)."""
        return [r async for r in self._q.lapse(c, ids=grant_ids, now=now)]

    async def set_limit(self, c: Connection, org_id: str, credit_limit: int) -> None:
        await self._q.set_limit(c, org_id=org_id, credit_limit=credit_limit)

    async def wrong_grants(self, c: Connection) -> list[Row]:
        return [r async for r in self._q.wrong_grants(c)]

    async def wrong_returns(self, c: Connection) -> list[Row]:
        return [r async for r in self._q.wrong_returns(c)]

    async def wrong_credit(self, c: Connection) -> list[Row]:
        return [r async for r in self._q.wrong_credit(c)]
