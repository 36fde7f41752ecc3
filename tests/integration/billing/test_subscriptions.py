"""Plans over real servers and a clock that is moved: what they cost, how they change and how they end."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio
from mercat.billing.v1 import plans_pb2

from services.billing.subscriptions import proration
from services.billing.subscriptions.proration import Period
from services.common.errors import from_rpc_error
from tests.integration.billing.months import DAY, USD, Invoice, Line, Months, Subscription, passing, when

PRO = 20 * USD


@pytest_asyncio.fixture(scope="module")
async def months(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Months]:
    async with passing(tmp_path_factory.mktemp("months")) as made:
        yield made


def period(s: Subscription) -> Period:
    return Period(when(s.current_period_start), when(s.current_period_end))


async def test_plans_are_listed_with_what_they_cost(months: Months) -> None:
    listed = (await months.books.plans.ListPlans(plans_pb2.ListPlansRequest())).plans
    assert {(p.plan_id, p.monthly_nanos, p.trial_days, p.platform_fee_ppm) for p in listed} == {
        ("free", 0, 0, 200_000), ("pay_as_you_go", 0, 0, 200_000), ("pro", PRO, 14, 100_000),
    }  # fmt: skip


async def test_a_trial_is_free_once_and_then_the_rest_of_the_period_is_charged(months: Months) -> None:
    person = await months.person(card="pm_card_visa")
    began = await months.change(person, "pro")
    assert began.subscription.status == Subscription.STATUS_TRIALING
    assert (began.credit_nanos, began.charge_nanos, began.invoice_id) == (0, 0, "")
    span = period(began.subscription)
    months.advance(14 * DAY)
    after = await months.until_plan(person, "pro")
    (invoice,) = await months.until_invoices(person, 1)
    charge = proration.unused(PRO, span, when(after.trial_end))
    assert [(x.kind, x.amount_nanos) for x in invoice.lines] == [(Line.KIND_PRORATION, charge)]
    assert 0 < charge < PRO
    # The card is charged whole cents; the rest of one stays in the wallet.
    assert await months.balance(person) == -charge % (USD // 100)
    # Back, and again: there is no second trial.
    await months.cancel(person, at_once=True)
    again = await months.change(person, "pro")
    assert again.subscription.status == Subscription.STATUS_ACTIVE
    assert again.charge_nanos > 0
    await months.check()


async def test_a_plan_canceled_in_its_trial_costs_nothing(months: Months) -> None:
    person = await months.person()
    await months.change(person, "pro")
    canceled = await months.cancel(person)
    assert (canceled.plan_id, canceled.cancel_at_period_end) == ("pro", True)
    months.advance(14 * DAY)
    await months.until_plan(person, "free")
    months.advance(31 * DAY)
    assert await months.invoices(person) == []


async def test_a_month_is_charged_in_advance_and_comes_once(months: Months) -> None:
    person = await months.person(card="pm_card_visa")
    await months.change(person, "pro")
    months.advance(14 * DAY)
    await months.until_invoices(person, 1)
    end = when((await months.subscription(person)).current_period_end)
    months.advance_to(end)
    first, second = await months.until_invoices(person, 2)
    (line,) = second.lines
    assert (line.kind, line.amount_nanos, when(line.period_start)) == (Line.KIND_SUBSCRIPTION, PRO, end)
    assert second.number > first.number
    assert when((await months.subscription(person)).current_period_end) == proration.after(end, 1)
    # Three months in one leap are three invoices.
    months.advance_to(proration.after(end, 3))
    assert [i.due_nanos for i in (await months.until_invoices(person, 5))[2:]] == [PRO] * 3
    await months.check()


async def test_there_and_back_at_once_nets_what_passed_between(months: Months) -> None:
    person = await months.person(card="pm_card_visa")
    await months.change(person, "pro")
    months.advance(14 * DAY)
    await months.until_invoices(person, 1)
    span = period(await months.subscription(person))
    before = await months.balance(person)
    asked = await months.change(person, "pay_as_you_go", ask=True)
    assert (await months.subscription(person)).plan_id == "pro"
    down = await months.change(person, "pay_as_you_go")
    credited = await months.get(person, down.invoice_id)
    assert credited.due_nanos == down.credit_nanos == await months.balance(person) * -1 + before
    assert credited.status == Invoice.STATUS_PAID
    up = await months.change(person, "pro")
    per_second = PRO // span.seconds + 1
    assert abs(asked.credit_nanos - down.credit_nanos) <= 5 * per_second
    assert abs(up.charge_nanos + down.credit_nanos) <= 5 * per_second
    await months.until_invoices(person, 3)
    await months.check()


async def test_an_upgrade_is_charged_at_once_by_the_second(months: Months) -> None:
    person = await months.person(card="pm_card_visa")
    await months.change(person, "pro")
    months.advance(14 * DAY)
    await months.until_invoices(person, 1)
    request = plans_pb2.SetEnterpriseTermsRequest(
        org_id=person.org_id, monthly_nanos=100 * USD, platform_fee_ppm=50_000
    )
    with pytest.raises(grpc.RpcError) as refused:
        await months.books.plans.SetEnterpriseTerms(request, metadata=person.metadata)
    assert from_rpc_error(refused.value).reason in ("ROLE_MISSING", "SCOPE_MISSING")
    made = await months.books.plans.SetEnterpriseTerms(request, metadata=await months.books.admin())
    assert (made.subscription.plan_id, made.subscription.platform_fee_ppm) == ("enterprise", 50_000)
    _, invoice = await months.until_invoices(person, 2)
    credit, charge = (x.amount_nanos for x in invoice.lines)
    assert credit < 0 < charge
    assert abs(charge + 5 * credit) <= 5, "the same seconds at five times the price"
    months.advance_to(when(made.subscription.current_period_end))
    assert (await months.until_invoices(person, 3))[-1].due_nanos == 100 * USD
    await months.check()


async def test_a_plan_that_is_not_to_be_had_is_named(months: Months) -> None:
    person = await months.person()
    for plan in ("enterprise", "gold"):
        with pytest.raises(grpc.RpcError) as refused:
            await months.change(person, plan)
        assert [v.field for v in from_rpc_error(refused.value).violations] == ["plan_id"]


async def test_a_cancellation_at_the_end_can_be_taken_back(months: Months) -> None:
    person = await months.person(card="pm_card_visa")
    await months.change(person, "pro")
    months.advance(14 * DAY)
    await months.until_invoices(person, 1)
    assert (await months.cancel(person)).cancel_at_period_end
    assert not (await months.change(person, "pro")).subscription.cancel_at_period_end
    await months.cancel(person)
    months.advance_to(when((await months.subscription(person)).current_period_end))
    await months.until_plan(person, "free")
    assert len(await months.invoices(person)) == 1


async def test_a_card_that_fails_is_tried_again_and_then_the_plan_ends(months: Months) -> None:
    person = await months.person(card="pm_card_chargeDeclined")
    await months.change(person, "pro")
    months.advance(14 * DAY)
    await months.until_plan(person, "pro", Subscription.STATUS_PAST_DUE)
    (invoice,) = await months.until_invoices(person, 1, Invoice.STATUS_OPEN)
    first = months.now()
    for attempts, days in ((1, 1), (2, 3), (3, 5), (4, 7)):

        async def tried(attempts: int = attempts) -> Invoice | None:
            got = await months.get(person, invoice.invoice_id)
            return got if got.attempts == attempts else None

        due = when((await months.until(tried)).next_attempt_at)
        assert abs((due - first).total_seconds() - days * 86_400) < 30
        with pytest.raises(grpc.RpcError) as refused:
            await months.change(person, "pay_as_you_go")
        assert from_rpc_error(refused.value).reason == "SUBSCRIPTION_PAST_DUE"
        months.advance_to(due)
    await months.until_plan(person, "free")
    (invoice,) = await months.until_invoices(person, 1, Invoice.STATUS_UNCOLLECTIBLE)
    assert (invoice.attempts, invoice.HasField("next_attempt_at")) == (5, False)
    assert await months.balance(person) == 0
    await months.check()


async def test_another_card_within_the_grace_makes_it_active_again(months: Months) -> None:
    person = await months.person(card="pm_card_chargeDeclined")
    await months.change(person, "pro")
    months.advance(14 * DAY)
    await months.until_plan(person, "pro", Subscription.STATUS_PAST_DUE)
    await months.books.card(person, "pm_card_visa")
    months.advance(DAY)
    await months.until_plan(person, "pro")
    (invoice,) = await months.until_invoices(person, 1)
    assert invoice.attempts == 1
    await months.check()


async def test_ten_changes_at_once_are_one_after_the_other(months: Months) -> None:
    person = await months.person(card="pm_card_visa")
    await months.change(person, "pro")
    months.advance(14 * DAY)
    await months.until_invoices(person, 1)
    plans = ["pay_as_you_go", "pro"] * 5
    await asyncio.gather(*(months.change(person, plan) for plan in plans))

    async def settled() -> bool:
        return all(i.status == Invoice.STATUS_PAID for i in await months.invoices(person))

    await months.until(settled)
    invoices = [await months.get(person, i.invoice_id) for i in await months.invoices(person)]
    assert len({i.number for i in invoices}) == len(invoices)
    await months.check()
