"""Has an artifact examined and, where it cannot be served as it is, made into what can be."""

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from services.registry.validation.child import plain, refused, run
from services.registry.validation.conversion import Told, converted
from services.registry.validation.formats import GGUF, framework
from services.registry.validation.report import File, Limits, Report
from services.registry.validation.trying import Samples, tried

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


async def validate(
    path: Path, limits: Limits, made: Path | None = None, told: Told | None = None, files: Sequence[File] = (),
    samples: Samples | None = None,
) -> Report:  # fmt: skip
    """Validates one artifact, by its absolute path, with the files that belong to it, and runs its samples on what is
    served. What can be served is written to `made` where the artifact cannot be; without it, to nowhere that is kept.
    Whatever the artifact does to the child, the answer is a report. Raises OSError when there is no room for what is to
    be written."""
    with tempfile.TemporaryDirectory(prefix="validate-") as folder:
        target = made or Path(folder, "made")
        if files:
            report = await _bundled(path, limits, target, files, Path(folder))
        else:
            report = await _alone(path, limits, target, told or Told(), Path(folder))
        if samples is not None and samples.requests and not report.findings:
            report = await tried(target if report.made else path, report, samples, Path(folder))
    return report


async def _alone(path: Path, limits: Limits, target: Path, told: Told, folder: Path) -> Report:
    argv = [sys.executable, "-m", "services.registry.validation", str(path), str(target)]
    report = await run(argv, limits, folder)
    if report.form and not report.findings:
        report = await converted(path, target, report, told)
    if report.made and not plain(target):
        return refused("VALIDATION_CRASHED", "opening the artifact crashed the process that opened it")
    return report


async def _bundled(path: Path, limits: Limits, target: Path, files: Sequence[File], folder: Path) -> Report:
    """Of the one file that is made of all of them."""
    whole = target.with_name(f"{target.name}.whole")
    try:
        argv = [sys.executable, "-m", "services.registry.validation.bundle", str(path), str(whole)]
        given = json.dumps([[file.path, file.name, file.role] for file in files])
        report = await run([*argv, given], replace(limits, file_bytes=limits.artifact_bytes), folder)
        if report.findings:
            return report
        if not plain(whole):
            return refused("VALIDATION_CRASHED", "opening the artifact crashed the process that opened it")
        argv = [sys.executable, "-m", "services.registry.validation", str(whole), str(target)]
        report = await run(argv, limits, folder)
        if not report.findings:
            whole.replace(target)
            report = replace(report, made=True)
        return report
    finally:
        whole.unlink(missing_ok=True)
