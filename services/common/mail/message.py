"""What a mail says: a template of its kind as text and as HTML, the values escaped."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from email.errors import HeaderParseError
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from functools import cache

from jinja2 import PackageLoader, StrictUndefined, select_autoescape
from jinja2.sandbox import ImmutableSandboxedEnvironment


class Undeliverable(Exception):
    """This mail will never be taken: its address is none, or was refused for good."""


@dataclass(frozen=True)
class Mail:
    """`kind` names the templates, `KIND.txt`, whose first line is the subject, and `KIND.html`; `values` is all they
    show. Text from outside is escaped where it is shown, never a template itself."""

    kind: str
    to: str
    values: Mapping[str, str]


def naming(names: Iterable[str]) -> re.Pattern[str]:
    """What is found in a text where one of the names or addresses stands by itself, in whatever case."""
    return re.compile(rf"(?<![\w.+-])(?:{'|'.join(map(re.escape, names))})(?![\w-]|\.\w)", re.IGNORECASE)


def texts(message: EmailMessage) -> Iterator[str]:
    """What somebody reads of it."""
    yield from (str(message["To"]), str(message["Subject"]))
    for part in message.walk():
        if part.get_content_maintype() == "text":
            yield part.get_content()


@cache
def _templates() -> ImmutableSandboxedEnvironment:
    return ImmutableSandboxedEnvironment(
        loader=PackageLoader("services.common.mail"), autoescape=select_autoescape(["html"]), undefined=StrictUndefined,
        keep_trailing_newline=True,
    )  # fmt: skip


def compose(mail: Mail, *, sender: str, mail_id: str, at: datetime) -> EmailMessage:
    """The message. Raises Undeliverable when the address is none, jinja2.UndefinedError when a value is missing."""
    subject, _, text = _templates().get_template(f"{mail.kind}.txt").render(mail.values).partition("\n")
    html = _templates().get_template(f"{mail.kind}.html").render(mail.values)
    message = EmailMessage()
    try:
        message["To"] = Address(addr_spec=mail.to)
    except (ValueError, HeaderParseError, IndexError):
        raise Undeliverable("the address is none") from None
    message["From"] = sender
    message["Subject"] = subject
    message["Date"] = format_datetime(at)
    message["Message-ID"] = f"<{mail_id}@{parseaddr(sender)[1].rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody's out-of-office answers it
    message.set_content(text.lstrip("\n"))
    message.add_alternative(html, subtype="html")
    return message
