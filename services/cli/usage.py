"""`mercat usage`: calls as they were counted."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from mercat.usage.v1 import usage_pb2
from typer.core import TyperGroup

from services.cli import output
from services.cli.command import Session, command
from services.cli.paging import Limit, gather
from services.cli.times import parse_time
from services.cli.usage_query import query
from services.common import money
from services.common.rpc.tags import show as show_tags

_METERS = ["requests", "rows", "input_bytes"]
_HEADINGS = ["time (UTC)", "model", "version", "units", "cost", "latency", "request"]


class _Calls(TyperGroup):
    """Takes `usage REQUEST` as well as `usage query`: what comes first is a request unless it is a command's name."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] in self.commands:
            args = ["", *args]  # no request
        else:
            ctx.allow_interspersed_args = True
        return super().parse_args(ctx, args)


def register(app: typer.Typer) -> None:
    group = typer.Typer(
        cls=_Calls, callback=command(usage), invoke_without_command=True, rich_markup_mode="rich",
        subcommand_metavar="[query …]",
    )  # fmt: skip
    group.command()(command(query))
    app.add_typer(group, name="usage")


def usage(
    session: Session,
    ctx: typer.Context,
    request: Annotated[str, typer.Argument(metavar="[REQUEST]", help="One call, by its request id.")] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show calls as they are recorded.")] = False,
    summary: Annotated[bool, typer.Option("--summary", help="Totals by model.")] = False,
    publisher: Annotated[bool, typer.Option("--publisher", help="Calls to your models instead of your calls.")] = False,
    model: Annotated[str, typer.Option(help="Only calls to publisher/name.")] = "",
    since: Annotated[str, typer.Option(help="From when on: 2026-01-31, or 12h for the last twelve hours.")] = "",
    until: Annotated[str, typer.Option(help="Up to when.")] = "",
    limit: Limit = 50,
) -> None:
    """Lists calls and what they cost, newest first.

    Examples:

      mercat usage --since 1h

      mercat usage --summary --publisher

      mercat usage --follow --json | jq -r .costNanos

      mercat usage query --meter input_tokens --by model,tag --bucket day
    """
    if ctx.invoked_subcommand:
        return
    if follow and (summary or publisher or model or request or since or until):
        raise typer.BadParameter("--follow shows all of your own calls from now on and takes no filter")
    if summary and (model or request):
        raise typer.BadParameter("--summary is over all models and takes no model and no request")
    if request:
        _one(session, request)
    elif follow:
        _follow(session)
    elif summary:
        _summary(session, publisher, since, until)
    else:
        _list(session, publisher, model, since, until, limit)


def _view(publisher: bool) -> usage_pb2.UsageView.ValueType:
    return usage_pb2.USAGE_VIEW_PUBLISHER if publisher else usage_pb2.USAGE_VIEW_CONSUMER


def _times(to: usage_pb2.ListUsageRequest | usage_pb2.SummarizeUsageRequest, since: str, until: str) -> None:
    now = datetime.now(UTC)
    if since:
        to.start_time.FromDatetime(parse_time(since, now))
    if until:
        to.end_time.FromDatetime(parse_time(until, now))


def show_units(units: Mapping[str, int]) -> str:
    """`1 request, 3 rows, 1,024 input bytes`."""
    order = sorted(units.items(), key=lambda unit: (_METERS.index(unit[0]) if unit[0] in _METERS else 99, unit[0]))
    return ", ".join(counted(count, meter.removesuffix("s").replace("_", " ")) for meter, count in order)


def show_change(correction: usage_pb2.UsageCorrection) -> str:
    """`-0.05 USD: -20 output tokens, +1 row`."""
    units = ", ".join(f"{n:+,} {meter.replace('_', ' ')}" for meter, n in sorted(correction.units.items()))
    return f"{money.show(correction.cost_nanos)}: {units}"


def counted(count: int, thing: str) -> str:
    """`1 call`, `1,000 calls`."""
    return f"{count:,} {thing}" + ("" if count == 1 else "s")


def _row(record: usage_pb2.UsageRecord) -> tuple[str, ...]:
    cost = "test" if record.test else money.show(record.cost_nanos)
    return (
        output.when(record.timestamp), record.model, record.version, show_units(record.units), cost,
        output.duration(record.latency_us), record.request_id,
    )  # fmt: skip


def _one(session: Session, request_id: str) -> None:
    record = session.client.usage.GetUsageRecord(usage_pb2.GetUsageRecordRequest(request_id=request_id)).record
    if session.json:
        output.say_json(record)
        return
    output.facts([
        *zip(_HEADINGS, _row(record), strict=True),
        ("tags", show_tags(sorted(record.tags.items()))), ("key", record.key_id), ("price", record.price_id),
        ("region", record.region),
        *(("corrected", f"{output.when(c.create_time)}: {show_change(c)} ({c.reason})") for c in record.corrections),
    ])  # fmt: skip


def _list(session: Session, publisher: bool, model: str, since: str, until: str, limit: int) -> None:
    request = usage_pb2.ListUsageRequest(view=_view(publisher), model=session.full_name(model) if model else "")
    _times(request, since, until)
    answer = gather(session.client.usage.ListUsage, request, "records", limit)
    if session.json:
        output.say_json(answer)
        return
    output.table(_HEADINGS, [_row(r) for r in answer.records], empty="No calls yet.", right=["cost", "latency"])
    if answer.next_page_token:
        output.say("[dim]There are more; ask with --limit or --until.[/]")


def _summary(session: Session, publisher: bool, since: str, until: str) -> None:
    request = usage_pb2.SummarizeUsageRequest(view=_view(publisher))
    _times(request, since, until)
    answer = session.client.usage.SummarizeUsage(request)
    if session.json:
        output.say_json(answer)
        return
    output.table(
        ["model", "calls", "cost", "mean latency", "units"],
        [
            (m.model, f"{m.calls:,}", money.show(m.cost_nanos), output.duration(m.mean_latency_us), show_units(m.units))
            for m in answer.models
        ],
        empty="No calls in that time.",
        right=["calls", "cost", "mean latency"],
    )
    output.say(f"[bold]{counted(answer.calls, 'call')}, {money.show(answer.cost_nanos)}[/]")


def _follow(session: Session) -> None:
    if not session.json:
        output.console(error=True).print("[dim]Calls are shown as they are recorded; Ctrl-C ends.[/]")
    for message in session.client.usage.StreamUsage(usage_pb2.StreamUsageRequest()):
        if session.json:
            output.say_json(message.record, line=True)
        else:
            typer.echo("  ".join(output.clean(cell) for cell in _row(message.record)))
