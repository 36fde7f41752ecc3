"""Has a version's samples run on what is served of it."""

import contextlib
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from services.registry.validation.child import plain, run
from services.registry.validation.report import Finding, Limits, Report
from services.registry.validation.samples import AT, Task

_CPU = 20  # seconds for each sample


@dataclass(frozen=True)
class Samples:
    """What a publisher gave: requests as JSON, and their titles. `most_rows` of a call, 0: any number; `context`:
    tokens of a text call, where the model takes as many."""

    requests: tuple[str, ...]
    titles: tuple[str, ...]
    most_rows: int = 0
    context: int = 2048

    def name(self, number: int) -> str:
        return f"samples[{number}] {self.titles[number]}".strip()


async def tried(path: Path, report: Report, samples: Samples, folder: Path) -> Report:
    """The report of a model that is fit to be served, at `path`, with what its samples gave, or what is wrong with
    them. Raises OSError."""
    names = tuple(samples.name(i) for i in range(len(samples.requests)))
    task = Task(samples.requests, names, samples.most_rows, samples.context, report.inputs, report.outputs)
    given = folder / "samples.json"
    given.write_text(task.to_json())
    limits = _limits(path, len(names))
    argv = [sys.executable, "-m", "services.registry.validation.samples", str(path), str(given)]
    seen = await run(argv, limits, folder)
    at = folder / AT
    findings = tuple(named(finding, at, names) for finding in seen.findings)
    return replace(report, findings=findings, samples=seen.samples)


def named(finding: Finding, at: Path, names: tuple[str, ...]) -> Finding:
    """What ended the child was the sample that it was at."""
    if finding.where or not plain(at):
        return finding
    with contextlib.suppress(OSError, ValueError, IndexError):
        return replace(finding, where=names[int(at.read_text()[:10])])
    return finding


def _limits(path: Path, samples: int) -> Limits:
    usual = Limits()
    memory, cpu = usual.memory_bytes + 2 * path.stat().st_size, usual.cpu_seconds + _CPU * samples
    return replace(usual, memory_bytes=memory, cpu_seconds=cpu, wall_seconds=2.0 * cpu)
