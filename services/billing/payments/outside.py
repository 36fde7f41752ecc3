"""The payment provider beside the books: every payment, refund, dispute and transfer, by the provider's name for it."""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, NamedTuple

from services.billing.payments import amounts
from services.billing.payments.inbox import OVERLAP
from services.billing.payments.provider import Kind, Movement, Provider, ProviderRefused, ProviderUnavailable, Status
from services.billing.payments.store import PaymentStore
from services.billing.proof.calls import Tell
from services.billing.proof.found import PAYMENTS, PAYOUTS, Found, Range
from services.common.db import Database

_SLACK = timedelta(days=1)  # between what was begun here and its beginning there, mostly
_AT_ONCE = 1_000
_TOLD = (Kind.REFUND, Kind.DISPUTE)  # may begin at the provider, which tells of them


class Owned(NamedTuple):
    """What the books say. `ref` is None while the provider has no name for it."""

    kind: Kind
    id: str
    ref: str | None
    nanos: int
    status: Status


def mistake(own: Owned | None, there: Movement | None, provider: str) -> tuple[str, str, str] | None:
    """Code, subject and message where one side has moved money and the other has not, or other money. What is under
    way is no mistake."""
    if own is None:
        assert there is not None
        if not there.moved:
            return None
        text = f"{provider} has a {there.kind} of {there.cents} cents that the books do not know"
        return "PROVIDER_ONLY", there.ref, text
    if own.status == Status.PENDING:
        return None
    if there is None:
        if own.status == Status.FAILED:
            return None
        text = f"the books have a {own.kind} of {own.nanos} nanos, and {provider} no {own.ref or 'name of it'}"
        return "PROVIDER_MISSING", own.id, text
    same = own.status == Status.FAILED or own.nanos == amounts.from_cents(there.cents)
    if same and (own.status == Status.SUCCEEDED) == (there.status == Status.SUCCEEDED):
        return None
    text = f"{own.nanos} nanos, {own.status}, in the books; {there.cents} cents, {there.status}, as {there.ref} there"
    return "PROVIDER_DIFFERS", own.id, text


class ProviderProof:
    """Asks the provider, outside any transaction."""

    def __init__(self, database: Database, store: PaymentStore, provider: Provider) -> None:
        self._database = database
        self._store = store
        self._provider = provider

    async def prove(self, span: Range, found: Found, tell: Tell) -> None:
        """What cannot be asked is noted as not proven."""
        try:
            await self._prove(span, found, tell)
        except (ProviderUnavailable, ProviderRefused) as e:
            found.unproven.append(f"payments beside {self._provider.name}: {e}")

    async def _prove(self, span: Range, found: Found, tell: Tell) -> None:
        there: dict[str, Movement] = {}
        async for movement in self._provider.movements(span.start - _SLACK, span.end + _SLACK):
            there[movement.ref] = movement
            if span.start <= movement.created_at < span.end and movement.moved:
                nanos = amounts.from_cents(movement.cents)
                found.count(_section(movement.kind), f"{movement.kind}s at {self._provider.name}", 1, nanos)
            if len(there) % 100 == 0:
                tell(f"asking {self._provider.name}", 100)
        tell(f"asking {self._provider.name}", len(there) % 100)
        async with self._database.connection() as connection:
            rows = await self._store.owned_between(connection, self._provider.name, span.after, span.until)
        own = _owned(rows)
        doubtful = [o for o in own.values() if mistake(o, there.get(o.ref or ""), self._provider.name)]
        known = {o.ref for o in own.values()}
        strange = [m for m in there.values() if span.start <= m.created_at < span.end and m.ref not in known]
        await self._look_again(doubtful, strange, found)

    async def _look_again(self, doubtful: Iterable[Owned], strange: Iterable[Movement], found: Found) -> None:
        """Both sides were read one after the other: only what is still so is wrong."""
        name = self._provider.name
        for old in doubtful:
            if found.full:
                break
            async with self._database.connection() as connection:
                own = _owned(await self._store.owned_by_id(connection, old.id)).get(old.id, old)
            there = await self._provider.get_movement(own.kind, own.ref) if own.ref else None
            if wrong := mistake(own, there, name):
                found.add(_section(own.kind), *wrong)
        left = [m for m in strange if m.moved]
        for at in range(0, len(left), _AT_ONCE):
            page = left[at : at + _AT_ONCE]
            refs = [m.ref for m in page]
            async with self._database.connection() as connection:
                rows = await self._store.owned_of(connection, name, refs, [m.mark for m in page if m.mark])
                told = await self._store.untold(connection, refs)
                through = await self._store.get_cursor(connection, name)
            known = {r["ref"] for r in rows} | {r["id"] for r in rows if r["status"] == Status.PENDING}
            for m in page:
                told_later = m.kind in _TOLD and (m.ref in told or (through and m.created_at > through - OVERLAP))
                if not {m.ref, m.mark} & known and not told_later and (wrong := mistake(None, m, name)):
                    found.add(_section(m.kind), *wrong)


def _section(kind: Kind) -> str:
    return PAYOUTS if kind == Kind.TRANSFER else PAYMENTS


def _owned(rows: Iterable[Mapping[str, Any]]) -> dict[str, Owned]:
    return {r["id"]: Owned(Kind(r["kind"]), r["id"], r["ref"], r["amount"], Status(r["status"])) for r in rows}
