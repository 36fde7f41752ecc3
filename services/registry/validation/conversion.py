"""Has a model of another framework converted, and what was made of it examined and compared with its source."""

import json
import shutil
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from services.registry.validation.child import plain, refused, run
from services.registry.validation.report import Limits, Report, Tensor

MODEL, CASES = "model.onnx", "cases.npz"
_LIMITS = Limits(
    memory_bytes=24 * 1024**3,  # address space; frameworks map all that they might use
    cpu_seconds=600, wall_seconds=600.0, file_bytes=4 * 1024**3,
)  # fmt: skip
_MOST_DISK = 12 * 1024**3  # bytes of all that a conversion writes


@dataclass(frozen=True)
class Told:
    """What a converter goes by besides the artifact: what its publisher declares, Predict requests as JSON that show
    it, and the interpreter that has the framework; empty: Mercat's own."""

    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[str, ...] = ()
    samples: tuple[str, ...] = ()
    python: str = ""


async def converted(path: Path, made: Path, seen: Report, told: Told) -> Report:
    """The report of what was made of an artifact of `seen.form`, which is written to `made`. Raises OSError."""
    folder = made.parent / f"{made.name}.conversion"
    folder.mkdir(mode=0o700)
    try:
        report = await _convert(path, folder, seen, told)
        if report.made:
            # By the engine that will serve it, in the process where any other model is examined.
            argv = [sys.executable, "-m", "services.registry.validation", str(folder / MODEL), str(made)]
            report = await run([*argv, str(folder / CASES)], Limits(), folder)
            if not report.findings:
                (folder / MODEL).replace(made)
                report = replace(report, made=True)
        return replace(report, framework=seen.framework, form=seen.form)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _convert(path: Path, folder: Path, seen: Report, told: Told) -> Report:
    task = json.dumps({"form": seen.form} | {k: v for k, v in asdict(told).items() if k != "python"})
    argv = [
        told.python or sys.executable,
        "-m",
        "services.registry.validation.frameworks",
        str(path),
        str(folder),
        task,
    ]
    try:
        report = await run(argv, _LIMITS, folder, most=_MOST_DISK)
    except (FileNotFoundError, PermissionError):
        return refused("CONVERTER_MISSING", "MERCAT_CONVERTERS names no Python interpreter; tell the operator")
    if report.made and not (plain(folder / MODEL) and plain(folder / CASES)):
        return refused("CONVERSION_FAILED", "the converter ended without having written a model")
    return report
