"""What runs in a home: written by the supervisor at every change, read by `mercat status`, `logs` and `down`."""

import contextlib
import os
import time
from pathlib import Path

import psutil
from pydantic import BaseModel

from services.embedded.process import Child
from services.embedded.server import write_private

STARTING, READY, STOPPING, STOPPED, FAILED = "starting", "ready", "stopping", "stopped", "failed"
EXTERNAL = "external"
_SAME = 2.0  # seconds two readings of a process's birth may differ


class Part(BaseModel):
    """A process. `born` is its creation time by the kernel: with the pid it is its identity."""

    name: str
    state: str
    pid: int | None = None
    born: float = 0.0
    restarts: int = 0
    ready_seconds: float = 0.0
    detail: str = ""


class Restart(BaseModel):
    """A rolling restart that was asked for: the parts, and how many of them are done."""

    id: str
    parts: list[str] = []
    done: int = 0
    finished: bool = False
    error: str = ""


class Status(BaseModel):
    """All of a home. Times in seconds since the epoch."""

    phase: str = STARTING
    home: str = ""
    pid: int = 0
    started: float = 0.0
    ready: float = 0.0
    note: str = ""
    error: str = ""
    parts: list[Part] = []
    restart: Restart | None = None

    @classmethod
    def read(cls, path: Path) -> "Status | None":
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValueError):
            return None

    def save(self, path: Path) -> None:
        write_private(path, self.model_dump_json(indent=1))

    def put(self, child: Child) -> Part:
        """Takes over how a child is now."""
        part = self.part(child.spec.name)
        part.state, part.detail = str(child.state), child.detail
        part.restarts, part.ready_seconds = child.restarts, child.ready_seconds
        if part.pid != child.pid:
            part.pid, part.born = child.pid, _born(child.pid)
        return part

    def part(self, name: str) -> Part:
        for part in self.parts:
            if part.name == name:
                return part
        self.parts.append(Part(name=name, state="waiting"))
        return self.parts[-1]


def _born(pid: int | None) -> float:
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).create_time() if pid else 0.0
    return 0.0


def end_leftovers(status: Status, patience: float = 10.0) -> list[str]:
    """Ends what a supervisor that was killed left running; answers the names. They were told to end by the kernel
    when it died (on Linux), so most are already on their way."""
    left = []
    for part in status.parts:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(part.pid) if part.pid else None
            if process is not None and abs(process.create_time() - part.born) < _SAME and process.pid != os.getpid():
                left.append((part.name, process))
    for _, process in left:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, alive = psutil.wait_procs([process for _, process in left], timeout=patience)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, timeout=5)
    return [name for name, _ in left]


def now() -> float:
    return time.time()
