"""Ways mail leaves: an SMTP server, or a folder for installations that have none."""

import asyncio
import logging
import os
import re
from email import message_from_bytes, policy
from email.message import EmailMessage
from email.utils import parseaddr
from pathlib import Path
from typing import Protocol

import aiosmtplib

from services.common.mail.message import Undeliverable, texts
from services.common.mail.settings import MailSettings

log = logging.getLogger(__name__)
TIMEOUT = 20.0  # seconds, for each step at the server
_KEPT = 500  # mails in the folder


class MailUnavailable(Exception):
    """It could not be sent just now."""


class Transport(Protocol):
    """Hands a message over. Raises MailUnavailable, or Undeliverable when it will never be taken."""

    async def send(self, message: EmailMessage, to: str, mail_id: str) -> None: ...

    async def forget(self, named: re.Pattern[str]) -> None:
        """Removes what it keeps itself of mail in which somebody is named."""
        ...


class Smtp:
    """A server that takes all mail (RFC 5321, or 6409 for submission), a connection for each."""

    def __init__(self, settings: MailSettings) -> None:
        self._settings = settings

    async def send(self, message: EmailMessage, to: str, mail_id: str) -> None:
        s = self._settings
        try:
            await aiosmtplib.send(
                message, sender=parseaddr(s.mail_from)[1], recipients=[to], hostname=s.smtp_host, port=s.smtp_port,
                username=s.smtp_user or None, password=s.smtp_password or None, timeout=TIMEOUT,
                use_tls=s.smtp_tls == "tls", start_tls=s.smtp_tls == "starttls",
            )  # fmt: skip
        except aiosmtplib.SMTPRecipientsRefused as e:
            code = e.recipients[0].code
            raise (Undeliverable if code >= 500 else MailUnavailable)(f"the recipient was refused: {code}") from None
        except aiosmtplib.SMTPResponseException as e:
            # A refusal of our credentials is the operator's to repair, not the end of the mail.
            final = e.code >= 500 and not isinstance(e, aiosmtplib.SMTPAuthenticationError)
            raise (Undeliverable if final else MailUnavailable)(f"the server answered {e.code}") from None
        except (aiosmtplib.SMTPException, OSError, ValueError) as e:
            raise MailUnavailable(f"{type(e).__name__}") from None

    async def forget(self, named: re.Pattern[str]) -> None:
        """A server keeps what it keeps."""


class Folder:
    """One file a mail, readable by its owner only, the newest some hundred kept. `mercat mail` shows them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        log.info("no SMTP server is set: mail goes into %s; read it with `mercat mail`", path)

    async def send(self, message: EmailMessage, to: str, mail_id: str) -> None:
        try:
            await asyncio.to_thread(self._write, bytes(message), mail_id)
        except OSError as e:
            raise MailUnavailable(f"the folder cannot be written: {e.strerror}") from None

    async def forget(self, named: re.Pattern[str]) -> None:
        await asyncio.to_thread(self._remove, named)

    def _remove(self, named: re.Pattern[str]) -> None:
        for path in self._path.glob("*.eml"):
            message = message_from_bytes(path.read_bytes(), policy=policy.default)
            if any(named.search(text) for text in texts(message)):
                path.unlink(missing_ok=True)

    def _write(self, message: bytes, mail_id: str) -> None:
        draft = self._path / f".{mail_id}"
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(message)
        draft.replace(self._path / f"{mail_id}.eml")  # whose repetition has the same name
        for old in sorted(self._path.glob("*.eml"))[:-_KEPT]:
            old.unlink(missing_ok=True)


def transport_of(settings: MailSettings) -> Transport:
    return Smtp(settings) if settings.smtp_host else Folder(settings.home / "mail")
