"""`mercat plan`: what the organisation pays by the month."""

from typing import Annotated

import typer
from mercat.billing.v1 import plans_pb2

from services.cli import output
from services.cli.command import Session, command
from services.cli.paging import gather
from services.common import money

Subscription = plans_pb2.Subscription
_MOST = 1000


def register(app: typer.Typer) -> None:
    plan = typer.Typer(
        help="What you pay by the month.", no_args_is_help=True, rich_markup_mode="rich", callback=lambda: None
    )
    for name, function in (
        ("list", list_plans), ("show", show), ("change", change), ("cancel", cancel), ("enterprise", enterprise),
        ("offer", offer), ("subscribe", subscribe),
    ):  # fmt: skip
        plan.command(name)(command(function))
    app.add_typer(plan, name="plan")


def list_plans(session: Session) -> None:
    """Lists the plans there are.

    Example: mercat plan list
    """
    answer = gather(session.client.plans.ListPlans, plans_pb2.ListPlansRequest(), "plans", _MOST)
    if session.json:
        output.say_json(answer)
        return
    output.table(
        ["plan", "name", "a month", "trial", "of what your models earn"],
        [
            (
                p.plan_id, p.name, money.show(p.monthly_nanos), f"{p.trial_days} days" if p.trial_days else "",
                f"{p.platform_fee_ppm / 10_000:g} % is the platform's",
            )
            for p in answer.plans
        ],
        empty="There are no plans.", right=["a month"],
    )  # fmt: skip


def show(session: Session) -> None:
    """Shows your plan, and the models you are subscribed to.

    Example: mercat plan show
    """
    answer = session.client.plans.GetSubscription(plans_pb2.GetSubscriptionRequest())
    if session.json:
        output.say_json(answer)
        return
    _show(answer.subscription)
    if answer.models:
        output.table(
            ["model", "a month", "status", "until", "subscription"],
            [
                (
                    s.model, money.show(s.monthly_nanos), _status(s), output.when(s.current_period_end),
                    s.subscription_id,
                )
                for s in answer.models
            ],
            empty="", right=["a month"],
        )  # fmt: skip


def change(
    session: Session,
    plan: Annotated[str, typer.Argument(help="One of `mercat plan list`.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would cost.")] = False,
) -> None:
    """Goes to another plan at once. What is left of the period is charged and credited by the second.

    Examples:

      mercat plan change pro --dry-run

      mercat plan change pro
    """
    answer = session.client.plans.ChangePlan(plans_pb2.ChangePlanRequest(plan_id=plan, validate_only=dry_run))
    if session.json:
        output.say_json(answer)
        return
    if answer.credit_nanos or answer.charge_nanos:
        output.facts([
            ("for the rest of the period", money.show(answer.charge_nanos)),
            ("credited for the old plan", money.show(-answer.credit_nanos) if answer.credit_nanos else ""),
            ("invoice", answer.invoice_id),
        ])  # fmt: skip
    if dry_run:
        output.say("Nothing was changed.")
    else:
        _show(answer.subscription)


def cancel(
    session: Session,
    model: Annotated[str, typer.Argument(help="End the subscription to this model, instead of the plan.")] = "",
    now: Annotated[bool, typer.Option("--now", help="At once; what is paid of the rest is credited.")] = False,
) -> None:
    """Ends your plan, or a model's subscription, at the end of the period.

    Examples:

      mercat plan cancel

      mercat plan cancel acme/reader --now
    """
    mine = session.client.plans.GetSubscription(plans_pb2.GetSubscriptionRequest())
    found = next((s for s in mine.models if s.model == model), None) if model else mine.subscription
    if found is None:
        raise typer.BadParameter(f"you are not subscribed to {model}", param_hint="MODEL")
    request = plans_pb2.CancelSubscriptionRequest(subscription_id=found.subscription_id, at_once=now)
    answer = session.client.plans.CancelSubscription(request).subscription
    if session.json:
        output.say_json(answer)
        return
    what = model or f"the plan {answer.plan_id}"
    last = answer.trial_end if answer.status == Subscription.STATUS_TRIALING else answer.current_period_end
    when = "now" if now else f"at {output.when(last)} UTC"
    output.say(f"Canceled: {what} ends {when}.")


