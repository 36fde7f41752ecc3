"""Starts the child, bounds it, and reads its report."""

import asyncio
import contextlib
import errno
import json
import logging
import os
import signal
import stat
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

from services.registry.validation.formats import GGUF, framework
from services.registry.validation.report import Finding, Limits, Report

log = logging.getLogger(__name__)
_GGUF_SPEED = 4 * 1024**2  # bytes a second, at least, on the slowest machine
_MOST_OUTPUT = 4 * 1024 * 1024  # bytes


def limits(path: Path) -> Limits:
    """For one artifact. A GGUF file is written anew, and computed with twice."""
    usual = Limits()
    if framework(path) != GGUF:
        return usual
    size = path.stat().st_size
    seconds = usual.cpu_seconds + size // _GGUF_SPEED
    return replace(
        usual, memory_bytes=usual.memory_bytes + 2 * size, cpu_seconds=seconds, wall_seconds=2.0 * seconds,
        file_bytes=usual.artifact_bytes,
    )  # fmt: skip


async def validate(path: Path, limits: Limits, made: Path | None = None) -> Report:
    """Validates one artifact, by its absolute path. What can be served is written to `made` where the artifact cannot
    be; without it, to nowhere that is kept. Whatever the artifact does to the child, the answer is a report. Raises
    OSError when there is no room for what is to be written."""
    with tempfile.TemporaryDirectory(prefix="validate-") as folder, tempfile.TemporaryFile() as said:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "services.registry.validation", str(path), str(made or Path(folder, "made")),
            json.dumps(asdict(limits)),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=said,
            cwd=folder, env=_environment(folder), start_new_session=True,
        )  # fmt: skip
        try:
            async with asyncio.timeout(limits.wall_seconds):
                out = await _read(child)
        except TimeoutError:
            return _refused("VALIDATION_TIMEOUT", f"not done after {limits.wall_seconds:g} seconds")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)  # and whatever it may have started
            await child.wait()
        said.seek(0)
        complaint = said.read(_MOST_OUTPUT)[-2000:].decode(errors="replace")
    if child.returncode == 0 and len(out) <= _MOST_OUTPUT:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            report = Report.from_json(out.decode())
            if not report.made or (made is not None and _plain(made)):
                return report
    if child.returncode == -signal.SIGXCPU:
        return _refused("VALIDATION_CPU", f"more than {limits.cpu_seconds} seconds of processor time")
    if child.returncode == 3:
        return _refused("VALIDATION_MEMORY", f"more than {limits.memory_bytes >> 20} MiB of memory")
    if child.returncode == 4:
        raise OSError(errno.ENOSPC, "no room for what a validation writes")
    if child.returncode == -signal.SIGKILL:
        log.warning("a validation was killed from outside; is the machine short of memory?")
        return _refused("VALIDATION_KILLED", "the system ended the process that opened it, as when memory runs out")
    log.warning("a validation ended with %s: %s", child.returncode, complaint)
    return _refused("VALIDATION_CRASHED", "opening the artifact crashed the process that opened it")


def _plain(path: Path) -> bool:
    """Not a link, say, to a file that the child may read and others may not: an artifact may have taken it over."""
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1


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


def _refused(code: str, message: str) -> Report:
    return Report(findings=(Finding(code, message),))


def _environment(folder: str) -> dict[str, str]:
    """Nothing of ours: no secrets, no addresses; only what finding Python's packages needs."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LD_LIBRARY_PATH") if name in os.environ}
    source = Path(__file__).parents[3]
    return kept | {"HOME": folder, "TMPDIR": folder, "PYTHONPATH": f"{source}:{source / 'gen'}", "OMP_NUM_THREADS": "1"}
