"""The books' tables. `post` is the only way anything is posted."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from services.billing import ledger
from services.billing.ledger import CURRENCY, FEE, PLATFORM, WALLET, Account, Posting
from services.common import ids
from services.common.db import Connection, copy_new, load_queries

Row = Mapping[str, Any]
Amounts = tuple[int, int, int, int]
Charges = tuple[tuple[Account, Account, Account, Account], Mapping[str, Amounts]]  # parties; what calls move, by cause
_FEES = Account(PLATFORM, FEE)
NEWEST = ("pst_" + ids.ALPHABET[-1] * 26, ids.ALPHABET[-1])  # sorts after every entry of a statement


def snapshot(connection: Connection) -> Any:
    """A transaction that reads one state of the books, whatever is posted meanwhile."""
    return connection.transaction(isolation="repeatable_read", readonly=True)


# What a call does to its parties stands in its posting's row; other postings' entries are rows.
_POSTING = (
    "id", "cause", "kind", "digest", "created_at", "wallet_id", "wallet_amount", "credit_id", "credit_amount",
    "payable_id", "payable_amount", "fee_id", "fee_amount",
)  # fmt: skip
_NOTHING = (None, None)
_ENTRY = ("posting_id", "account_id", "amount")


class Store:
    """Reads and writes within the transaction of the connection given."""

    def __init__(self) -> None:
        self._q = load_queries("services.billing")
        self._accounts: dict[Account, str] = {}  # accounts are never deleted

    async def account_ids(self, c: Connection, accounts: Iterable[Account]) -> dict[Account, str]:
        """The ids of accounts, which are opened where they are new."""
        wanted = list(dict.fromkeys(accounts))
        unknown = sorted(a for a in wanted if a not in self._accounts)
        found: dict[Account, str] = {}
        if unknown:
            orgs, kinds = [a.org_id for a in unknown], [a.kind for a in unknown]
            await self._q.add_accounts(
                c, ids=[ids.new("acc") for _ in unknown], org_ids=orgs, kinds=kinds, currency=CURRENCY
            )
            async for r in self._q.get_accounts(c, org_ids=orgs, kinds=kinds, currency=CURRENCY):
                found[Account(r["org_id"], r["kind"])] = r["id"]
        return {a: found.get(a) or self._accounts[a] for a in wanted}

    def remember(self, accounts: Mapping[Account, str]) -> None:
        """Keeps account ids in memory; only after the transaction that opened them has committed."""
        self._accounts.update(accounts)

    async def ensure_wallet(self, c: Connection, org_id: str) -> None:
        """Opens the organisation's wallet when it has none."""
        account = Account(org_id, WALLET)
        found = await self.account_ids(c, [account])
        await self._q.add_wallet(c, org_id=org_id, account_id=found[account])

    async def lock_wallets(self, c: Connection, org_ids: Iterable[str], lease_ids: Collection[str] = ()) -> set[str]:
        """Takes the locks of wallets, and of leases after those of their owners' wallets, in one order everywhere;
        answers whose wallets there are."""
        locked = {r["org_id"] async for r in self._q.lock_wallets(c, org_ids=sorted(set(org_ids)), lease_ids=lease_ids)}
        if lease_ids:
            async for _ in self._q.lock_leases(c, ids=lease_ids):
                pass
        return locked

    async def lock_or_open_wallets(
        self, c: Connection, org_ids: Iterable[str], lease_ids: Collection[str] = ()
    ) -> None:  # fmt: skip
        """Like `lock_wallets`, and opens those that there are not."""
        wanted = set(org_ids)
        missing = wanted - await self.lock_wallets(c, wanted, lease_ids)
        if missing:
            for org_id in sorted(missing):
                await self.ensure_wallet(c, org_id)
            await self.lock_wallets(c, wanted)

    async def post(self, c: Connection, postings: Sequence[Posting], now: datetime) -> set[str]:
        """Posts what was not posted before, and moves the balances. The wallets it touches must be locked.

        Returns:
            The causes posted now.
        """
        new, moves = await self.add_postings(c, postings, now)
        await self.move_balances(c, moves)
        return new

    async def add_postings(
        self, c: Connection, postings: Sequence[Posting], now: datetime
    ) -> tuple[set[str], dict[str, int]]:
        """The first half of `post`, for who has more to do meanwhile: publishers' balances and the platform's are
        everybody's, and are best moved last.

        Returns:
            The causes posted now, and what their entries do to each account, nanos.
        """
        accounts = await self.account_ids(c, (a for p in postings for a, _ in p.entries))
        made = {p.cause: [(accounts[a], m) for a, m in p.entries] for p in postings}
        rows = {
            p.cause: (
                ids.sibling("pst", p.cause), p.cause, p.kind, ledger.digest(p.cause, p.kind, made[p.cause]), now,
                *_NOTHING * 4,
            )
            for p in postings
        }  # fmt: skip
        new = await copy_new(c, "postings", _POSTING, rows, partial(self.posted, c))
        entries = [(rows[cause][0], *part) for cause in rows if cause in new for part in made[cause]]
        if entries:
            await c.copy_records_to_table("entry_rows", columns=_ENTRY, records=entries)
        return new, ledger.totals(part for cause in new for part in made[cause])

    async def add_charges(
        self, c: Connection, charges: Sequence[Charges], now: datetime
    ) -> tuple[set[str], dict[str, int], dict[Account, str]]:
        """The same for calls, each a posting of its own; answers also the ids of their accounts, to remember."""
        accounts = {_FEES}
        for parties, calls in charges:
            moved = zip(*calls.values(), strict=True)
            accounts.update(account for account, each in zip(parties, moved, strict=True) if any(each))
        known = await self.account_ids(c, accounts)
        rows: dict[str, Sequence[Any]] = {}
        for parties, calls in charges:
            account_ids = [known.get(account, "") for account in parties]
            for cause, amounts in calls.items():
                rows[cause] = _charge(cause, account_ids, amounts, now)
        rows = dict(sorted(rows.items()))  # neighbours in indexes one after the other
        new = await copy_new(c, "postings", _POSTING, rows, partial(self.posted, c))
        moves: dict[str, int] = {}
        for parties, calls in charges:
            moved = zip(*[amounts for cause, amounts in calls.items() if cause in new], strict=True)
            for account, each in zip(parties, moved, strict=False):  # none of them may be new
                if account in known:
                    moves[known[account]] = moves.get(known[account], 0) + sum(each)
        return new, moves, known

    async def move_balances(self, c: Connection, moves: Mapping[str, int]) -> None:
        if moves:
            await self._q.move_balances(c, account_ids=list(moves), amounts=list(moves.values()))

    async def posted(self, c: Connection, causes: Sequence[str]) -> set[str]:
        """Those of the causes that were posted."""
        return {r["cause"] async for r in self._q.posted(c, causes=causes)}

    async def get_wallet(self, c: Connection, org_id: str) -> Row | None:
        """reserved, balance and credit_limit, nanos. To act on them, lock the wallet first, in a statement of its own:
        one that waits for a lock sees the locked row as it is then, but other tables as they were when it began."""
        row: Row | None = await self._q.get_wallet(c, org_id=org_id)
        return row

    async def get_balance(self, c: Connection, account: Account) -> int:
        balance = await self._q.get_balance(c, org_id=account.org_id, kind=account.kind, currency=CURRENCY)
        return int(balance or 0)

    # Leases

    async def add_lease(
        self, c: Connection, org_id: str, worker_id: str, granted: int, expires_at: datetime, now: datetime, *,
        ends_at: datetime, key_id: str = "", model_id: str = "",
    ) -> str:  # fmt: skip
        """Reserves a slice; the wallet must be locked. Its id tells when it was made."""
        lease_id = ids.new("lse", int(now.timestamp() * 1000))
        await self._q.add_lease(
            c, id=lease_id, org_id=org_id, worker_id=worker_id, granted=granted, expires_at=expires_at,
            ends_at=ends_at, key_id=key_id, model_id=model_id, now=now,
        )  # fmt: skip
        await self._q.reserve(c, org_ids=[org_id], amounts=[granted])
        return lease_id

    async def renew_leases(
        self, c: Connection, lease_ids: Sequence[str], worker_id: str, until: datetime
    ) -> dict[str, datetime]:
        """Those that are still the worker's, and until when calls may begin to spend from each."""
        async for _ in self._q.lock_leases(c, ids=lease_ids):
            pass
        rows = self._q.renew_leases(c, ids=lease_ids, worker_id=worker_id, expires_at=until)
        return {r["id"]: r["ends_at"] async for r in rows}

    async def end_leases(self, c: Connection, org_id: str, at: datetime) -> None:
        """No call begins to spend from the organisation's leases after `at`. Their workers hear of it when they renew
        them, at the latest."""
        await self._q.end_leases(c, org_id=org_id, at=at)

    async def post_to_leases(self, c: Connection, spent: Mapping[str, int]) -> None:
        """What calls cost leaves the leases they were taken from, and no longer counts as reserved."""
        await self._q.post_to_leases(c, ids=list(spent), amounts=list(spent.values()))

    async def report_leases(self, c: Connection, worker_id: str, spent: Mapping[str, int]) -> None:
        """Their worker spends no more from these."""
        await self._q.report_leases(c, ids=list(spent), spent=list(spent.values()), worker_id=worker_id)
        await self.close_settled(c, list(spent))

    async def close_settled(self, c: Connection, lease_ids: Sequence[str]) -> None:
        rows = self._q.close_settled(c, ids=lease_ids)
        await self._free(c, [(r["org_id"], r["rest"]) async for r in rows])

    async def expired_leases(self, c: Connection, before: datetime) -> list[Row]:
        return [r async for r in self._q.expired_leases(c, before=before, most=1000)]

    async def close_expired(self, c: Connection, lease_ids: Sequence[str], before: datetime) -> list[Row]:
        rows = [r async for r in self._q.close_expired(c, ids=lease_ids, before=before)]
        await self._free(c, [(r["org_id"], r["rest"]) for r in rows])
        return rows

    async def _free(self, c: Connection, amounts: Iterable[tuple[str, int]]) -> None:
        sums: dict[str, int] = {}
        for org_id, amount in amounts:
            sums[org_id] = sums.get(org_id, 0) - amount
        if sums:
            await self._q.reserve(c, org_ids=list(sums), amounts=list(sums.values()))

    # Transactions, statements

    async def add_transaction(self, c: Connection, **columns: Any) -> Row:
        """The transaction of a cause, made now or before."""
        row: Row = await self._q.add_transaction(c, **columns)
        return row

    async def list_transactions(self, c: Connection, org_id: str, before: str | None, most: int) -> list[Row]:
        return [r async for r in self._q.list_transactions(c, org_id=org_id, before=before, most=most)]

    async def statement(
        self, c: Connection, org_id: str, start: datetime, until: datetime,
        before: tuple[str, str], most: int,
    ) -> list[Row]:  # fmt: skip
        """Entries older than the one of a posting and an account's kind, newest first."""
        rows = self._q.statement(
            c, org_id=org_id, start=start, until=until, before_id=before[0], before_account=before[1], most=most
        )
        return [r async for r in rows]

    async def held_at(self, c: Connection, org_id: str, at: datetime) -> int:
        return int(await self._q.held_at(c, org_id=org_id, at=at))

    async def postings_of(self, c: Connection, causes: Sequence[str]) -> dict[str, Row]:
        """The postings of these causes, with their entries."""
        return {r["cause"]: r async for r in self._q.postings_of(c, causes=causes)}


def _charge(cause: str, account_ids: Sequence[str], amounts: Amounts, now: datetime) -> Sequence[Any]:
    """The columns of a call's posting, its entries among them."""
    entries: list[tuple[str, int]] = []
    columns: list[Any] = []
    for entry in zip(account_ids, amounts, strict=True):
        if entry[1]:
            entries.append(entry)
            columns += entry
        else:
            columns += _NOTHING
    digest = ledger.digest_in_order(cause, "charge", entries)
    return (ids.sibling("pst", cause), cause, "charge", digest, now, *columns)
