"""Places elsewhere that people have accounts at, each a process of its own: an OpenID provider, and a GitHub."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx

from tests import github_server, processes
from tests.platform import free_port


class Elsewhere:
    """What tests make known there, and where browsers are sent back to."""

    def __init__(self) -> None:
        provider, github = free_port(), free_port()
        self.issuer, self.github = f"http://127.0.0.1:{provider}", f"http://127.0.0.1:{github}"
        self._provider = self._start("oidc_provider_mock", "--port", str(provider))
        self._github = self._start("tests.github_server", str(github))
        for url in (self.issuer, self.github):
            _until_listens(url)

    def _start(self, module: str, *arguments: str) -> "subprocess.Popen[bytes]":
        return processes.start([sys.executable, "-m", module, *arguments], stderr=subprocess.DEVNULL, env=os.environ)

    def stop(self) -> None:
        for process in (self._provider, self._github):
            process.terminate()
            process.wait(10)

    @property
    def settings(self) -> dict[str, str]:
        """Of a platform that people of here sign in to. Acme owns its people's addresses."""
        oidc = {"client_id": "mercat", "client_secret": "a secret", "issuer": self.issuer}
        listed = [
            {"id": "acme", "name": "Acme", "trusted": True, **oidc},
            {"id": "sloppy", **oidc},
            {"id": "github", "issuer": self.github, "client_id": github_server.CLIENT,
             "client_secret": github_server.SECRET},
        ]  # fmt: skip
        return {"MERCAT_IDENTITY_PROVIDERS": json.dumps(listed)}

    def put(self, subject: str, **claims: object) -> None:
        httpx.put(f"{self.issuer}/users/{subject}", json=claims).raise_for_status()

    def authorize(self, url: str, subject: str) -> str:
        """Somebody opens the page and signs in: where their browser is sent."""
        return _sent(httpx.post(url, data={"sub": subject}))

    def deny(self, url: str) -> str:
        return _sent(httpx.post(url, data={"action": "deny"}))

    def put_github(self, login: str, **user: object) -> None:
        httpx.put(f"{self.github}/users/{login}", json=user).raise_for_status()

    def authorize_github(self, url: str, login: str) -> str:
        return _sent(httpx.get(url, params={**dict(httpx.QueryParams(urlsplit(url).query)), "login": login}))

    @contextmanager
    def github_away(self) -> Iterator[None]:
        """As long as it lasts nobody listens there."""
        self._github.send_signal(signal.SIGTERM)
        self._github.wait(10)
        try:
            yield
        finally:
            self._github = self._start("tests.github_server", self.github.rpartition(":")[2])
            _until_listens(self.github)


def _sent(answer: httpx.Response) -> str:
    assert answer.status_code in (302, 303), answer.text
    return answer.headers["location"]


def _until_listens(url: str) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            httpx.get(url)
        except httpx.TransportError:
            assert time.monotonic() < deadline, f"nobody listens at {url}"
            time.sleep(0.05)
        else:
            return
