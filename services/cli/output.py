"""What commands print: tables for people, the contract's own JSON for programs, and failures with a way out.

With `--json` standard output is JSON and nothing else (the same JSON as REST's), and a failure is
`{"error": …}` on standard error."""

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC
from typing import Any

import typer
from google.protobuf import json_format
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from services.cli.client import Unreachable
from services.cli.session import Refusal
from services.common.errors import DOMAIN, MercatError

REFUSED, UNREACHABLE = 1, 3  # exit status
_CONTROLS = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}

_GAP, _NARROW = 2, 24  # characters between columns, and of a column whose cells are broken into lines
# What to do next, by reason.
_NEXT = {
    "ACCOUNT_TAKEN": "log in with `mercat login`, or choose another email and username",
    "ACCOUNT_LOCKED": "wait as long as it says, or set a new password with `mercat password forgot`",
    "ALIAS_NOT_FOUND": "see its aliases with `mercat models show MODEL`",
    "BUDGET_EXCEEDED": "see your budgets with `mercat budgets list`, and raise one with `mercat budgets set`",
    "BUDGET_NOT_FOUND": "see yours with `mercat budgets list`",
    "CREDENTIAL_INVALID": "log in again with `mercat login`, or give another key",
    "CREDENTIAL_MISSING": "log in with `mercat login`, or give a key with --api-key or MERCAT_API_KEY",
    "DEVICE_NOT_FOUND": "check the code that the device shows, or begin anew there with `mercat login`",
    "EMAIL_UNVERIFIED": "confirm your address with `mercat verify CODE`; `mercat verify --resend` sends another code",
    "ENGINE_FAILED": "it was not charged; tell the publisher the request id",
    "IDENTITY_NOT_FOUND": "see yours with `mercat identities list`",
    "IDENTITY_UNLINKED": "log in to that account, then `mercat identities link PROVIDER`",
    "IDEMPOTENCY_KEY_REUSED": "leave --idempotency-key out, or give a new one",
    "CONCURRENCY_LIMITED": "wait for calls that are under way; see `mercat limits show`",
    "INSUFFICIENT_CREDIT": "add credit with `mercat topup 10`; see `mercat balance`",
    "INVITATION_NOT_FOUND": "log in with the account of the address that was invited, or ask for a new invitation",
    "INVOICE_NOT_FOUND": "see yours with `mercat invoices list`",
    "INTERNAL": "tell the operator the request id; what happened is in `mercat logs`",
    "JOB_NOT_FOUND": "see yours with `mercat jobs list`",
    "JOB_UNFINISHED": "wait for it with `mercat jobs get JOB --wait`, or end it with `mercat jobs cancel JOB`",
    "CARD_REFUSED": "try another card; in the sandbox pm_card_visa is good",
    "NO_PAYMENT_METHOD": "add a card with `mercat cards add pm_card_visa`",
    "OAUTH_ACCESS_DENIED": "begin anew with `mercat login`, or log in by password with `mercat login EMAIL`",
    "OAUTH_CLIENT_NOT_FOUND": "see `mercat org clients list`",
    "ORGANISATION_NOT_FOUND": "see yours with `mercat org list`",
    "PAYOUT_ACCOUNT_NOT_FOUND": "say where payouts go with `mercat payouts connect`",
    "NOT_A_MEMBER": "go on in another organisation with `mercat org use ORGANISATION`",
    "NO_SANDBOX_CREDIT": "pay with `mercat topup 10 --card`",
    "NOT_REFUNDABLE": "see what is left of it with `mercat payments get PAYMENT`",
    "PERSONAL_ORGANISATION": "make one for several people with `mercat org create`, and `mercat org use` it",
    "PASSKEY_NOT_FOUND": "see yours with `mercat passkeys list`",
    "PAYMENT_METHOD_NOT_FOUND": "see yours with `mercat cards list`",
    "PAYMENT_NOT_FOUND": "see yours with `mercat payments list`",
    "PAYMENTS_UNAVAILABLE": "repeat it in a moment; nothing was charged",
    "LAST_OWNER": "make somebody else owner with `mercat org transfer USER`",
    "LEASE_LOST": "repeat the call; it was not charged",
    "MEMBER_NOT_FOUND": "see `mercat org members`",
    "METERING_UNAVAILABLE": "repeat it in a moment; it was not charged",
    "MODEL_NOT_FOUND": "find models with `mercat search`; your own are in `mercat models list --mine`",
    "QUEUE_FULL": "repeat it in a moment; it was not charged",
    "QUOTA_EXCEEDED": "see what is left with `mercat limits show`",
    "RATE_LIMITED": "wait a moment and repeat it",
    "ROLE_MISSING": "log in with an account of that role; publishers sign up with `mercat signup --publisher`",
    "SCOPE_MISSING": "use a login that may do this (--profile), or a key made with that --scope",
    "SECOND_FACTOR_REQUIRED": "give a code of your authenticator app, or a recovery code, with --code",
    "SECOND_FACTOR_WRONG": "wait for the next code, or use a recovery code",
    "SERVICE_ACCOUNT_NOT_FOUND": "see `mercat org accounts list`",
    "SESSION_NOT_FOUND": "see yours with `mercat sessions list`",
    "SESSION_REQUIRED": "log in with `mercat login` and leave the key out",
    "STEP_UP_REQUIRED": "prove again who you are with `mercat sessions confirm`, then repeat it",
    "SIGN_IN_FAILED": "check email and password; make an account with `mercat signup`",
    "SSO_REQUIRED": "log in as it says, or go on in your own organisation with `mercat org use YOUR-NAME`",
    "SUBSCRIPTION_PAST_DUE": "add a good card with `mercat cards add`, then `mercat invoices pay INVOICE`",
    "STORAGE_UNAVAILABLE": "repeat it in a moment; see `mercat status`",
    "TENSOR_INVALID": "see what the model takes with `mercat models show MODEL`",
    "TOO_MANY_JOBS": "see them with `mercat jobs list`, and end one with `mercat jobs cancel JOB`",
    "NOT_AN_ENCODER": "see what it takes with `mercat models show MODEL`, and call it with `mercat infer`",
    "NOT_A_DECODER": "see what it takes with `mercat models show MODEL`, and call it with `mercat infer`",
    "NO_CHAT_TEMPLATE": "go on with a text instead: `mercat generate MODEL TEXT`",
    "NEVER_CALLED": "call that version first: `mercat infer MODEL@VERSION`",
    "ACCESS_REQUIRED": "ask for access with `mercat access request MODEL`",
    "VERSION_RETIRED": "call the successor that it names, or see others with `mercat models show MODEL`",
    "VERSION_YANKED": "see other versions with `mercat models show MODEL`",
    "VERSION_QUARANTINED": "see other versions with `mercat models show MODEL`",
    "REVIEW_NOT_FOUND": "see what is said of a model with `mercat reviews list MODEL`",
    "COLLECTION_NOT_FOUND": "see yours with `mercat collections list`",
    "PUBLISHER_NOT_FOUND": "a publisher is the first half of a model's name; find models with `mercat search`",
    "UPLOAD_NOT_FOUND": "see yours with `mercat uploads list`",
    "VERSION_EXISTS": "push it under the next number, with --version",
    "VERSION_NOT_FOUND": "see its versions with `mercat models show MODEL`",
    "VERSION_STATE": "see where it is with `mercat models show MODEL@VERSION`",
    "WEBHOOK_DELIVERY_NOT_FOUND": "see those of an endpoint with `mercat webhooks deliveries ENDPOINT`",
    "WEBHOOK_ENDPOINT_DISABLED": "enable it with `mercat webhooks update ENDPOINT --enable`",
    "WEBHOOK_ENDPOINT_NOT_FOUND": "see yours with `mercat webhooks list`",
}


