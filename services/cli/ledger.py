"""`mercat ledger`: the books, for administrators."""

import typer
from mercat.billing.v1 import billing_pb2

from services.cli import output
from services.cli.command import Session, command
from services.cli.usage import counted
from services.common import money


def register(app: typer.Typer) -> None:
    ledger = typer.Typer(help="The books.", no_args_is_help=True, rich_markup_mode="rich", callback=lambda: None)
    ledger.command("check")(command(check))
    app.add_typer(ledger, name="ledger")


def check(session: Session) -> int:
    """Recomputes the books from their entries and from the recorded calls. Exit status 1 when anything disagrees.

    Example: mercat ledger check --profile admin
    """
    answer = session.client.billing.CheckLedger(billing_pb2.CheckLedgerRequest(), timeout=300)
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
