"""`mercat audit`: sensitive acts, and the proof that nobody changed what was written of them."""

import csv
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from google.protobuf import json_format
from mercat.auth.v1 import audit_pb2 as pb

from services.cli import output
from services.cli.command import Session, command
from services.cli.paging import Limit, gather
from services.cli.times import parse_time
from services.common.audit_chain import NotGenuine, read_head, verify

_COLUMNS = (
    "sequence", "created_at", "user_id", "key_id", "action", "resource_type", "resource_id", "request_id", "ip_address",
    "user_agent", "metadata", "audit_id", "chain", "hash",
)  # fmt: skip
_PAGE = 1000
_KEYS = "File of public keys, as `mercat audit keys` prints them; without it the server is asked."


def register(app: typer.Typer) -> None:
    audit = typer.Typer(
        help="Sensitive acts: who did what, from where.", no_args_is_help=True, rich_markup_mode="rich"
    )  # fmt: skip
    audit.command("list")(command(list_entries))
    audit.command("export")(command(export))
    audit.command("verify")(command(check))
    audit.command("keys")(command(keys))
    app.add_typer(audit, name="audit")


def list_entries(
    session: Session,
    action: Annotated[str, typer.Option(help="Only this RPC, such as CreateApiKey.")] = "",
    user: Annotated[str, typer.Option(help="Only by this user or service account, by id.")] = "",
    key: Annotated[str, typer.Option(help="Only by this key, key_….")] = "",
    resource: Annotated[str, typer.Option(help="Only about this, by id.")] = "",
    since: Annotated[str, typer.Option(help="From when on: 2026-01-31, or 12h for the last twelve hours.")] = "",
    until: Annotated[str, typer.Option(help="Up to when.")] = "",
    denied: Annotated[bool, typer.Option("--denied", help="Only attempts that were refused.")] = False,
    platform: Annotated[bool, typer.Option("--platform", help="Of every organisation; for admins.")] = False,
    details: Annotated[bool, typer.Option("--details", help="Also what was asked for, before and after.")] = False,
    limit: Limit = 50,
) -> None:
    """Lists sensitive acts in the current organisation, newest first.

    Examples:

      mercat audit list --since 1d

      mercat audit list --action SetMemberRole --details

      mercat audit list --denied --since 7d
    """
    chosen = pb.AuditFilter(action=action, user_id=user, key_id=key, resource_id=resource, denied=denied)
    now = datetime.now(UTC)
    if since:
        chosen.start_time.FromDatetime(parse_time(since, now))
    if until:
        chosen.end_time.FromDatetime(parse_time(until, now))
    answer: Any
    if platform:
        all_of = pb.ListPlatformAuditEntriesRequest(filter=chosen)
        answer = gather(session.client.audit.ListPlatformAuditEntries, all_of, "entries", limit)
    else:
        answer = gather(
            session.client.audit.ListAuditEntries, pb.ListAuditEntriesRequest(filter=chosen), "entries", limit
        )
    if session.json:
        output.say_json(answer)
        return
    output.table(
        ["time (UTC)", "who", "did", "to", "from", *(["details"] if details else [])],
        [
            (
                output.when(e.created_at), e.key_id or e.user_id or "nobody", _did(e),
                f"{e.resource_type} {e.resource_id}".strip(), e.ip_address, *([_json(e.metadata)] if details else []),
            )
            for e in answer.entries
        ],
        empty="Nothing is written there.",
    )  # fmt: skip


def _did(entry: pb.AuditEntry) -> str:
    act = entry.action.rpartition("/")[2]
    denied = json_format.MessageToDict(entry.metadata).get("denied")
    if denied is None:
        return act
    times = f", {denied['attempts']} times" if denied["attempts"] != "1" else ""
    return f"{act} (refused: {denied['reason']}{times})"


def export(
    session: Session,
    out: Annotated[Path | None, typer.Option(help="Write to this file instead of standard output.")] = None,
    csv_: Annotated[bool, typer.Option("--csv", help="A table, for people: it cannot be verified.")] = False,
) -> None:
    """Writes the whole audit log of the current organisation, oldest first, as JSON Lines: an entry a line, then what
    was signed of them. `mercat audit verify` checks the file, also later and elsewhere.

    Examples:

      mercat audit export --out acme.jsonl && mercat audit verify acme.jsonl --keys keys.json

      mercat audit export --csv > acme.csv
    """
    heads = session.client.audit.GetAuditHeads(pb.GetAuditHeadsRequest()).heads  # before what may come meanwhile
    count = 0
    with _writing(out) as file:
        table = csv.writer(file) if csv_ else None
        if table is not None:
            table.writerow(_COLUMNS)
        for entry in _entries(session):
            count += 1
            if table is not None:
                table.writerow(_cells(entry))
            else:
                file.write(_line("entry", entry))
        if table is None:
            file.writelines(_line("head", head) for head in heads)
    if out is not None:
        if session.json:
            output.say_json({"entries": str(count)})
        else:
            output.say(f"{count} entries are in {out}.")


