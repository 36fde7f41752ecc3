"""`mercat ledger`: the books, for administrators."""

from typing import Annotated

import typer
from mercat.billing.v1 import billing_pb2, corrections_pb2

from services.cli import output
from services.cli.command import Session, command
from services.cli.proving import prove
from services.cli.usage import counted, show_change, show_units
from services.common import money


def register(app: typer.Typer) -> None:
    ledger = typer.Typer(help="The books.", no_args_is_help=True, rich_markup_mode="rich", callback=lambda: None)
    ledger.command("check")(command(check))
    ledger.command("prove")(command(prove))
    ledger.command("correct")(command(correct))
    app.add_typer(ledger, name="ledger")


def check(session: Session) -> int:
    """Recomputes all of the books from their entries and the recorded calls; `prove` asks the payment provider, too,
    and is about a month. Exit status 1 when anything disagrees.

    Example: mercat ledger check --profile admin
    """
    answer = session.client.billing.CheckLedger(billing_pb2.CheckLedgerRequest(), timeout=3600)
    if session.json:
        output.say_json(answer)
        return 0 if answer.clean else 1
    checked = f"{counted(answer.postings_checked, 'posting')} and {counted(answer.usage_checked, 'call')} checked"
    through = output.when(answer.settled_through)
    balances = sorted(answer.balances_nanos.items())
    output.table(["accounts", "hold"], [(kind, money.show(nanos)) for kind, nanos in balances], empty="")
    if answer.clean:
        output.say(f"[green]The books agree:[/] {checked}" + (f", settled through {through} UTC." if through else "."))
        return 0
    output.say(f"[red]The books disagree:[/] {checked}.")
    output.table(["code", "about", "what"], [(d.code, d.subject, d.message) for d in answer.discrepancies], empty="")
    return 1


def correct(
    session: Session,
    request: Annotated[str, typer.Argument(help="The call, by its request id.")],
    reason: Annotated[str, typer.Option(help="Why; shown to who called and whose model it was.")],
    unit: Annotated[
        list[str] | None, typer.Option(metavar="METER=COUNT", help="What was counted in truth. Repeatable.")
    ] = None,
    void: Annotated[bool, typer.Option("--void", help="The call counts and costs nothing.")] = False,
) -> None:
    """Says what a call counted in truth: the difference is credited or debited at the price that it had.

    Examples:

      mercat ledger correct req_06ba… --unit output_tokens=120 --reason "counted twice"

      mercat ledger correct req_06ba… --void --reason "the answer was cut"
    """
    asked = corrections_pb2.CorrectUsageRequest(request_id=request, reason=reason, void=void)
    for one in unit or ():
        meter, _, count = one.partition("=")
        if not meter or not count.isdecimal():
            raise typer.BadParameter(f"{one!r}: write it as output_tokens=120", param_hint="--unit")
        asked.units[meter] = int(count)
    answer = session.client.corrections.CorrectUsage(asked)
    if session.json:
        output.say_json(answer)
        return
    output.facts([
        ("correction", answer.correction.correction_id), ("change", show_change(answer.correction)),
        ("units now", show_units(answer.units)), ("cost now", money.show(answer.cost_nanos)),
    ])  # fmt: skip
