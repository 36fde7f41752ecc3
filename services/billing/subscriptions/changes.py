"""What may become of a subscription, within a transaction: to another plan, through its trial and periods, to its end.
The organisation's wallet is locked first, which also keeps two changes of one organisation apart."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from services.billing.invoices.issuing import Issuing
from services.billing.invoices.lines import PRORATION, SUBSCRIPTION, Line
from services.billing.store import Store
from services.billing.subscriptions import endings, proration
from services.billing.subscriptions.proration import Change, Period
from services.billing.subscriptions.store import (
    ACTIVE,
    CANCELED,
    PAST_DUE,
    PAY_AS_YOU_GO,
    TRIALING,
    Row,
    Subscription,
    SubscriptionStore,
    starting,
)
from services.common import ids
from services.common.db import Connection
from services.common.errors import AlreadyExists, FailedPrecondition

NAMES = {"free": "Free", "pay_as_you_go": "Pay as you go", "pro": "Pro", "enterprise": "Enterprise"}


class SubscriptionPastDue(FailedPrecondition, reason="SUBSCRIPTION_PAST_DUE"):
    """An invoice of it is open that could not be collected."""


class AlreadySubscribed(AlreadyExists, reason="ALREADY_SUBSCRIBED"):
    """The organisation has a subscription to this model."""


_NONE = Change(0, 0)


@dataclass(frozen=True)
class Changed:
    """A subscription after a change, and what was billed for it, nanos; `invoice_id` is empty where nothing was."""

    subscription: Subscription
    change: Change = _NONE
    invoice_id: str = ""


class Changes:
    """Reads, changes and bills subscriptions."""

    def __init__(self, books: Store, store: SubscriptionStore, issuing: Issuing, fee_ppm: int) -> None:
        self._books = books
        self._store = store
        self._issuing = issuing
        self._fee_ppm = fee_ppm

    async def current(self, c: Connection, org_id: str, user_id: str, now: datetime) -> list[Subscription]:
        """The organisation's subscriptions, locked, with all that has ended until now done: the plan's first."""
        await self._books.lock_or_open_wallets(c, [org_id])
        found = await self._store.of(c, org_id, lock=True)
        if not found or found[0].model_id:  # the sign-up has not been heard of yet
            await self._store.add(c, starting(org_id, user_id, PAY_AS_YOU_GO, now))
            found = await self._store.of(c, org_id, lock=True)
        while await self._advance(c, found, now):
            found = await self._store.of(c, org_id, lock=True)
        return found

    async def change_plan(self, c: Connection, org_id: str, user_id: str, plan: Row, now: datetime) -> Changed:
        """Goes to a plan: its id, price and fee_ppm are of the row. Raises SubscriptionPastDue."""
        was = (await self.current(c, org_id, user_id, now))[0]
        _refuse_past_due(was)
        price, fee_ppm, plan_id = int(plan["monthly_nanos"]), plan["fee_ppm"], str(plan["id"])
        if (was.plan_id, was.price, was.fee_ppm) == (plan_id, price, fee_ppm):
            return Changed(await self._store.update(c, was, cancel=False) if was.cancel else was)
        if plan["trial_days"] and price and not was.price and not await self._store.had_trial(c, org_id):
            end = now.replace(microsecond=0) + timedelta(days=plan["trial_days"])
            made = await self._store.update(
                c, was, plan_id=plan_id, price=price, fee_ppm=fee_ppm, status=TRIALING, trial_end=end, cancel=False
            )
            return Changed(made)
        change = proration.change(was.paid, price, was.period, now)
        made = await self._store.update(
            c, was, plan_id=plan_id, price=price, fee_ppm=fee_ppm, status=ACTIVE, cancel=False
        )
        lines = [
            _line(PRORATION, was, change.credit, Period(now, was.end), f"Unused time on {_name(was)}"),
            _line(PRORATION, made, change.charge, Period(now, was.end), f"Remaining time on {_name(made)}"),
        ]  # fmt: skip
        lines = [line for line in lines if line.amount]
        return Changed(made, change, await self._issuing.bill(c, org_id, was.user_id, lines, now))

    async def cancel(self, c: Connection, was: Subscription, now: datetime, *, at_once: bool) -> Changed:
        """Ends a locked subscription: at once with what was paid of the rest credited, or at its period's end."""
        if not at_once:
            return Changed(await self._store.update(c, was, cancel=True))
        credit = 0 if was.status == PAST_DUE else -proration.unused(was.paid, was.period, now)
        ended = await endings.end(c, self._store, was, now)
        lines = [_line(PRORATION, was, credit, Period(now, was.end), f"Unused time on {_name(was)}")] if credit else []
        return Changed(ended, Change(credit, 0), await self._issuing.bill(c, was.org_id, was.user_id, lines, now))

    async def subscribe_to_model(self, c: Connection, org_id: str, user_id: str, offer: Row, now: datetime) -> Changed:
        """Begins a model's subscription, in step with the plan's period. Raises AlreadySubscribed,
        SubscriptionPastDue."""
        plan = (await self.current(c, org_id, user_id, now))[0]
        _refuse_past_due(plan)
        share = (await self._store.fees_of(c, [offer["publisher_org_id"]])).get(offer["publisher_org_id"])
        new = Subscription(
            ids.new("sub"), org_id, user_id, None, ACTIVE, int(offer["price"]),
            self._fee_ppm if share is None else share, offer["model_id"], offer["model"], offer["publisher_org_id"],
            plan.anchor, plan.start, plan.end, None, False, None, now, int(offer["discount_ppm"]),
        )  # fmt: skip
        made = await self._store.add(c, new)
        if made is None:
            raise AlreadySubscribed(f"you are subscribed to {offer['model']} already")
        change = proration.change(0, made.price, made.period, now)
        lines = [_line(PRORATION, made, change.charge, Period(now, made.end), f"Remaining time on {_name(made)}")]
        return Changed(made, change, await self._issuing.bill(c, org_id, user_id, lines, now))

    async def _advance(self, c: Connection, found: list[Subscription], now: datetime) -> bool:
        """Ends one trial or period of an organisation, if that is due."""
        plan = found[0]
        if plan.next_at is None or plan.next_at > now:
            return False
        if plan.status == TRIALING and plan.next_at == plan.trial_end:
            await self._end_trial(c, plan, now)
            return True
        following = plan.next_period()
        lines = []
        for was in found:
            if was.cancel and was.status != TRIALING:
                await endings.end(c, self._store, was, was.end)
                continue
            made = await self._store.update(c, was, start=following.start, end=following.end)
            if made.paid:
                lines.append(_line(SUBSCRIPTION, made, made.paid, following, _name(made)))
        if plan.cancel and plan.status != TRIALING:
            after = (await self._store.of(c, plan.org_id, lock=True))[0]
            await self._store.update(c, after, start=following.start, end=following.end)
        await self._issuing.close_period(c, plan.org_id, plan.user_id, lines, plan.start, plan.end, now)
        return True

    async def _end_trial(self, c: Connection, plan: Subscription, now: datetime) -> None:
        """The rest of the period is charged, unless the plan was canceled in its trial."""
        assert plan.trial_end is not None
        if plan.cancel:
            await endings.end(c, self._store, plan, plan.trial_end)
            return
        made = await self._store.update(c, plan, status=ACTIVE)
        charge = proration.unused(made.price, made.period, plan.trial_end)
        if charge:
            rest = Period(plan.trial_end, plan.end)
            line = _line(PRORATION, made, charge, rest, f"Remaining time on {_name(made)}")
            await self._issuing.bill(c, plan.org_id, plan.user_id, [line], now)


def _refuse_past_due(was: Subscription) -> None:
    if was.status == PAST_DUE:
        raise SubscriptionPastDue(
            "an invoice of this subscription is not paid; pay it first with `mercat invoices pay`"
        )
    assert was.status != CANCELED


def _name(s: Subscription) -> str:
    return s.model or NAMES.get(s.plan_id or "", s.plan_id or "")


def _line(kind: str, s: Subscription, amount: int, period: Period, what: str) -> Line:
    return Line(
        kind, what, amount, period.start, period.end, subscription_id=s.id, model_id=s.model_id, model=s.model,
        publisher_org_id=s.publisher_org_id, fee_ppm=(s.fee_ppm or 0) if s.model_id else 0,
    )  # fmt: skip
