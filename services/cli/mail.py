"""`mercat mail`: what a platform without an SMTP server has written."""

from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path
from typing import Annotated

import typer

from services.cli import output
from services.cli.operate import HomeOption, JsonOption
from services.cli.session import Refusal, mail_folder


def register(app: typer.Typer) -> None:
    app.command()(mail)


def mail(
    to: Annotated[str, typer.Argument(metavar="ADDRESS", help="Only mail to this address.")] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many at most.")] = 1,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> int:
    """Shows mail that went into a folder, for want of an SMTP server, the newest first.

    Examples:

      mercat mail

      mercat mail ada@example.com -n 5
    """
    folder = home / "mail" if home else mail_folder()
    if not folder.is_dir():
        hint = "name the home with --home or MERCAT_HOME; with MERCAT_SMTP_HOST set, mail is sent"
        return output.fail(Refusal(f"There is no mail in {folder}.", hint), as_json=as_json)
    found = []
    for path in sorted(folder.glob("*.eml"), reverse=True):
        message = _read(path)
        if not to or message["To"].lower() == to.lower():
            found.append((path.stem, message))
        if len(found) == limit:
            break
    if as_json:
        output.say_json({"mails": [_document(name, message) for name, message in found]})
    elif not found:
        output.say("There is none.")
    for at, (_, message) in enumerate([] if as_json else found):
        if at:
            output.say("")
        output.facts([(name.lower(), message[name]) for name in ("To", "Subject", "Date")])
        typer.echo(f"\n{output.clean(_text(message)).rstrip()}")
    return 0


def _read(path: Path) -> EmailMessage:
    with path.open("rb") as file:
        return BytesParser(policy=policy.default).parse(file)


def _text(message: EmailMessage) -> str:
    body = message.get_body(("plain",))
    return str(body.get_content()) if body is not None else ""


def _document(name: str, message: EmailMessage) -> dict[str, str]:
    return {
        "mailId": name, "to": message["To"], "subject": message["Subject"], "date": message["Date"],
        "text": _text(message),
    }  # fmt: skip
