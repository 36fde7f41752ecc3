"""Has an artifact examined and, where it cannot be served as it is, made into what can be."""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from services.registry.validation.child import plain, refused, run
from services.registry.validation.conversion import Told, converted
from services.registry.validation.formats import GGUF, framework
from services.registry.validation.report import Limits, Report

_GGUF_SPEED = 4 * 1024**2  # bytes a second, at least, on the slowest machine


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


async def validate(path: Path, limits: Limits, made: Path | None = None, told: Told | None = None) -> Report:
    """Validates one artifact, by its absolute path. What can be served is written to `made` where the artifact cannot
    be; without it, to nowhere that is kept. Whatever the artifact does to the child, the answer is a report. Raises
    OSError when there is no room for what is to be written."""
    with tempfile.TemporaryDirectory(prefix="validate-") as folder:
        target = made or Path(folder, "made")
        argv = [sys.executable, "-m", "services.registry.validation", str(path), str(target)]
        report = await run(argv, limits, Path(folder))
        if report.form and not report.findings:
            report = await converted(path, target, report, told or Told())
        if report.made and not plain(target):
            return refused("VALIDATION_CRASHED", "opening the artifact crashed the process that opened it")
    return report
