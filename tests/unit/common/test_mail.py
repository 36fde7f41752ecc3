"""What mail says, and that nothing of it is anybody else's to write."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from jinja2 import UndefinedError

import services.common.mail
from services.common.mail.message import Mail, Undeliverable, compose

TEMPLATES = Path(services.common.mail.__file__).parent / "templates"
KINDS = sorted(path.stem for path in TEMPLATES.glob("*.txt"))
VALUES = {
    "username": "ada", "code": "7k3q-9x2m-b4tv-h8wd", "what": "Something was changed", "more": "More of it.",
    "at": "2026-11-26 12:00", "address": "192.0.2.7", "email": "ada@example.com", "organisation": "Acme Corporation",
    "handle": "acme", "inviter": "grace", "role": "viewer", "expires": "2026-12-03 12:00", "name": "backend",
    "key_id": "key_06b3c", "prefix": "mk_live_abcd", "whole": "yes",
    "url": "https://example.com/hook", "endpoint_id": "whe_06b3c", "gone": "", "since": "2026-05-01 10:00",
    "version": "ada/adder@1.0.0", "reason": "The licence is missing.", "quarantined": "",
    "model": "ada/adder", "state": "granted", "said": "For research.",
}  # fmt: skip


def composed(kind: str, to: str = "ada@example.com", **changes: str) -> Any:
    mail = Mail(kind, to, VALUES | changes)
    at = datetime(2026, 11, 26, tzinfo=UTC)
    return compose(mail, sender="Mercat <no-reply@mercat.example>", mail_id="mail_1", at=at)


def test_there_are_kinds() -> None:
    assert {"verify_email", "reset_password", "account_changed"} <= set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_says_the_same_as_text_and_as_html(kind: str) -> None:
    message = composed(kind)
    text, html = (message.get_body((part,)).get_content() for part in ("plain", "html"))
    assert message["Subject"]
    assert message["Subject"] in html
    assert "ada" in text
    assert "<code>" in html
    assert "{{" not in text + html
    assert (message["To"], message["Message-ID"]) == ("ada@example.com", "<mail_1@mercat.example>")


def test_what_comes_from_outside_is_text_in_html_and_no_template() -> None:
    message = composed("account_changed", address="<b>{{ 7 * 7 }}</b>")
    html = message.get_body(("html",)).get_content()
    assert "&lt;b&gt;{{ 7 * 7 }}&lt;/b&gt;" in html


def test_a_value_that_is_missing_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        compose(Mail("verify_email", "a@example.com", {}), sender="a@b.c", mail_id="m", at=datetime.now(UTC))


@pytest.mark.parametrize(
    "to", ["", "nobody", "a@b@c.d", "a,b@example.com", "x\r\nBcc: y@example.com", "<a@example.com"]
)
def test_what_is_no_address_gets_no_mail(to: str) -> None:
    with pytest.raises(Undeliverable):
        composed("verify_email", to)


def test_who_asked_for_access_hears_how_it_ended() -> None:
    for state, says in (
        ("granted", "has access to ada/adder now"),
        ("denied", "does not get access"),
        ("revoked", "may not call"),
    ):
        text = (
            composed("access_decided", state=state, said="For research.\nNo more.").get_body(("plain",)).get_content()
        )
        assert says in text
        assert "> For research.\n> No more." in text
