"""Where a secret is: `file:/path`, `env:NAME`, `vault:PATH#FIELD`, or the text itself. One way to ask for all."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path

_OTHERS = 0o077  # permission bits of everybody but the owner


class SecretUnavailable(Exception):
    """A secret is not where it should be, or where others could read it too. The text never holds it."""


class Source(ABC):
    """A place that keeps secrets by name."""

    @abstractmethod
    def get(self, name: str) -> str:
        """Raises SecretUnavailable."""


class FileSource(Source):
    """Files, each one secret, that only their owner can read: this process's user, or root."""

    def get(self, name: str) -> str:
        path = Path(name)
        owner_only(path)
        try:
            return path.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SecretUnavailable(f"{path} cannot be read ({type(error).__name__})") from error


class EnvironmentSource(Source):
    """Variables of the environment."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._environment = environment

    def get(self, name: str) -> str:
        value = self._environment.get(name, "")
        if not value:
            raise SecretUnavailable(f"the variable {name} is not set")
        return value


def owner_only(path: Path) -> None:
    """Raises SecretUnavailable unless nobody but its owner can read or write the file."""
    try:
        found = path.stat()
    except OSError as error:
        raise SecretUnavailable(f"{path} cannot be read ({error.strerror})") from error
    if found.st_mode & _OTHERS:
        raise SecretUnavailable(f"{path} can be read by others than its owner; `chmod 600 {path}`")
    if found.st_uid not in (0, os.geteuid()) and os.geteuid() != 0:
        raise SecretUnavailable(f"{path} belongs to somebody else")


def _vault() -> Source:
    from services.common.secrets.vault import VaultSource  # which only those import who have one

    return VaultSource.connect()


_SOURCES: Mapping[str, Callable[[], Source]] = {"file": FileSource, "env": EnvironmentSource, "vault": _vault}


def resolve(text: str) -> str:
    """The secret that a setting names, or is. Raises SecretUnavailable."""
    scheme, colon, name = text.partition(":")
    if not colon or scheme not in _SOURCES or name.startswith("//"):  # file:///… is the address of a folder
        return text
    return _SOURCES[scheme]().get(name)
