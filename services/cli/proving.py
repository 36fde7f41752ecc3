"""`mercat ledger prove`: the books of a month, counted apart and compared."""

from collections.abc import Iterable
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Annotated

import typer
from mercat.billing.v1 import proof_pb2

from services.cli import output
from services.cli.command import Session
from services.cli.times import parse_time
from services.common import money

_PATIENCE = 3600.0  # seconds


def prove(
    session: Session,
    period: Annotated[str, typer.Option(metavar="YYYY-MM", help="The month; this one when nothing is said.")] = "",
    since: Annotated[str, typer.Option("--from", metavar="TIME", help="Instead: 30d, 2026-11-01, …")] = "",
    until: Annotated[str, typer.Option(metavar="TIME", help="Until just before.")] = "",
) -> int:
    """Counts usage, ledger, invoices, payments (also at the provider) and payouts of a month apart, and names the rows
    that disagree. Exit status 1 when anything does, or could not be asked.

    Examples:

      mercat ledger prove --period 2026-11 --profile admin

      mercat ledger prove --from 24h --json --profile admin
    """
    request, now = proof_pb2.ProveLedgerRequest(period=period), datetime.now(UTC)
    if since:
        request.start_time.FromDatetime(parse_time(since, now))
    if until:
        request.end_time.FromDatetime(parse_time(until, now))
    proof = _follow(session.client.proof.ProveLedger(request, timeout=_PATIENCE), quiet=session.json)
    if session.json:
        output.say_json(proof)
    else:
        _show(proof)
    return 0 if proof.clean else 1


def _follow(messages: Iterable[proof_pb2.ProveLedgerResponse], *, quiet: bool) -> proof_pb2.Proof:
    """Says on standard error how far it is; a terminal shows it in one line, a file has a line for each thing done."""
    told, doing = output.console(error=True), ""
    shown = told.status("beginning …") if told.is_terminal and not quiet else None
    with shown or nullcontext():
        for message in messages:
            if message.HasField("proof"):
                return message.proof
            if shown is not None:
                shown.update(f"{message.doing} … [dim]{message.rows:,} rows read[/]")
            elif message.doing != doing and not quiet:
                told.print(f"{message.doing} …")
            doing = message.doing
    raise AssertionError("a proof ends with its result")


def _show(proof: proof_pb2.Proof) -> None:
    output.table(
        ["section", "counted", "rows", "amount", "differences"],
        [
            (s.name if not n else "", c.name, f"{c.rows:,}", money.show(c.nanos), f"{s.differences:,}" if not n else "")
            for s in proof.sections
            for n, c in enumerate(s.counts or [proof_pb2.ProofCount(name="nothing")])
        ],
        empty="", right=["rows", "amount", "differences"],
    )  # fmt: skip
    span = f"{output.when(proof.start_time)} until {output.when(proof.end_time)} UTC, in {proof.took_ms / 1000:.1f} s"
    for text in proof.unproven:
        output.say(f"[yellow]Not proven:[/] {output.clean(text)}")
    if proof.clean:
        output.say(f"[green]The books agree:[/] {span}, settled through {output.when(proof.settled_through)} UTC.")
        return
    if proof.discrepancies:
        output.say(f"[red]The books disagree:[/] {span}.")
    output.table(
        ["section", "code", "about", "what"],
        [(d.section, d.code, d.subject, d.message) for d in proof.discrepancies], empty="",
    )  # fmt: skip
    total = sum(s.differences for s in proof.sections)
    if total > len(proof.discrepancies):
        output.say(f"… and {total - len(proof.discrepancies):,} more.")
