"""Other servers, each in an environment of its own below benchmarks/.envs, made on demand from exact versions.

The modules beside this one run in those environments, not in Mercat's."""

import contextlib
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parent / ".envs"


class PeerError(Exception):
    """A peer cannot be measured here; the text says why."""


def python(name: str, tell: Callable[[str], None], *, build: Sequence[str] = ()) -> Path:
    """The Python of an environment, which is made first when it is not there or its versions changed. `build`: pip's
    options where something must be compiled.

    Raises PeerError when a package cannot be installed.
    """
    wanted = HERE / f"{name}.txt"
    folder = ENVIRONMENTS / name
    mark, content = folder / ".installed", _digest(wanted, build)
    executable = folder / "bin" / "python"
    if mark.exists() and mark.read_text() == content:
        return executable
    takes = "about ten minutes, as it is compiled" if build else "about a minute"
    tell(f"installing {name} into {os.path.relpath(folder)}: once, {takes} …")
    shutil.rmtree(folder, ignore_errors=True)
    pip = [str(executable), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", *build]
    # Named one by one: pip before 23.3 does not use `--config-settings` for what stands in a file.
    packages = [line for line in wanted.read_text().splitlines() if line and not line.startswith("#")]
    for command in ([sys.executable, "-m", "venv", str(folder)], [*pip, *packages]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise PeerError(f"{name} cannot be installed: {done.stderr.strip()[-500:]}")
    mark.write_text(content)
    return executable


def _digest(wanted: Path, build: Sequence[str]) -> str:
    return hashlib.sha256(wanted.read_bytes() + "".join((sys.version, *build)).encode()).hexdigest()


def version(name: str, package: str) -> str:
    """The version of a package in a peer's list. Raises KeyError when it is not in it."""
    lines = (HERE / f"{name}.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line)[package]


class Server:
    """A peer's process. Stopped by leaving the `with`."""

    def __init__(self, name: str, argv: Sequence[str], port: int, folder: Path, env: Mapping[str, str]) -> None:
        self.name, self.port = name, port
        self._log = folder / f"{name}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                argv, cwd=folder, env={**os.environ, **env}, stdout=log, stderr=subprocess.STDOUT
            )

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait(self, ready: Callable[[], bool], timeout: float = 60) -> None:
        """Returns when it answers. Raises PeerError with the end of its log when it does not."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and self._process.poll() is None:
            if ready():
                return
            time.sleep(0.2)
        raise PeerError(f"{self.name} does not answer: {self._log.read_text(errors='replace').strip()[-500:]}")

    def close(self) -> None:
        """Stops it, and what it started: LitServe leaves its workers behind."""
        children = psutil.Process(self.pid).children(recursive=True) if self._process.poll() is None else []
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        psutil.wait_procs(children, timeout=5)

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def listening(port: int) -> bool:
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0