def check(
    session: Session,
    file: Annotated[Path | None, typer.Argument(help="An export; without it the log itself is read.")] = None,
    keys: Annotated[Path | None, typer.Option(help=_KEYS)] = None,
) -> int:
    """Checks that no entry was altered, taken out or cut off, and that the log was not written anew. With a file and
    --keys nobody is asked. Exit status 1 when it is not so.

    Examples:

      mercat audit verify

      mercat audit keys > keys.json && mercat audit verify acme.jsonl --keys keys.json
    """
    known = (_read_keys(keys) if keys is not None else _keys(session)).keys
    heads: list[pb.AuditHead] = []
    claimed: Iterable[pb.AuditHead]
    if file is None:
        claimed = session.client.audit.GetAuditHeads(pb.GetAuditHeadsRequest()).heads
        entries = _entries(session)
    else:
        claimed = [head for kind, head in _read(file) if kind == "head"]
        entries = (entry for kind, entry in _read(file) if kind == "entry")
    refused = []
    for head in claimed:
        try:
            heads.append(read_head(head.signed, known))
        except NotGenuine as error:
            refused.append(f"a head of entry {head.sequence} is not genuine: {error}")
    first = next(iter(entries), None)
    chain = first.chain if first is not None else heads[0].chain if heads else ""
    report = verify(chain, _again(first, entries), heads)
    report.problems[:0] = refused
    if session.json:
        output.say_json({
            "intact": not report.problems, "chain": chain, "entries": str(report.entries), "first": str(report.first),
            "last": str(report.last), "signed": str(report.signed), "erased": str(report.erased),
            "problems": report.problems,
        })  # fmt: skip
    elif report.problems:
        output.say("[red]Tampered with:[/]")
        for problem in report.problems:
            output.say(f"  • {output.clean(problem)}")
    else:
        output.facts([
            ("organisation", chain), ("entries", f"{report.first} to {report.last}" if report.entries else "none"),
            ("signed", f"up to {report.signed}" if report.signed else "none yet"),
            ("erased", f"details of {report.erased}, which were old" if report.erased else ""),
        ])  # fmt: skip
        output.say("[green]Intact:[/] nothing was altered, taken out or cut off up to what is signed.")
    return 1 if report.problems else 0


def keys(session: Session) -> None:
    """Prints the public keys, to check exports with later and elsewhere.

    Example: mercat audit keys > keys.json
    """
    output.say_json(_keys(session))


def _keys(session: Session) -> pb.GetAuditKeysResponse:
    return session.client.audit.GetAuditKeys(pb.GetAuditKeysRequest())


def _read_keys(path: Path) -> pb.GetAuditKeysResponse:
    try:
        return json_format.Parse(path.read_text(), pb.GetAuditKeysResponse(), ignore_unknown_fields=True)
    except (OSError, UnicodeDecodeError, json_format.ParseError) as error:
        raise typer.BadParameter(f"{path} holds no keys: {error}", param_hint="--keys") from None


def _entries(session: Session) -> Iterator[pb.AuditEntry]:
    """All of the current organisation's, oldest first."""
    request = pb.ListAuditEntriesRequest(oldest_first=True, page_size=_PAGE)
    while True:
        answer = session.client.audit.ListAuditEntries(request)
        yield from answer.entries
        if not answer.next_page_token:
            return
        request.page_token = answer.next_page_token


def _again(first: pb.AuditEntry | None, rest: Iterator[pb.AuditEntry]) -> Iterable[pb.AuditEntry]:
    if first is not None:
        yield first
    yield from rest


def _read(path: Path) -> Iterator[tuple[str, Any]]:
    """The lines of an export. Raises BadParameter for what is none."""
    kinds = {"entry": pb.AuditEntry, "head": pb.AuditHead}
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                [(kind, value)] = json.loads(line).items()
                yield kind, json_format.ParseDict(value, kinds[kind]())
    except (OSError, ValueError, KeyError, AttributeError, json_format.ParseError) as error:
        raise typer.BadParameter(f"{path} is no export: {error}", param_hint="FILE") from None


def _line(kind: str, value: pb.AuditEntry | pb.AuditHead) -> str:
    return json.dumps({kind: json_format.MessageToDict(value)}, ensure_ascii=False, separators=(",", ":")) + "\n"


def _json(value: Any) -> str:
    return json.dumps(json_format.MessageToDict(value), ensure_ascii=False)


def _cells(entry: pb.AuditEntry) -> list[str]:
    """A row for a spreadsheet, in which no cell is a formula (CSV injection)."""
    special = {
        "created_at": entry.created_at.ToJsonString(), "metadata": _json(entry.metadata), "hash": entry.hash.hex()
    }  # fmt: skip
    cells = [special.get(name) or str(getattr(entry, name)) for name in _COLUMNS]
    return [f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell for cell in cells]


@contextmanager
def _writing(path: Path | None) -> Iterator[TextIO]:
    if path is None:
        yield sys.stdout
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        yield file
