"""`mercat account`: what Mercat knows of you, given to you and forgotten."""

import os
import tempfile
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from mercat.auth.v1 import auth_pb2, privacy_pb2

from services.cli import output
from services.cli.command import Session, command
from services.cli.session import Refusal

_POLL = 0.5  # seconds


def register(app: typer.Typer) -> None:
    account = typer.Typer(
        help="What is known of you: given to you, and forgotten.", no_args_is_help=True, rich_markup_mode="rich"
    )
    for function in (export, delete, erasure, consents, consent):
        account.command()(command(function))
    app.add_typer(account, name="account")


def export(
    session: Session,
    out: Annotated[Path, typer.Option("--out", metavar="FILE.zip", help="Where it goes; replaced when it is there.")],
) -> None:
    """Downloads everything that is known of you: files of JSON lines by service, in a zip archive.

    Example: mercat account export --out me.zip
    """
    stub = session.client.privacy
    made = stub.CreateExport(privacy_pb2.CreateExportRequest()).export
    while made.state != privacy_pb2.Export.STATE_READY:
        time.sleep(_POLL)
        made = stub.GetExport(privacy_pb2.GetExportRequest(export_id=made.export_id)).export
    handle, name = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.")  # its owner's alone
    draft, size = Path(name), 0
    try:
        with os.fdopen(handle, "wb") as file:
            for message in stub.DownloadExport(privacy_pb2.DownloadExportRequest(export_id=made.export_id)):
                size += file.write(message.chunk.data)
        draft.replace(out)
    finally:
        draft.unlink(missing_ok=True)
    if session.json:
        output.say_json({"exportId": made.export_id, "file": str(out), "sizeBytes": str(size)})
    else:
        output.say(f"{out}: {output.size(size)}.")


def delete(
    session: Session,
    yes: Annotated[
        str, typer.Option("--yes", metavar="USERNAME", help="Do not ask: your username says that you mean it.")
    ] = "",
    forfeit: Annotated[bool, typer.Option("--forfeit", help="Give up what the wallet and your earnings hold.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be.")] = False,
) -> None:
    """Closes your account for good, and erases what is known of you. Says first what goes and what stays.

    Examples:

      mercat account delete --dry-run

      mercat account delete

      mercat account delete --yes ada --forfeit
    """
    stub = session.client.privacy
    found = stub.GetDeletion(privacy_pb2.GetDeletionRequest()).deletion
    if dry_run and session.json:
        output.say_json(found)
        return
    if not session.json:
        _tell(found)
    if dry_run:
        return
    if not yes:
        if not output.is_terminal():
            raise Refusal("There is no terminal to ask at.", "say that you mean it with --yes USERNAME")
        username = session.client.auth.GetProfile(auth_pb2.GetProfileRequest()).profile.username
        yes = typer.prompt(f"This cannot be undone. Type your username ({username})", err=True)
    answer = stub.DeleteAccount(privacy_pb2.DeleteAccountRequest(username=yes, forfeit=forfeit))
    session.credentials.forget()
    if session.json:
        output.say_json(answer)
    else:
        output.say(f"Your account is closed. `mercat account erasure {answer.erasure_id}` shows how its erasure goes.")


def _tell(found: privacy_pb2.Deletion) -> None:
    for title, lines in (("Goes", found.goes), ("Stays", found.stays), ("Organisations that go", found.organisations)):
        output.say(f"[bold]{title}[/]")
        for line in lines:
            output.say(f"  · {line}")
    if found.obstacles:
        output.say("[bold]In the way[/]")
        for obstacle in found.obstacles:
            output.say(f"  · {obstacle.message}")


def erasure(session: Session, name: Annotated[str, typer.Argument(metavar="ERASURE", help="Its id, ers_….")]) -> None:
    """Shows how an erasure goes.

    Example: mercat account erasure ers_06b3c…
    """
    found = session.client.privacy.GetErasure(privacy_pb2.GetErasureRequest(erasure_id=name)).erasure
    if session.json:
        output.say_json(found)
        return
    if found.done:
        output.say(f"Done since {output.when(found.done_time)}.")
    else:
        waiting = ", ".join(found.waiting_for) or "last traces in the audit log and the streams"
        output.say(f"Under way: {waiting}.")


class Text(StrEnum):
    """What is agreed to."""

    TERMS = "terms"
    PRIVACY = "privacy"
    MARKETING = "marketing"


_KINDS = {
    Text.TERMS: privacy_pb2.Consent.KIND_TERMS, Text.PRIVACY: privacy_pb2.Consent.KIND_PRIVACY,
    Text.MARKETING: privacy_pb2.Consent.KIND_MARKETING_MAIL,
}  # fmt: skip


def consents(session: Session) -> None:
    """Shows what you agreed to, and when.

    Example: mercat account consents
    """
    answer = session.client.consents.GetConsents(privacy_pb2.GetConsentsRequest())
    if session.json:
        output.say_json(answer)
        return
    names = {number: name.value for name, number in _KINDS.items()}
    output.table(
        ["what", "agreed", "version", "since", "version now"],
        [
            (names[c.kind], "yes" if c.granted else "no", c.version, output.when(c.record_time), c.current_version)
            for c in answer.consents
        ],
        empty="Nothing is asked for.",
    )  # fmt: skip


def consent(
    session: Session,
    what: Annotated[Text, typer.Argument(help="What you agree to.")],
    version: Annotated[str, typer.Option(help="Of the text.")] = "",
    no: Annotated[bool, typer.Option("--no", help="Take it back.")] = False,
) -> None:
    """Agrees to a text, or changes whether mail may advertise.

    Examples:

      mercat account consent terms --version 2026-11

      mercat account consent marketing --no
    """
    request = privacy_pb2.SetConsentRequest(kind=_KINDS[what], granted=not no, version=version)
    answer = session.client.consents.SetConsent(request)
    if session.json:
        output.say_json(answer)
    else:
        output.say(f"{what.value}: {'agreed' if answer.consent.granted else 'taken back'}.")
