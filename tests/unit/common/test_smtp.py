"""Mail through a real SMTP server: encrypted, signed in to, and every refusal told apart."""

import asyncio
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage, Message
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

from services.common.mail.message import Mail, Undeliverable, compose
from services.common.mail.settings import MailSettings
from services.common.mail.transport import Folder, MailUnavailable, Smtp, transport_of
from services.embedded.ports import free_ports
from services.embedded.tls import certificate

TO = "ada@example.com"


class Server:
    """Takes mail by STARTTLS from who signs in as mercat; `refusal`: what it answers instead."""

    def __init__(self, folder: Path) -> None:
        files = certificate(folder, "127.0.0.1")
        self.ca = files.ca
        self.port = free_ports(1)[0]
        self.messages: list[Message] = []
        self.refusal = ""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files.chain, files.key)
        self.controller = Controller(
            self, hostname="127.0.0.1", port=self.port, tls_context=context, require_starttls=True, auth_required=True,
            authenticator=self.signs_in,
        )  # fmt: skip

    def signs_in(self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        right = isinstance(data, LoginPassword) and (data.login, data.password) == (b"mercat", b"secret")
        return AuthResult(success=right, handled=right)

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        assert session.ssl is not None
        if self.refusal:
            return self.refusal
        self.messages.append(message_from_bytes(envelope.content))
        return "250 taken"

    def settings(self, **changes: Any) -> MailSettings:
        values = {
            "smtp_host": "127.0.0.1", "smtp_port": self.port, "smtp_user": "mercat", "smtp_password": "secret",
            "mail_from": "Mercat <no-reply@mercat.example>", "home": self.ca.parent,
        }  # fmt: skip
        return MailSettings(**{**values, **changes})


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    server = Server(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(server.ca))
    server.controller.start()
    yield server
    server.controller.stop()


@pytest.fixture
def message() -> EmailMessage:
    mail = Mail("verify_email", TO, {"username": "ada", "code": "7k3q-9x2m-b4tv-h8wd"})
    return compose(mail, sender="Mercat <no-reply@mercat.example>", mail_id="mail_1", at=datetime.now(UTC))


async def send(settings: MailSettings, message: EmailMessage) -> None:
    await Smtp(settings).send(message, TO, "mail_1")


async def test_mail_goes_encrypted_and_signed_in(server: Server, message: EmailMessage) -> None:
    await send(server.settings(), message)
    (taken,) = server.messages
    assert (taken["To"], taken["From"]) == (TO, "Mercat <no-reply@mercat.example>")
    assert taken.is_multipart()


@pytest.mark.parametrize(
    ("changes", "refusal", "expected"),
    [
        ({"smtp_password": "wrong"}, "", MailUnavailable), ({"smtp_tls": "none"}, "", MailUnavailable),
        ({"smtp_port": 1}, "", MailUnavailable), ({}, "451 later", MailUnavailable), ({}, "550 never", Undeliverable),
    ],
)  # fmt: skip
async def test_refusals_are_told_apart(
    server: Server, message: EmailMessage, changes: dict[str, Any], refusal: str, expected: type[Exception]
) -> None:
    server.refusal = refusal
    with pytest.raises(expected) as caught:
        await send(server.settings(**changes), message)
    assert "secret" not in str(caught.value)
    assert server.messages == []


async def test_a_server_that_nobody_vouches_for_gets_nothing(
    server: Server, message: EmailMessage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(MailUnavailable):
        await send(server.settings(), message)
    assert server.messages == []


def test_without_a_server_mail_is_a_file_of_its_owner(
    tmp_path: Path, message: EmailMessage, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = transport_of(MailSettings(home=tmp_path))
    assert isinstance(folder, Folder)
    for _ in range(2):  # sent again, it is the same file
        asyncio.run(folder.send(message, TO, "mail_1"))
    (path,) = (tmp_path / "mail").iterdir()
    assert (path.name, path.stat().st_mode & 0o777) == ("mail_1.eml", 0o600)
    assert message_from_bytes(path.read_bytes())["To"] == TO
    monkeypatch.setattr("services.common.mail.transport._KEPT", 3)
    for number in range(2, 7):
        asyncio.run(folder.send(message, TO, f"mail_{number}"))
    assert sorted(p.stem for p in (tmp_path / "mail").iterdir()) == ["mail_4", "mail_5", "mail_6"]
