"""`mercat org` and `mercat audit`, as people at terminals of their own use them."""

import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest

from tests.platform import PASSWORD, Platform


class Person:
    """Somebody with an account."""

    def __init__(self, platform: Platform, folder: Path) -> None:
        self.name = f"p{token_hex(5)}"
        self.email = f"{self.name}@example.com"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MERCAT_")}
        self._environment = kept | {
            "XDG_CONFIG_HOME": str(folder / self.name), "MERCAT_HOME": str(platform.home), "NO_COLOR": "1",
        }  # fmt: skip
        self("signup", self.email, self.name, "--password-stdin", stdin=PASSWORD + "\n")

    def run(self, *words: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "services.cli.main", *words],
            env=self._environment, input=stdin, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    def __call__(self, *words: str, stdin: str = "") -> str:
        """What a command that succeeds prints."""
        done = self.run(*words, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def json(self, *words: str) -> Any:
        return json.loads(self(*words, "--json"))

    def refused(self, *words: str) -> str:
        """What a command that is refused says."""
        done = self.run(*words)
        assert done.returncode == 1, done
        assert "Traceback" not in done.stderr
        return done.stderr


@pytest.fixture
def person(platform: Platform, tmp_path: Path) -> Callable[[], Person]:
    return lambda: Person(platform, tmp_path)


def test_two_people_share_an_organisation(person: Callable[[], Person]) -> None:
    ada, grace, acme = person(), person(), f"acme-{token_hex(4)}"
    assert "is made" in ada("org", "create", acme, "--name", "Acme [1]")
    assert "has one member" in ada.refused("org", "invite", grace.email)
    ada("org", "use", acme)
    assert ada.json("whoami")["organisation"] == acme
    assert "Acme [1]" in ada("org", "list")
    code = ada.json("org", "invite", grace.email, "--role", "developer")["code"]
    assert grace.email in ada("org", "invitations")
    assert "ORGANISATION_NOT_FOUND" in grace.refused("org", "use", acme)
    assert f"developer of {acme}" in grace("org", "join", code)
    assert "INVITATION_NOT_FOUND" in grace.refused("org", "join", code)
    grace("org", "use", acme)
    assert "mercat org members" not in grace("org", "members")
    assert "SCOPE_MISSING" in grace.refused("org", "role", ada.name, "viewer")
    key = grace.json("keys", "create", "mine")["apiKey"]
    assert key["keyId"] in ada("org", "keys", "list")
    ada("org", "roles", "set", "auditor", "--scope", "audit:read", "--scope", "members:read")
    ada("org", "role", grace.name, "auditor")
    assert "auditor" in ada("org", "roles", "list")
    assert "is made" in ada("org", "team", "create", "research", "--role", "developer")
    ada("org", "team", "add", "research", grace.name)
    assert grace.name in ada("org", "team", "show", "research")
    ada("org", "team", "update", "research", "--name", "science", "--role", "")
    assert "science" in ada("org", "team", "list")
    ada("usage", "query", "--team", "science")
    assert "no team" in ada.refused("org", "team", "delete", "research")
    ada("org", "team", "remove", "science", grace.email)
    ada("org", "team", "delete", "science")
    account = ada.json("org", "accounts", "create", "ci", "--role", "developer")["serviceAccountId"]
    made = ada.json("org", "keys", "create", "ci", "--account", account)
    assert made["apiKey"]["ownerId"] == account
    assert account in ada("org", "accounts", "list")
    ada("org", "keys", "revoke", made["apiKey"]["keyId"])
    ada("org", "accounts", "delete", account)
    ada("org", "remove", grace.email)
    time.sleep(0.5)
    said = grace.refused("org", "members")
    assert "NOT_A_MEMBER" in said
    assert "mercat org use" in said
    grace("org", "use", grace.name)
    assert grace.json("whoami")["organisation"] == grace.name
    assert "LAST_OWNER" in ada.refused("org", "leave")
    assert "no member" in ada.refused("org", "transfer", grace.name)

    def acts() -> list[str]:
        return [e["action"].rpartition("/")[2] for e in ada.json("audit", "list")["entries"]]

    deadline = time.monotonic() + 10
    while "RemoveMember" not in acts() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert set(acts()) == {
        "AcceptInvitation", "AddTeamMember", "CreateApiKey", "CreateInvitation", "CreateOrganisationKey",
        "CreateServiceAccount", "CreateTeam", "DeleteServiceAccount", "DeleteTeam", "RemoveMember", "RemoveTeamMember",
        "RevokeOrganisationKey", "SetMemberRole", "SetRole", "UpdateTeam",
    }  # fmt: skip
    shown = ada("audit", "list", "--action", "SetMemberRole", "--details")
    assert '"role": "developer"' in shown  # before
    assert '"role": "auditor"' in shown  # after
    assert "Intact" in ada("audit", "verify")


def test_keys_from_making_to_rotating(person: Callable[[], Person]) -> None:
    ada = person()
    ada("topup", "100")
    made = ada.json(
        "keys", "create", "backend", "--scope", "inference:call", "--allow", "127.0.0.0/8", "--deny", "127.0.0.2",
        "--model", "ada/*", "--rate", "20", "--daily", "800:1000", "--budget", "50", "--expires", "30d",
    )  # fmt: skip
    key = made["apiKey"]["keyId"]
    assert made["apiKey"]["rules"] == {
        "allowedNetworks": ["127.0.0.0/8"], "deniedNetworks": ["127.0.0.2/32"], "models": ["ada/*"],
        "requireSignature": False,
    }  # fmt: skip
    shown = ada("keys", "show", key)
    for text in ("127.0.0.0/8", "127.0.0.2/32", "ada/*", "20 calls a second", "1,000 a day"):
        assert text in shown
    assert [b["keyId"] for b in ada.json("budgets", "list")["budgets"]] == [key]
    updated = ada.json("keys", "update", key, "--name", "front", "--model", "bob/*", "--never-expires")
    assert (updated["name"], updated.get("expiresAt")) == ("front", None)
    assert updated["rules"]["models"] == ["bob/*"]
    assert updated["rules"]["allowedNetworks"] == ["127.0.0.0/8"]
    rotated = ada.json("keys", "rotate", key, "--overlap", "2h")
    assert rotated["secret"] != made["secret"]
    assert "secret before" in ada("keys", "show", key)
    assert "ROTATION_UNDER_WAY" in ada.refused("keys", "rotate", key)
    ada("keys", "finish", key)
    assert "secret before" not in ada("keys", "show", key)
    assert "rules" not in ada.json("keys", "update", key, "--no-rules")
    assert "no network" in ada.refused("keys", "update", key, "--allow", "10.0.0.1/8")
    assert "mk_live_" in ada("keys", "rotate", key, "--overlap", "0s")


def test_a_key_whose_budget_cannot_be_set_is_not_left_behind(person: Callable[[], Person]) -> None:
    ada = person()
    assert ada.refused("keys", "create", "k", "--budget", "2000000000")
    assert [k["isActive"] for k in ada.json("keys", "list")["apiKeys"]] == [False]


def test_commands_sign_their_calls(person: Callable[[], Person], tmp_path: Path) -> None:
    ada = person()
    made = ada.json("keys", "create", "signed")
    key, secret = made["apiKey"]["keyId"], made["secret"]
    files = [tmp_path / name for name in ("ed25519.json", "hmac.json")]
    one = ada.json("keys", "signing", "create", key, "--out", str(files[0]))
    two = ada.json("keys", "signing", "create", key, "--out", str(files[1]), "--hmac")
    assert "cannot be made" in ada.refused("keys", "signing", "create", key, "--out", str(files[0]))
    assert all(file.stat().st_mode & 0o077 == 0 for file in files)
    listed = ada.json("keys", "signing", "list", key)["signingKeys"]
    assert [k["signingKeyId"] for k in listed] == [two["signingKeyId"], one["signingKeyId"]]
    assert ada.json("keys", "update", key, "--require-signature")["rules"]["requireSignature"]
    deadline = time.monotonic() + 20
    while "SIGNATURE_MISSING" not in ada.run("whoami", "--api-key", secret).stderr:
        assert time.monotonic() < deadline
    for file in files:
        assert ada.name in ada("whoami", "--api-key", secret, "--signing-key", str(file))
        assert "model" in ada("search", "--api-key", secret, "--signing-key", str(file))
    ada("keys", "signing", "delete", key, one["signingKeyId"])
    while "SIGNATURE_INVALID" not in ada.run("whoami", "--api-key", secret, "--signing-key", str(files[0])).stderr:
        assert time.monotonic() < deadline + 20
    assert "holds no signing key" in ada.refused("whoami", "--api-key", secret, "--signing-key", str(tmp_path))
    assert "rules" not in ada.json("keys", "update", key, "--no-require-signature")


def test_commands_give_what_is_known_and_forget_it(person: Callable[[], Person], tmp_path: Path) -> None:
    ada = person()
    archive = tmp_path / "me.zip"
    assert int(ada.json("account", "export", "--out", str(archive))["sizeBytes"]) == archive.stat().st_size
    assert archive.stat().st_mode & 0o077 == 0
    with zipfile.ZipFile(archive) as opened:
        assert json.loads(opened.read("auth/profile.jsonl"))["email"] == ada.email
    ada("account", "consent", "marketing")
    granted = [c["kind"] for c in ada.json("account", "consents")["consents"] if c.get("granted")]
    assert granted == ["KIND_MARKETING_MAIL"]
    assert ada.json("account", "delete", "--dry-run")["organisations"] == [ada.name]
    assert "is not yours" in ada.refused("account", "delete", "--yes", "somebody")
    erasure = ada.json("account", "delete", "--yes", ada.name)["erasureId"]
    assert "not logged in" in ada.refused("whoami")
    deadline = time.monotonic() + 60
    while not ada.json("account", "erasure", erasure).get("done"):
        assert time.monotonic() < deadline, ada("account", "erasure", erasure)
        time.sleep(0.5)
