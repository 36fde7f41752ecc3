"""A home: the folder with all state of one installation. Checked before anything is started, locked while it runs."""

import contextlib
import fcntl
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from services.common.rpc.mutual import Mutual
from services.embedded.errors import StartError
from services.embedded.server import kept_secret, write_private
from services.embedded.settings import UpSettings
from services.embedded.tls import internal

LAYOUT = 1  # raised when a home of before cannot be used as it is


@dataclass
class Home:
    """Names of what lies in the folder, and what must hold of it."""

    path: Path
    _lock: int | None = None

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def connection(self) -> Path:
        return self.path / "connection.json"

    @property
    def state(self) -> Path:
        return self.path / "run" / "state.json"

    @property
    def restart(self) -> Path:
        """Where a rolling restart is asked for."""
        return self.path / "run" / "restart.json"

    @property
    def jwt_key(self) -> Path:
        return self.path / "secrets" / "jwt.pem"

    @property
    def artifacts(self) -> Path:
        return self.path / "artifacts"

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def secret(self, name: str) -> str:
        """A password of this home, made on first use."""
        return kept_secret(self.path / "secrets" / name)

    def mutual(self, settings: UpSettings) -> Mutual | None:
        """What Mercat's processes show each other: what they are given, else of this home's authority where that is
        asked for."""
        given = Mutual.of(settings)
        return given or (internal(self.path / "tls") if settings.internal_tls else None)

    def open(self, *, min_free_mb: int) -> None:
        """Makes the folder or checks it, and takes its lock. StartError says what is in the way."""
        self.make()
        self._check_layout()
        self._check_space(min_free_mb)
        self._take_lock()
        for folder in (self.logs, self.artifacts, self.path / "secrets"):
            folder.mkdir(mode=0o700, exist_ok=True)
        if not self.jwt_key.exists():
            key = Ed25519PrivateKey.generate()
            text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
            write_private(self.jwt_key, text)

    def close(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def is_locked(self) -> bool:
        """Whether a Mercat runs in this home now."""
        with contextlib.suppress(OSError):
            descriptor = os.open(self.path / "run" / "lock", os.O_RDWR)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            finally:
                os.close(descriptor)
        return False

    def owner(self) -> int | None:
        """Process id of the Mercat that runs in this home."""
        if not self.is_locked():
            return None
        try:
            return int((self.path / "run" / "lock").read_text())
        except (OSError, ValueError):
            return None

    def make(self) -> None:
        """Makes the folder. StartError when it cannot be written."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self.path / "run").mkdir(mode=0o700, exist_ok=True)
            probe = self.path / "run" / f".probe.{os.getpid()}"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            if error.errno == 28:  # ENOSPC
                raise StartError(
                    f"The disk of {self.path} is full; free some space, or choose --home elsewhere."
                ) from error
            raise StartError(
                f"The home {self.path} cannot be written ({error.strerror}); "
                "choose another with --home, or make it yours."
            ) from error

    def _check_layout(self) -> None:
        path = self.path / "version.json"
        try:
            layout = int(json.loads(path.read_text())["layout"])
        except FileNotFoundError:
            others = {entry.name for entry in self.path.iterdir()} - {"run", "mercat.toml", ".gitignore", "logs"}
            if others:
                raise StartError(
                    f"{self.path} has files in it that are not Mercat's ({min(others)}); "
                    "choose an empty folder with --home."
                ) from None
            write_private(path, json.dumps({"layout": LAYOUT}) + "\n")
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StartError(
                f"{path} cannot be read as Mercat's; put it back from a backup, or choose another --home."
            ) from error
        if layout > LAYOUT:
            raise StartError(
                f"The home {self.path} was made by a newer Mercat (layout {layout}, this one knows {LAYOUT}); "
                "update Mercat, or choose another home with --home."
            )

    def _check_space(self, min_free_mb: int) -> None:
        free = shutil.disk_usage(self.path).free // (1024 * 1024)
        if free < min_free_mb:
            raise StartError(
                f"The disk of {self.path} has {free} MiB free and Mercat needs {min_free_mb}; "
                "free some space, or choose another home with --home."
            )

    def _take_lock(self) -> None:
        descriptor = os.open(self.path / "run" / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise StartError(
                f"Mercat runs in {self.path} already; see `mercat status`, "
                "end it with `mercat down`, or choose another --home."
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        self._lock = descriptor
