"""Somebody who uses Mercat by the command line alone."""

import json
import os
import subprocess
import sys
from pathlib import Path
from secrets import token_hex
from typing import Any

from tests.platform import PASSWORD, Platform

MERCAT = (sys.executable, "-m", "services.cli.main")


class Person:
    """At a terminal of their own: their logins lie in `folder`, their models are `name/…`."""

    def __init__(self, platform: Platform, folder: Path, name: str = "") -> None:
        self.folder = folder
        self.name = name
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MERCAT_")}
        self.environment = kept | {
            "XDG_CONFIG_HOME": str(folder), "MERCAT_HOME": str(platform.home), "NO_COLOR": "1",
        }  # fmt: skip

    @classmethod
    def signed_up(cls, platform: Platform, folder: Path, *signup: str, name: str = "") -> "Person":
        """Somebody new, logged in."""
        name = name or f"e{token_hex(5)}"
        made = cls(platform, folder / name, name)
        made("signup", f"{name}@example.com", name, "--password-stdin", *signup, stdin=PASSWORD)
        return made

    @classmethod
    def admin(cls, platform: Platform, folder: Path) -> "Person":
        made = cls(platform, folder / "admin", "admin")
        made("login", "--demo", "admin")
        return made

    def run(self, *words: str, stdin: str = "", **variables: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*MERCAT, *words], env=self.environment | variables, input=stdin, capture_output=True, text=True,
            timeout=180, check=False,
        )  # fmt: skip

    def __call__(self, *words: str, stdin: str = "", **variables: str) -> str:
        """What a command that succeeds prints."""
        done = self.run(*words, stdin=stdin, **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def told(self, *words: str, **variables: str) -> str:
        """What a command that succeeds says beside its answer."""
        done = self.run(*words, **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stderr

    def json(self, *words: str, stdin: str = "", **variables: str) -> Any:
        return json.loads(self(*words, "--json", stdin=stdin, **variables))

    def refused(self, *words: str, status: int = 1, **variables: str) -> str:
        """What a command that is refused says."""
        done = self.run(*words, **variables)
        assert done.returncode == status, done
        assert "Traceback" not in done.stderr
        return done.stderr
