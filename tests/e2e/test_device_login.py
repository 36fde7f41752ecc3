"""Logging in on a machine without a password: a code here, let in from elsewhere."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from secrets import token_hex
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.dns_server import DnsServer
from tests.e2e.test_signing_in import Terminal
from tests.integration.signin.elsewhere import Elsewhere
from tests.platform import PASSWORD, Platform

CODE = re.compile(r"[A-Z]{4}-[A-Z]{4}")


@pytest.fixture
def running(own_platform: Callable[..., Platform]) -> Platform:
    return own_platform()


class Waiting:
    """`mercat login`, under way."""

    def __init__(self, terminal: Terminal, *words: str, until: re.Pattern[str] = CODE) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "services.cli.main", "login", *words], env=terminal._environment,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stderr is not None
        self.shown = ""
        deadline = time.monotonic() + 30
        while not until.search(self.shown) or (until is CODE and "device approve" not in self.shown):
            assert time.monotonic() < deadline
            self.shown += self.process.stderr.readline()
        self.found = until.findall(self.shown)[0]

    def end(self) -> tuple[int, str, str]:
        said, failed = self.process.communicate(timeout=60)
        return self.process.returncode, said, failed


def test_a_machine_is_let_in_from_another(running: Platform, tmp_path: Path) -> None:
    name = f"e{token_hex(5)}"
    laptop, server = Terminal(running, tmp_path / "laptop"), Terminal(running, tmp_path / "server")
    laptop("signup", f"{name}@example.com", name, "--password-stdin", typed=PASSWORD)
    waiting = Waiting(server)
    assert f"{running.rest}/oauth/device" in waiting.shown
    assert "command line" in laptop("device", "show", waiting.found)
    assert "DEVICE_NOT_FOUND" in laptop.refused("device", "approve", "BBBB-BBBB")
    assert "It is in" in laptop("device", "approve", waiting.found)
    status, said, failed = waiting.end()
    assert status == 0, failed
    assert f"as {name}" in said
    assert server.json("whoami")["username"] == name
    server("keys", "create", "app")
    server("logout")
    assert "not logged in" in server.refused("whoami")

    # In JSON, and turned away.
    waiting = Waiting(server, "--json")
    laptop("device", "deny", waiting.found)
    status, said, failed = waiting.end()
    assert (status, said) == (1, "")
    assert json.loads(failed.splitlines()[-1])["error"]["reason"] == "OAUTH_ACCESS_DENIED"


def test_a_program_gets_a_client(running: Platform, tmp_path: Path) -> None:
    name = f"e{token_hex(5)}"
    ada = Terminal(running, tmp_path / "ada")
    ada("signup", f"{name}@example.com", name, "--publisher", "--password-stdin", typed=PASSWORD)
    account = ada.json("org", "accounts", "create", "ci")["serviceAccountId"]
    made = ada.json("org", "clients", "create", "nightly", "--account", account, "--scope", "usage:read")
    assert made["clientSecret"].startswith("mcs_")
    assert made["client"]["clientId"] in ada("org", "clients", "list")
    ada("org", "clients", "delete", made["client"]["clientId"])
    assert "There are none" in ada("org", "clients", "list")


def test_somebody_logs_in_with_an_account_elsewhere(own_platform: Callable[..., Platform], tmp_path: Path) -> None:
    elsewhere = Elsewhere()
    try:
        running = own_platform(env=elsewhere.settings)
        name = f"e{token_hex(5)}"
        claims = {"email": f"{name}@example.com", "email_verified": True, "preferred_username": name}
        elsewhere.put(name, **claims)
        laptop = Terminal(running, tmp_path / "laptop")
        laptop._environment["BROWSER"] = "true"  # the test is the browser
        url = re.compile(rf"{elsewhere.issuer}/\S+")
        waiting = Waiting(laptop, "--with", "acme", until=url)
        page = httpx.get(elsewhere.authorize(waiting.found, name), follow_redirects=True)
        assert "Go on in the terminal" in page.text
        status, said, failed = waiting.end()
        assert status == 0, failed
        assert f"as {name}" in said
        assert laptop.json("identities", "list")["identities"][0]["email"] == claims["email"]
        waiting = Waiting(laptop, "--with", "acme", until=url)
        state = parse_qs(urlsplit(waiting.found).query)["state"][0]  # which this provider leaves out
        httpx.get(f"{elsewhere.deny(waiting.found)}&state={state}", follow_redirects=True)
        status, said, failed = waiting.end()
        assert status == 1
        assert "not signed in there" in failed
        assert "PROVIDER_NOT_FOUND" in laptop.refused("login", "--with", "nobody")
    finally:
        elsewhere.stop()


def test_a_companys_people_log_in_by_the_companys_provider(
    own_platform: Callable[..., Platform], tmp_path: Path
) -> None:
    elsewhere, names = Elsewhere(), DnsServer()
    try:
        running = own_platform(
            env={"MERCAT_DNS_SERVER": names.address, "MERCAT_SSO_PRIVATE_NETWORKS": "true"}
        )  # fmt: skip
        ada, acme = Terminal(running, tmp_path / "ada"), f"acme-{token_hex(4)}"
        domain = f"{acme}.example"
        ada("signup", f"{acme}-ada@example.com", f"{acme}-ada", "--password-stdin", typed=PASSWORD)
        ada("org", "create", acme)
        ada("org", "use", acme)
        connect = ("org", "sso", "set", elsewhere.issuer, "--client-id", "mercat", "--role", "developer")
        assert elsewhere.issuer in ada(*connect, "--secret-stdin", typed="a secret")
        record = ada.json("org", "sso", "domain", domain)
        assert "SSO_RECORD_MISSING" in ada.refused("org", "sso", "verify", domain)
        names.records[record["recordName"]] = [record["recordValue"]]
        assert "is yours" in ada("org", "sso", "verify", domain)
        assert domain in ada("org", "sso", "show")
        assert ada.json("org", "sso", "show")["connection"]["defaultRole"] == "developer"

        grace = Terminal(running, tmp_path / "grace")
        grace._environment["BROWSER"] = "true"  # the test is the browser
        elsewhere.put("grace", email=f"grace@{domain}", email_verified=True, preferred_username=f"{acme}-grace")
        waiting = Waiting(grace, "--sso", domain, until=re.compile(rf"{elsewhere.issuer}/\S+"))
        httpx.get(elsewhere.authorize(waiting.found, "grace"), follow_redirects=True)
        status, said, failed = waiting.end()
        assert status == 0, failed
        assert f"as {acme}-grace" in said
        assert grace.json("whoami")["organisation"] == acme  # the login is for it
        assert f"{acme}-grace" in ada("org", "members")
        assert f"{acme}-grace" in ada.refused("org", "sso", "remove")
        ada("org", "sso", "forget", domain, "--force")
        assert "SSO_NOT_FOUND" in grace.refused("login", "--sso", domain)
        ada("org", "sso", "remove", "--force")
        assert "no connection" in ada("org", "sso", "show")
    finally:
        elsewhere.stop()
        names.stop()
