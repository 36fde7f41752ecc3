"""`mercat passkeys`: keys on your devices that sign you in."""

from typing import Annotated

import typer
from mercat.auth.v1 import passkey_pb2 as pb

from services.cli import output
from services.cli.command import Session, command
from services.cli.paging import Limit, gather


def register(app: typer.Typer) -> None:
    passkeys = typer.Typer(help="Keys on your devices that sign you in.", no_args_is_help=True, rich_markup_mode="rich")
    for name, function in (("list", list_passkeys), ("add", add), ("remove", remove)):
        passkeys.command(name)(command(function))
    app.add_typer(passkeys, name="passkeys")


def list_passkeys(session: Session, limit: Limit = 50) -> None:
    """Lists your passkeys, newest first.

    Example: mercat passkeys list
    """
    answer = gather(session.client.passkeys.ListPasskeys, pb.ListPasskeysRequest(), "passkeys", limit)
    if session.json:
        output.say_json(answer)
        return
    output.table(
        ["passkey", "name", "on several devices", "since", "last used"],
        [
            (p.passkey_id, p.name, "yes" if p.synced else "no", output.when(p.created_at), output.when(p.last_used_at))
            for p in answer.passkeys
        ],
        empty="You have none; `mercat passkeys add` says where to make one.",
    )  # fmt: skip


def add(session: Session) -> None:
    """Says where a browser makes one. Log in with it by `mercat login`, on the page that it shows.

    Example: mercat passkeys add
    """
    page = session.client.passkeys.ListPasskeys(pb.ListPasskeysRequest(page_size=1)).page
    if session.json:
        output.say_json({"page": page})
    else:
        output.say(f"Open {page} in a browser on the device, and sign in there.")


def remove(session: Session, passkey: Annotated[str, typer.Argument(metavar="PASSKEY", help="Its id, psk_….")]) -> None:
    """Signs you in with that passkey no more.

    Example: mercat passkeys remove psk_06b3c…
    """
    session.client.passkeys.DeletePasskey(pb.DeletePasskeyRequest(passkey_id=passkey))
    if session.json:
        output.say_json({"passkeyId": passkey})
    else:
        output.say(f"{output.clean(passkey)} is removed.")
