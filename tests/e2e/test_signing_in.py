"""An account at a terminal: its mail, its password, its sessions, its second factor."""

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from secrets import token_hex
from typing import Any

import pyotp
import pytest

from services.common import clock
from tests.platform import PASSWORD, Platform

CODE = re.compile(r"[0-9a-z]{4}(?:-[0-9a-z]{4}){3}")


class Terminal:
    """Somebody's logins and what they type."""

    def __init__(self, platform: Platform, folder: Path) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MERCAT_")}
        self._environment = kept | {
            "XDG_CONFIG_HOME": str(folder), "MERCAT_HOME": str(platform.home), "NO_COLOR": "1",
        }  # fmt: skip

    def run(self, *words: str, typed: str = "", at_terminal: bool = False) -> "subprocess.CompletedProcess[str]":
        command: dict[str, Any] = {
            "args": [sys.executable, "-m", "services.cli.main", *words], "env": self._environment,
            "capture_output": True, "text": True, "timeout": 180, "check": False,
        }  # fmt: skip
        if not at_terminal:
            return subprocess.run(input=typed, **command)
        master, slave = pty.openpty()
        try:
            os.write(master, typed.encode())
            return subprocess.run(stdin=slave, **command)
        finally:
            os.close(master)
            os.close(slave)

    def __call__(self, *words: str, typed: str = "", at_terminal: bool = False) -> str:
        """What a command that succeeds prints."""
        done = self.run(*words, typed=typed, at_terminal=at_terminal)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def json(self, *words: str, typed: str = "") -> Any:
        return json.loads(self(*words, "--json", typed=typed))

    def refused(self, *words: str, typed: str = "") -> str:
        done = self.run(*words, typed=typed)
        assert done.returncode == 1, done
        assert "Traceback" not in done.stderr
        return done.stderr


@pytest.fixture
def running(own_platform: Callable[..., Platform]) -> Platform:
    return own_platform(env={"MERCAT_TEST_CLOCK": "true"})


def test_an_account_from_its_first_mail_to_its_second_factor(running: Platform, tmp_path: Path) -> None:
    name = f"e{token_hex(5)}"
    email = f"{name}@example.com"
    ada, phone = Terminal(running, tmp_path / "ada"), Terminal(running, tmp_path / "phone")

    def code() -> str:
        return pyotp.TOTP(secret).at(int(clock.move(timedelta(), running.home).timestamp()))

    # A password that can be guessed is refused with what to do; the next one is good, and a code waits in the home.
    assert "made of your name" in ada.refused("signup", email, name, "--password-stdin", typed=f"{name}-{name}")
    said = ada("signup", email, name, "--password-stdin", typed=PASSWORD)
    assert f"A code went to {email}" in said
    assert "`mercat mail` shows it" in said
    mail = ada.json("mail", email)["mails"][0]
    assert mail["subject"] == "Confirm your email address"
    assert "unknown, used or expired" in ada.refused("verify", "aaaa-aaaa-aaaa-aaaa")
    ada("verify", CODE.findall(mail["text"])[0])
    assert ada.json("whoami")["isVerified"] is True
    assert "verified already" in ada.refused("verify", "--resend")

    # Another login, and its end from here.
    phone("login", email, "--password-stdin", typed=PASSWORD)
    listed = ada.json("sessions", "list")["sessions"]
    assert [s["current"] for s in listed] == [False, True]
    assert all(s["userAgent"].startswith("mercat (") for s in listed)
    assert "this one" in ada("sessions", "list")
    ada("sessions", "revoke", listed[0]["sessionId"])
    assert "CREDENTIAL_INVALID" in phone.refused("whoami")

    # A second factor: QR code, first code, recovery codes.
    assert "no second factor" in ada("mfa", "show")
    assert "█" in ada("mfa", "enroll")
    secret = ada.json("mfa", "enroll")["secret"]
    recovery = CODE.findall(ada("mfa", "confirm", code()))
    assert len(recovery) == 10
    assert "--code" in phone.refused("login", email, "--password-stdin", typed=PASSWORD)
    clock.move(timedelta(seconds=30), running.home)
    phone("login", email, "--password-stdin", "--code", code(), typed=PASSWORD)

    # Later, keys are asked for again: refused where nobody can type, asked where somebody can.
    clock.move(timedelta(minutes=16), running.home)
    assert "mercat sessions confirm" in ada.refused("keys", "create", "app")
    ada("keys", "create", "app", at_terminal=True, typed=code() + "\n")
    ada("keys", "create", "another")
    assert "STEP_UP_REQUIRED" in phone.refused("keys", "create", "app")
    clock.move(timedelta(seconds=30), running.home)
    phone("sessions", "confirm", "--code", code())
    phone("keys", "create", "app")

    # A forgotten password ends every session; the second factor stays.
    Terminal(running, tmp_path / "nobody")("password", "forgot", email)
    text = next(
        m["text"] for m in ada.json("mail", email, "-n", "9")["mails"] if m["subject"].startswith("A new password")
    )
    ada("password", "reset", CODE.findall(text)[0], "--password-stdin", typed="otter ledger violin 42")
    assert "CREDENTIAL_INVALID" in phone.refused("whoami")
    ada("login", email, "--password-stdin", "--code", recovery[0], typed="otter ledger violin 42")
    assert ada.json("mfa", "show")["recoveryCodesLeft"] == 9
    ada("password", "change", "--password-stdin", typed=f"otter ledger violin 42\n{PASSWORD}\n")
    ada("mfa", "disable")
    ada("logout")
    ada("login", email, "--password-stdin", typed=PASSWORD)
