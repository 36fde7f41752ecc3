"""`mercat receipts`: proof of what was run and what it cost."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from google.protobuf import json_format
from mercat.billing.v1 import billing_pb2

from services.cli import output
from services.cli.command import Session, command
from services.cli.prices import show_price
from services.cli.usage import show_change, show_units
from services.common import money
from services.common.receipts import NotGenuine, recomputed, verify

_KEYS = "File of public keys, as `mercat receipts keys` prints them; without it the server is asked."


def register(app: typer.Typer) -> None:
    receipts = typer.Typer(
        help="Proof of what was run and what it cost.", no_args_is_help=True, rich_markup_mode="rich",
        callback=lambda: None,
    )  # fmt: skip
    receipts.command("get")(command(get))
    receipts.command("verify")(command(check))
    receipts.command("keys")(command(keys))
    app.add_typer(receipts, name="receipts")


def get(
    session: Session,
    request: Annotated[str, typer.Argument(help="The call, by its request id.")],
    out: Annotated[Path | None, typer.Option(help="Write what is signed to this file.")] = None,
) -> None:
    """Shows the receipt of one of your calls, or keeps it.

    Examples:

      mercat receipts get req_06ba…

      mercat receipts get req_06ba… --out call.receipt
    """
    asked = billing_pb2.GetReceiptRequest(request_id=request)
    receipt = session.client.receipts.GetReceipt(asked).receipt
    if out is not None:
        out.write_text(receipt.signed + "\n")
    if session.json:
        output.say_json(receipt)
        return
    _show(receipt)
    if out is not None:
        output.say(f"Written to {out}; anyone can check it with `mercat receipts verify {out}`.")


def check(
    session: Session,
    file: Annotated[Path, typer.Argument(help="A receipt, signed or as JSON; - for standard input.")],
    keys: Annotated[Path | None, typer.Option(help=_KEYS)] = None,
) -> int:
    """Checks that a receipt was signed as it stands, and that its price makes its cost. With --keys nobody is asked.
    Exit status 1 when either is not so.

    Examples:

      mercat receipts verify call.receipt

      mercat receipts keys > keys.json && mercat receipts verify call.receipt --keys keys.json
    """
    known = _read_keys(keys) if keys is not None else _keys(session)
    try:
        receipt = verify(_signed(file), known.keys)
    except NotGenuine as error:
        return _refuse(session, str(error))
    try:
        expected = recomputed(receipt)
    except OverflowError:
        return _refuse(session, "its price makes more of it than can be charged")
    if expected is not None and expected != receipt.cost_nanos:
        return _refuse(session, f"its price makes {money.show(expected)}, not {money.show(receipt.cost_nanos)}")
    if session.json:
        output.say_json({"genuine": True, "receipt": output.document(receipt)})
        return 0
    _show(receipt)
    cost = "an answer from the cache, which costs a share" if expected is None else "its price makes this cost"
    output.say(f"[green]Genuine:[/] signed as it stands, and {cost}.")
    return 0


def keys(session: Session) -> None:
    """Prints the public keys, to check receipts with later and elsewhere.

    Example: mercat receipts keys > keys.json
    """
    output.say_json(_keys(session))


def _keys(session: Session) -> billing_pb2.GetReceiptKeysResponse:
    return session.client.receipts.GetReceiptKeys(billing_pb2.GetReceiptKeysRequest())


def _read_keys(path: Path) -> billing_pb2.GetReceiptKeysResponse:
    try:
        return json_format.Parse(path.read_text(), billing_pb2.GetReceiptKeysResponse(), ignore_unknown_fields=True)
    except (OSError, UnicodeDecodeError, json_format.ParseError) as error:
        raise typer.BadParameter(f"{path} holds no keys: {error}", param_hint="--keys") from None


def _signed(path: Path) -> str:
    """What is signed, of a file as `get` or `get --json` writes it."""
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{path} cannot be read: {error}", param_hint="FILE") from None
    text = text.strip()
    if not text.startswith("{"):
        return text
    try:
        return str(json.loads(text)["signed"])
    except (ValueError, KeyError):
        raise typer.BadParameter(f"{path} holds no receipt", param_hint="FILE") from None


def _refuse(session: Session, why: str) -> int:
    if session.json:
        output.say_json({"genuine": False, "reason": why})
    else:
        output.say(f"[red]Not genuine:[/] {output.clean(why)}.")
    return 1


def _show(receipt: billing_pb2.Receipt) -> None:
    output.facts([
        ("time (UTC)", output.when(receipt.timestamp)), ("request", receipt.request_id),
        ("model", f"{receipt.model}@{receipt.version}"), ("digest", receipt.model_digest),
        ("units", show_units(receipt.units)), ("price", show_price(receipt.price)),
        ("used before", show_units(receipt.rating.positions) if receipt.rating.positions else ""),
        ("discount", f"{receipt.rating.discount_ppm / 10_000:g} %" if receipt.rating.discount_ppm else ""),
        ("cost", "test" if receipt.test else money.show(receipt.cost_nanos, receipt.currency)),
        *(("corrected", f"{output.when(c.create_time)}: {show_change(c)} ({c.reason})") for c in receipt.corrections),
        ("organisation", receipt.org_id), ("key", receipt.key_id),
    ])  # fmt: skip
