"""Who is calling and where to: options, environment, `connection.json` and the logins kept between commands.

Logins lie in `$XDG_CONFIG_HOME/mercat/credentials.json` (`~/.config/mercat`), readable by their owner alone, by profile
and by server: a token is never sent to another server than the one that gave it.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

DEFAULT_PROFILE = "default"
DEFAULT_SERVER = "127.0.0.1:8000"
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


class Refusal(Exception):
    """The command cannot go on, for a reason found before any call. Exit status 1."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class Target:
    """A server. `ca`: file with the authority to trust instead of the system's."""

    address: str
    tls: bool
    ca: str = ""

    @property
    def host(self) -> str:
        return self.address.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])


@dataclass
class Login:
    """A session as it is kept; times in seconds since 1970."""

    email: str
    username: str
    access_token: str
    access_expires_at: float
    refresh_token: str
    refresh_expires_at: float
    organisation: str = ""  # the handle of the one it is for


def parse_server(text: str, ca: str = "") -> Target:
    """`HOST:PORT`, `http://HOST:PORT` or `https://HOST[:PORT]`. Without a scheme only this machine is spoken to in the
    clear: a key must not cross a network that way unless somebody asked for it. Refusal when it is none of these."""
    scheme, separator, rest = text.strip().partition("://")
    if not separator:
        scheme, rest = "", text.strip()
    rest = rest.rstrip("/")
    host, _, port = rest.rpartition(":")
    if scheme == "https" and (not host or rest.endswith("]")):
        host, port = rest, "443"
    if scheme not in ("", "http", "https") or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise Refusal(f"{text!r} is no server address.", "write it as HOST:PORT, http://HOST:PORT or https://HOST:PORT")
    tls = scheme == "https" or (not scheme and host not in _LOOPBACK)
    return Target(f"{host}:{port}", tls, ca)


def home() -> Path:
    """The home whose `connection.json` is read: MERCAT_HOME, else `.mercat` here."""
    return Path(os.environ.get("MERCAT_HOME") or ".mercat").expanduser()


def mail_folder() -> Path:
    """Where a platform without an SMTP server puts its mail."""
    return home() / "mail"


def connection() -> Mapping[str, Any]:
    """What `mercat up` wrote for clients; empty when there is nothing to read."""
    try:
        document = json.loads((home() / "connection.json").read_text())
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


class Logins:
    """The file of logins. Its lock is held while a token is renewed, since a refresh token works once: two commands at
    the same time must not both spend it."""

    def __init__(self, path: Path | None = None) -> None:
        config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
        self.path = path or config / "mercat" / "credentials.json"

    @contextmanager
    def locked(self) -> Iterator[None]:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise Refusal(
                f"{self.path.parent} cannot be written ({error.strerror}).",
                "make it yours, or choose another folder with XDG_CONFIG_HOME",
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _read(self) -> dict[str, Any]:
        try:
            document = json.loads(self.path.read_text())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise Refusal(f"{self.path} cannot be read.", "delete it and log in again with `mercat login`") from error
        return document if isinstance(document, dict) else {}

    def _write(self, document: Mapping[str, Any]) -> None:
        draft = self.path.with_suffix(f".{os.getpid()}.tmp")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(document, file, indent=2)
        draft.replace(self.path)

    def get(self, profile: str, server: str) -> Login | None:
        kept = self._read().get("profiles", {}).get(profile, {}).get("logins", {}).get(server)
        try:
            return Login(**kept) if kept else None
        except TypeError:
            return None

    def put(self, profile: str, server: str, login: Login | None) -> None:
        """Keeps a login, and the server as the profile's own; None forgets it. Call it under `locked`."""
        document = self._read()
        mine = document.setdefault("profiles", {}).setdefault(profile, {})
        logins = mine.setdefault("logins", {})
        if login is None:
            logins.pop(server, None)
        else:
            mine["server"] = server
            logins[server] = asdict(login)
        self._write(document)

    def server_of(self, profile: str) -> str:
        """The server of the profile's latest login."""
        return str(self._read().get("profiles", {}).get(profile, {}).get("server", ""))


def find_target(server: str, profile: str, logins: Logins) -> Target:
    """Where to: what was asked for, the server of a profile that was named, `connection.json`, the server of the last
    login, this machine's port 8000."""
    ca = os.environ.get("MERCAT_CA", "")
    if server:
        return parse_server(server, ca)
    if profile and (known := logins.server_of(profile)):
        return parse_server(known, ca)
    if address := str(connection().get("grpc", "")):
        return parse_server(f"http://{address}")
    return parse_server(logins.server_of(DEFAULT_PROFILE) or DEFAULT_SERVER, ca)


def name_of(target: Target) -> str:
    """How logins name a server."""
    return f"{'https' if target.tls else 'http'}://{target.address}"