def clean(text: str) -> str:
    """Somebody else's text without control characters, which could rewrite the terminal."""
    return text.translate(_CONTROLS)


def console(*, error: bool = False) -> Console:
    """Lines are not broken where they may be copied or piped."""
    made = Console(stderr=error, highlight=False, soft_wrap=True)
    if not made.is_terminal:
        made = Console(stderr=error, highlight=False, soft_wrap=True, width=400)
    return made


def document(message: Message) -> dict[str, Any]:
    """A message as REST shows it."""
    return json_format.MessageToDict(message, always_print_fields_with_no_presence=True)


def say_json(value: Message | dict[str, Any], *, line: bool = False) -> None:
    """Prints JSON; `line`: on one line, for streams."""
    shown = document(value) if isinstance(value, Message) else value
    typer.echo(json.dumps(shown, ensure_ascii=False, indent=None if line else 2))


def say(text: str) -> None:
    """Prints a line of the program's own, with markup."""
    console().print(text)


def done(text: str, *, as_json: bool) -> None:
    """Says that something without an answer of its own was done; to a program, `{}`."""
    if as_json:
        say_json({})
    else:
        say(escape(text))


def table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str, right: Sequence[str] = (),
    whole: Sequence[str] = (), spare: Sequence[str] = (),
) -> None:  # fmt: skip
    """Prints rows under headings, or the line that says there are none. `whole`: columns whose cells stay on a line.
    `spare`: columns that a terminal too narrow for all goes without, the first of them first."""
    to, cells = console(), [[clean(cell) for cell in row] for row in rows]
    if not cells:
        to.print(empty)
        return
    shown = _fitting(headings, cells, to.width, whole, spare)
    made = Table(box=None, padding=(0, _GAP, 0, 0), header_style="bold", pad_edge=False)
    for n in shown:
        name = headings[n]
        made.add_column(name, justify="right" if name in right else "left", overflow="fold", no_wrap=name in whole)
    for row in cells:
        made.add_row(*(escape(row[n]) for n in shown))
    to.print(made)


