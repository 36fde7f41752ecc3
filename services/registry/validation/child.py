"""One child process: started, bounded, ended, and its report read."""

import asyncio
import contextlib
import errno
import json
import logging
import os
import signal
import stat
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from services.registry.validation.report import Finding, Limits, Report

log = logging.getLogger(__name__)
_MOST_OUTPUT = 4 * 1024 * 1024  # bytes
_LOOK = 0.5  # seconds between two looks at a folder that a child fills


async def run(argv: Sequence[str], limits: Limits, folder: Path, *, most: int = 0) -> Report:
    """The report of a program, whose arguments its limits follow as JSON. `folder` is its working directory and home;
    with `most`, what it leaves there may have so many bytes. Whatever happens to the child, the answer is a report.
    Raises OSError when it cannot be started, or there is no room for what it writes."""
    with tempfile.TemporaryFile() as said:
        child = await asyncio.create_subprocess_exec(
            *argv, json.dumps(asdict(limits)), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=said, cwd=folder, env=_environment(folder), start_new_session=True,
        )  # fmt: skip
        watch = asyncio.create_task(_watch(child, folder, most)) if most else None
        try:
            async with asyncio.timeout(limits.wall_seconds):
                out = await _read(child)
        except TimeoutError:
            return refused("VALIDATION_TIMEOUT", f"not done after {limits.wall_seconds:g} seconds")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)  # and whatever it may have started
            await child.wait()
            if watch is not None:
                watch.cancel()
        said.seek(0)
        complaint = said.read(_MOST_OUTPUT)[-2000:].decode(errors="replace")
    if watch is not None and watch.done() and not watch.cancelled():
        return refused("VALIDATION_DISK", f"it fills the disk with more than {most >> 20} MiB")
    if child.returncode == 0 and len(out) <= _MOST_OUTPUT:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            return Report.from_json(out.decode())
    if child.returncode == -signal.SIGXCPU:
        return refused("VALIDATION_CPU", f"more than {limits.cpu_seconds} seconds of processor time")
    if child.returncode == 3:
        return refused("VALIDATION_MEMORY", f"more than {limits.memory_bytes >> 20} MiB of memory")
    if child.returncode == 4:
        raise OSError(errno.ENOSPC, "no room for what a validation writes")
    if child.returncode == -signal.SIGKILL:
        log.warning("a validation was killed from outside; is the machine short of memory?")
        return refused("VALIDATION_KILLED", "the system ended the process that opened it, as when memory runs out")
    log.warning("a validation ended with %s: %s", child.returncode, complaint)
    return refused("VALIDATION_CRASHED", "opening the artifact crashed the process that opened it")


def refused(code: str, message: str) -> Report:
    return Report(findings=(Finding(code, message),))


def plain(path: Path) -> bool:
    """Not a link, say, to a file that the child may read and others may not: an artifact may have taken it over."""
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1


async def _watch(child: asyncio.subprocess.Process, folder: Path, most: int) -> None:
    """Ends a child that has written too much; then, and only then, it returns."""
    held = 0
    while held <= most:
        await asyncio.sleep(_LOOK)
        held = await asyncio.to_thread(_held, folder)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


def _held(folder: Path) -> int:
    """Bytes of the files below a folder."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(f"{where}/{name}").st_size
    return total


async def _read(child: asyncio.subprocess.Process) -> bytes:
    """What a child says until it has ended, or one piece more than it may."""
    assert child.stdout is not None
    out = bytearray()
    while piece := await child.stdout.read(1 << 16):
        out += piece
        if len(out) > _MOST_OUTPUT:
            return bytes(out)
    await child.wait()
    return bytes(out)


def _environment(folder: Path) -> dict[str, str]:
    """Nothing of ours: no secrets, no addresses; only what finding Python's packages needs."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LD_LIBRARY_PATH") if name in os.environ}
    source = Path(__file__).parents[3]
    return kept | {
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "PYTHONPATH": f"{source}:{source / 'gen'}",
        "OMP_NUM_THREADS": "1",
    }
