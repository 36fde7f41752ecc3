"""One child process: started in a session of its own, its output in a file, probed until ready, restarted when it dies,
with growing pauses while that does not help, and ended by signal."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

from services.embedded.errors import ChildFailed

BACKOFF_FIRST = 0.2  # seconds
LOOK = 3.0  # seconds from one look at whether a process is stuck to the next
LOG_LIMIT = 32 * 1024 * 1024  # bytes; a longer log is set aside once when its process is started
_SPAWN = str(Path(__file__).with_name("spawn.py"))


class State(StrEnum):
    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass(frozen=True)
class User:
    """Whom a process runs as when its starter is root. `reach`: it may enter folders that are not its own."""

    uid: int
    gid: int
    reach: bool = False


@dataclass(frozen=True)
class Spec:
    """How a process is started, known to be ready, and stopped. Times in seconds."""

    name: str
    argv: Sequence[str]
    log: Path
    ready: Callable[[], Awaitable[bool]]
    env: Mapping[str, str] | None = None
    cwd: Path | None = None
    user: User | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    start_timeout: float = 60.0
    stop_timeout: float = 10.0
    restart_pause: float = 10.0  # the longest; the first is `BACKOFF_FIRST`
    leaves: bool = False  # ends by itself once its successor is there
    stuck: Callable[[], Awaitable[bool]] | None = None  # asked now and then: whether only a new start helps


@dataclass
class Child:
    """A process under a Spec. With `supervised`, its death is repaired until `stop`. `generation`: how many processes
    handed over to each other until this one."""

    spec: Spec
    supervised: bool = False
    on_change: Callable[["Child"], None] = lambda child: None
    state: State = State.WAITING
    restarts: int = 0
    ready_seconds: float = 0.0
    detail: str = ""
    generation: int = 0
    _process: asyncio.subprocess.Process | None = None
    _watch: asyncio.Task[None] | None = None
    _spawned: float = field(default=0.0)
    _answers_since: float | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def start(self) -> None:
        """Returns when the process answers its probe. ChildFailed when it ends or stays silent before that."""
        self._turn(State.STARTING)
        await self._spawn(self.spec)
        try:
            await self._until_ready(self.spec)
        except BaseException:
            await self._end(self._process, signal.SIGKILL, 0)
            self._turn(State.STOPPED)
            raise
        self._turn(State.READY)
        if self.supervised:
            self._watch = asyncio.create_task(self._repair())

    async def stop(self) -> None:
        """Ends the process and whatever it started: by its own signal first, by SIGKILL when its time is up."""
        await self._stop_watching()
        if self._process is None:
            return
        self._turn(State.STOPPING)
        await self._end(self._process, self.spec.stop_signal, self.spec.stop_timeout)
        self._turn(State.STOPPED)

    async def replace(self, successor: Spec) -> None:
        """Starts another process beside this one, and ends this one when that answers. ChildFailed when it does not:
        then this one goes on."""
        before, since = self._process, (self._spawned, self._answers_since)
        await self._stop_watching()
        try:
            await self._spawn(successor)
            try:
                await self._until_ready(successor)
            except BaseException:
                await self._end(self._process, signal.SIGKILL, 0)
                self._process, (self._spawned, self._answers_since) = before, since
                raise
            self.generation += 1
            self._turn(State.READY, "took over")
            try:
                if successor.leaves and before is not None:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(before.wait(), self.spec.stop_timeout)
                await self._end(before, self.spec.stop_signal, self.spec.stop_timeout)
            except asyncio.CancelledError:
                await self._end(before, signal.SIGKILL, 0)
                raise
        finally:
            if self.supervised:
                self._watch = asyncio.create_task(self._repair())

    def tell(self, number: signal.Signals) -> None:
        """Sends a signal that means something to the process, where it is there to hear it."""
        if self.pid is not None and self.state == State.READY:
            os.kill(self.pid, number)

    def end(self) -> None:
        """SIGKILL, and no other process in its place."""
        self.supervised = False
        self.kill()

    def kill(self) -> None:
        """SIGKILL, as a crash would be."""
        if self.pid is not None:
            os.kill(self.pid, signal.SIGKILL)

    async def exited(self) -> int:
        """The exit status of the process there is now (negative: a signal)."""
        return 0 if self._process is None else await self._process.wait()

    def _turn(self, state: State, detail: str = "") -> None:
        self.state, self.detail = state, detail
        self.on_change(self)

    async def _stop_watching(self) -> None:
        while self._watch is not None and not self._watch.done():
            self._watch.cancel()  # again where it is lost: `wait_for` of Python 3.11 does so when it ends just then
            await asyncio.wait([self._watch], timeout=0.1)
        self._watch = None

    async def _spawn(self, spec: Spec) -> None:
        self._answers_since = None
        self._process = await _launch(
            spec.argv, log=spec.log, env=spec.env, cwd=spec.cwd, user=spec.user, death_signal=spec.stop_signal
        )
        self._spawned = time.monotonic()

    async def _until_ready(self, spec: Spec) -> None:
        pause = 0.01
        while True:
            if self._process is None or self._process.returncode is not None:
                status = None if self._process is None else self._process.returncode
                raise ChildFailed(f"{spec.name} ended while starting ({describe_exit(status)}){self._last_words()}")
            with contextlib.suppress(OSError, EOFError, TimeoutError):
                if await asyncio.wait_for(spec.ready(), 5):
                    self._answers_since = time.monotonic()
                    self.ready_seconds = self._answers_since - self._spawned
                    return
            if time.monotonic() - self._spawned > spec.start_timeout:
                raise ChildFailed(f"{spec.name} was not ready after {spec.start_timeout:.0f} s{self._last_words()}")
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 0.2)

    def _last_words(self) -> str:
        lines = tail(self.spec.log, 8)
        said = "".join(f"\n    {line}" for line in lines)
        return f"; its log {self.spec.log} ends:{said}" if lines else f"; its log is {self.spec.log}."

    async def _repair(self) -> None:
        pause = 0.0
        while True:
            status = await self._exited_or_stuck()
            if not self.supervised:
                return
            served = time.monotonic() - self._answers_since if self._answers_since else 0.0
            pause = pause_before_restart(pause, served, self.spec.restart_pause)
            await self._end(self._process, signal.SIGKILL, 0)  # what it leaves behind in its session
            self.restarts += 1
            self.generation = 0
            self._turn(State.RESTARTING, f"{describe_exit(status)}; again in {pause:.1f} s")
            await asyncio.sleep(pause)
            try:
                await self._spawn(self.spec)
                await self._until_ready(self.spec)
            except (ChildFailed, OSError):
                await self._end(self._process, signal.SIGKILL, 0)  # one that runs and never answers
                continue
            self._turn(State.READY, f"restarted after {describe_exit(status)}")

    async def _exited_or_stuck(self) -> int:
        """The exit status; of one that is stuck, after it was ended."""
        while self.spec.stuck is not None:
            with contextlib.suppress(TimeoutError):
                return await asyncio.wait_for(self.exited(), LOOK)
            with contextlib.suppress(OSError, EOFError, TimeoutError):
                if await asyncio.wait_for(self.spec.stuck(), LOOK):
                    await self._end(self._process, self.spec.stop_signal, self.spec.stop_timeout)
        return await self.exited()

    @staticmethod
    async def _end(process: asyncio.subprocess.Process | None, first: signal.Signals, patience: float) -> None:
        if process is None:
            return
        if process.returncode is None and patience > 0:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(first)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), patience)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def pause_before_restart(before: float, served: float, longest: float) -> float:
    """Seconds until a process that died is started again. It answered for `served` seconds (0: it never did) after the
    last such pause, `before` (0: there was none). Only where starting it does not help do the pauses grow."""
    if served > before:
        return BACKOFF_FIRST
    return min(max(2 * before, BACKOFF_FIRST), longest)


async def run(argv: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None, user: User | None = None) -> int:
    """Runs a program to its end and answers its exit status; it does not outlive a cancellation."""
    process = await _launch(argv, log=log, env=env, cwd=None, user=user, death_signal=signal.SIGKILL)
    try:
        return await process.wait()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        raise


async def _launch(
    argv: Sequence[str],
    *,
    log: Path,
    env: Mapping[str, str] | None,
    cwd: Path | None,
    user: User | None,
    death_signal: signal.Signals,
) -> asyncio.subprocess.Process:
    with open_log(log) as output:
        return await asyncio.create_subprocess_exec(
            *bound(argv, death_signal, user),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=cwd,
            env=dict(os.environ if env is None else env),
            start_new_session=True,
        )


def bound(argv: Sequence[str], death_signal: signal.Signals, user: User | None = None) -> list[str]:
    """What becomes the program of `argv` (its path is whole), which gets a signal when the thread that starts it has
    died (on Linux)."""
    user = user if os.geteuid() == 0 else None
    launcher = [sys.executable, "-I", "-S", _SPAWN, str(os.getpid()), str(int(death_signal))]
    launcher += [str(user.uid), str(user.gid), str(int(user.reach))] if user else ["-1", "-1", "0"]
    return [*launcher, "--", *argv]


def open_log(path: Path) -> BinaryIO:
    """The log to append to; an overlong one is kept as `<name>.1`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > LOG_LIMIT:
        path.replace(path.with_suffix(path.suffix + ".1"))
    return path.open("ab")


def tail(path: Path, lines: int) -> list[str]:
    """The last lines of a log, from its last 64 KiB."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 65536))
            return file.read().decode(errors="replace").splitlines()[-lines:]
    except OSError:
        return []


def describe_exit(status: int | None) -> str:
    """An exit status in words."""
    if status is None:
        return "never started"
    if status < 0:
        try:
            return f"killed by {signal.Signals(-status).name}"
        except ValueError:
            return f"killed by signal {-status}"
    return f"exit status {status}"
