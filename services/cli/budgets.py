"""`mercat budgets`: the most that calls may cost in a day or a month."""

from typing import Annotated

import typer
from mercat.billing.v1 import budgets_pb2

from services.cli import output
from services.cli.command import Session, command
from services.cli.paging import Limit, gather
from services.cli.wallet import parse_money
from services.common import money

_PERIODS = {"daily": budgets_pb2.BUDGET_PERIOD_DAILY, "monthly": budgets_pb2.BUDGET_PERIOD_MONTHLY}
_NAMES = {period: name for name, period in _PERIODS.items()}
Name = Annotated[str, typer.Argument(help="What you will know it by: small letters, digits, hyphens.")]


def register(app: typer.Typer) -> None:
    budgets = typer.Typer(
        help="The most that calls may cost in a day or a month.", no_args_is_help=True, rich_markup_mode="rich"
    )
    budgets.command("list")(command(list_budgets))
    budgets.command("set")(command(set_budget))
    budgets.command("delete")(command(delete))
    app.add_typer(budgets, name="budgets")


def list_budgets(session: Session, limit: Limit = 50) -> None:
    """Lists your budgets, what is spent and what is left of them, and when they begin anew.

    Example: mercat budgets list
    """
    answer = gather(session.client.budgets.ListBudgets, budgets_pb2.ListBudgetsRequest(), "budgets", limit)
    if session.json:
        output.say_json(answer)
        return
    output.table(
        ["budget", "of", "period", "limit", "spent", "left", "told at", "begins anew (UTC)"],
        [
            (
                one.name, one.key_id or one.model or "all calls", _NAMES[one.period],
                money.show(one.limit_nanos, one.currency) + (" (not enforced)" if one.notify_only else ""),
                money.show(one.spent_nanos, one.currency), money.show(one.remaining_nanos, one.currency),
                ", ".join(f"{percent} %" for percent in one.thresholds), output.when(one.reset_time),
            )
            for one in answer.budgets
        ],
        empty="You have no budgets; set one with `mercat budgets set all 100`.",
        right=["limit", "spent", "left"],
    )  # fmt: skip


def set_budget(
    session: Session,
    name: Name,
    amount: Annotated[str, typer.Argument(help="US dollars a period, such as 10 or 12.50.")],
    period: Annotated[str, typer.Option(help="daily or monthly, of UTC.")] = "monthly",
    key: Annotated[str, typer.Option(metavar="KEY", help="Only the calls of this key, key_….")] = "",
    model: Annotated[str, typer.Option(metavar="MODEL", help="Only the calls of this model.")] = "",
    at: Annotated[list[int] | None, typer.Option(help="Be told at this percent of it; repeatable.")] = None,
    notify_only: Annotated[bool, typer.Option("--notify-only", help="Never refuse a call.")] = False,
) -> None:
    """Sets a budget; calls beyond it are refused until the next period.

    Examples:

      mercat budgets set all 100 --at 80 --at 100

      mercat budgets set ci 2.50 --period daily --key key_06b3c…

      mercat budgets set watch 50 --model ada/adder --at 100 --notify-only
    """
    if period not in _PERIODS:
        raise typer.BadParameter(f"there is no period {period!r}; there are {', '.join(_PERIODS)}")
    request = budgets_pb2.SetBudgetRequest(
        name=name, key_id=key, model=session.full_name(model) if model else "", period=_PERIODS[period],
        limit_nanos=parse_money(amount), notify_only=notify_only, thresholds=at or [],
    )  # fmt: skip
    made = session.client.budgets.SetBudget(request).budget
    if session.json:
        output.say_json(made)
        return
    left = f"{money.show(made.remaining_nanos, made.currency)} of {money.show(made.limit_nanos, made.currency)}"
    output.say(f"{made.name}: {left} are left until {output.when(made.reset_time)} UTC.")


def delete(session: Session, name: Name) -> None:
    """Deletes a budget.

    Example: mercat budgets delete ci
    """
    answer = session.client.budgets.DeleteBudget(budgets_pb2.DeleteBudgetRequest(name=name))
    if session.json:
        output.say_json(answer)
    else:
        output.say(f"{name} is deleted.")
