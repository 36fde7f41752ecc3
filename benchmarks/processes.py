"""Processor time and memory of processes with all that they started."""

import contextlib
from collections.abc import Mapping

import psutil


def cpu_seconds(pids: Mapping[str, int]) -> dict[str, float]:
    """Processor time so far, user and system, by name; a process counts with its children, those that ended too."""
    return {name: sum(_seconds(process) for process in _family(pid)) for name, pid in pids.items()}


def spent(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """What was taken between two readings, seconds. A child that ended unwaited-for may be missing from the second."""
    return {name: max(0.0, seconds - before.get(name, 0.0)) for name, seconds in after.items()}


def memory_mib(pid: int) -> tuple[float, float]:
    """Memory of a process that is its own (USS) and all that it has in RAM (RSS), MiB."""
    info = psutil.Process(pid).memory_full_info()
    return info.uss / 2**20, info.rss / 2**20


def _family(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


def _seconds(process: psutil.Process) -> float:
    with contextlib.suppress(psutil.NoSuchProcess):
        t = process.cpu_times()
        return float(t.user + t.system + t.children_user + t.children_system)
    return 0.0