def _fitting(
    headings: Sequence[str], cells: Sequence[Sequence[str]], width: int, whole: Sequence[str], spare: Sequence[str]
) -> list[int]:
    """The columns that are shown. One whose cells may be broken is content with `_NARROW` characters."""
    columns = zip(headings, zip(*cells, strict=True), strict=True)
    wide = [max(cell_len(name), *map(cell_len, column)) for name, column in columns]
    wide = [n if name in whole else min(n, _NARROW) for n, name in zip(wide, headings, strict=True)]
    shown = list(range(len(headings)))
    for name in spare:
        if sum(wide[n] + _GAP for n in shown) > width:
            shown.remove(headings.index(name))
    return shown


def facts(pairs: Iterable[tuple[str, str]]) -> None:
    """Prints names and values, those without a value left out."""
    shown = [(name, clean(value)) for name, value in pairs if value]
    width = max((len(name) for name, _ in shown), default=0)
    to = console()
    for name, value in shown:
        to.print(f"[bold]{escape(name):<{width}}[/]  {escape(value)}")


def when(timestamp: Timestamp) -> str:
    """UTC to the second; empty for none."""
    if not timestamp.seconds:
        return ""
    return timestamp.ToDatetime(tzinfo=UTC).strftime("%Y-%m-%d %H:%M:%S")


def size(count: int) -> str:
    """Bytes for people: `22.4 MiB`."""
    amount, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{count} B" if unit == "B" else f"{amount:.1f} {unit}"


def duration(microseconds: int) -> str:
    """`340 µs`, `12.3 ms`, `1.50 s`."""
    if microseconds < 1000:
        return f"{microseconds} µs"
    if microseconds < 1_000_000:
        return f"{microseconds / 1e3:.1f} ms"
    return f"{microseconds / 1e6:.2f} s"


def fail(error: Exception, *, as_json: bool) -> int:
    """Prints a failure: one sentence, the reason, the fields, the way out, the request id. Answers the exit status."""
    if isinstance(error, MercatError):
        message, reason, hint = error.message, error.reason, _NEXT.get(error.reason, "")
        code = error.code.name
    elif isinstance(error, Unreachable):
        message, reason, code = str(error), "SERVER_UNREACHABLE", "UNAVAILABLE"
        hint = "start Mercat with `mercat up`, or name another server with --server or MERCAT_SERVER"
    else:
        message, reason, code = str(error), "REFUSED", "FAILED_PRECONDITION"
        hint = error.hint if isinstance(error, Refusal) else ""
    status = UNREACHABLE if isinstance(error, Unreachable) else REFUSED
    fields = [(v.field, v.description) for v in error.violations] if isinstance(error, MercatError) else []
    request_id = error.metadata.get("request_id", "") if isinstance(error, MercatError) else ""
    if as_json:
        shown = {
            "message": message, "status": code, "reason": reason, "domain": DOMAIN, "requestId": request_id,
            "violations": [{"field": field, "description": text} for field, text in fields], "hint": hint,
        }  # fmt: skip
        typer.echo(json.dumps({"error": shown}, ensure_ascii=False), err=True)
        return status
    to = console(error=True)
    if fields:  # whose message repeats them
        message = "The request is not valid." if message == "; ".join(f"{f}: {d}" for f, d in fields) else message
    to.print(f"[bold red]mercat:[/] {escape(clean(message))}")
    for field, text in fields:
        to.print(f"  • {escape(clean(field))}: {escape(clean(text))}")
    if reason not in ("REFUSED", "SERVER_UNREACHABLE"):
        to.print(f"  reason      {escape(clean(reason))}")
    if hint:
        to.print(f"  what to do  {escape(hint)}")
    if request_id:
        to.print(f"  request id  {escape(clean(request_id))}")
    return status


def is_terminal() -> bool:
    """Whether a person can be asked."""
    return sys.stdin.isatty()