def enterprise(
    session: Session,
    organisation: Annotated[str, typer.Argument(help="Whose terms these are: org_…")],
    monthly: Annotated[str, typer.Option(help="US dollars a month, such as 500.")],
    fee: Annotated[float, typer.Option(min=0, max=100, help="Percent that the platform keeps of earnings.")] = 20.0,
) -> None:
    """Puts an organisation on the enterprise plan under terms of its own; for administrators.

    Example: mercat plan enterprise org_06ba… --monthly 500 --fee 5 --profile admin
    """
    request = plans_pb2.SetEnterpriseTermsRequest(
        org_id=organisation, monthly_nanos=_nanos(monthly, "--monthly"), platform_fee_ppm=round(fee * 10_000)
    )
    answer = session.client.plans.SetEnterpriseTerms(request).subscription
    if session.json:
        output.say_json(answer)
    else:
        _show(answer)


def offer(
    session: Session,
    model: Annotated[str, typer.Argument(help="Your model.")],
    monthly: Annotated[str, typer.Argument(help="US dollars a month, such as 9.99; 0: offer it no longer.")],
    off: Annotated[
        float,
        typer.Option(min=0, max=100, help="Percent off the price of a subscriber's calls; 100: they are in the fee."),
    ] = 0.0,
) -> None:
    """Offers your model by the month.

    Examples:

      mercat plan offer reader 9.99

      mercat plan offer reader 9.99 --off 50
    """
    request = plans_pb2.SetModelOfferRequest(
        model=session.full_name(model), monthly_nanos=_nanos(monthly, "MONTHLY"), discount_ppm=round(off * 10_000)
    )
    answer = session.client.plans.SetModelOffer(request).offer
    if session.json:
        output.say_json(answer)
    elif answer.monthly_nanos:
        off_calls = f", and calls for {answer.discount_ppm / 10_000:g} % less" if answer.discount_ppm else ""
        output.say(f"{answer.model} can be had for {money.show(answer.monthly_nanos)} a month{off_calls}.")
    else:
        output.say(f"{answer.model} is not offered by the month.")


def subscribe(session: Session, model: Annotated[str, typer.Argument(help="publisher/name")]) -> None:
    """Subscribes to a model by the month; what is left of your period is charged now.

    Example: mercat plan subscribe acme/reader
    """
    answer = session.client.plans.SubscribeToModel(plans_pb2.SubscribeToModelRequest(model=model))
    if session.json:
        output.say_json(answer)
        return
    s = answer.subscription
    price = money.show(s.monthly_nanos)
    off = f", calls for {s.discount_ppm / 10_000:g} % less" if s.discount_ppm else ""
    output.say(f"Subscribed to {s.model} for {price} a month{off}; the invoice is {answer.invoice_id}.")


def _nanos(text: str, hint: str) -> int:
    try:
        return money.parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=hint) from None


def _status(s: Subscription) -> str:
    status = Subscription.Status.Name(s.status).removeprefix("STATUS_").lower().replace("_", " ")
    return f"{status}, ends with the period" if s.cancel_at_period_end else status


def _show(s: Subscription) -> None:
    output.facts([
        ("plan", s.plan_id), ("status", _status(s)), ("a month", money.show(s.monthly_nanos)),
        ("kept of earnings", f"{s.platform_fee_ppm / 10_000:g} %"), ("trial until", output.when(s.trial_end)),
        ("period", f"{output.when(s.current_period_start)} to {output.when(s.current_period_end)} UTC"),
        ("subscription", s.subscription_id),
    ])  # fmt: skip
