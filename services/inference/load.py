"""Load reports of this worker, as ORCA's text in a trailer (`endpoint-load-metrics`), by which Envoy may weigh workers.

One reply of each interval carries the report: the balancer needs no more."""

import asyncio
import time

import psutil

_INTERVAL = 0.25  # seconds
KEY = "endpoint-load-metrics"


class LoadReports:
    """The worker's and its engine's use of the processor, as a share of the cores they may use."""

    def __init__(self) -> None:
        self._report = ""
        self._calls = 0

    def take(self) -> str:
        """Counts a call; the report when it is this call's turn to carry it, else empty."""
        self._calls += 1
        report, self._report = self._report, ""
        return report

    async def keep(self) -> None:
        """Renews the report, for ever."""
        own = psutil.Process()
        cores = len(own.cpu_affinity() or (1,)) if hasattr(own, "cpu_affinity") else psutil.cpu_count() or 1
        at, used = time.monotonic(), _seconds(own)
        while True:
            await asyncio.sleep(_INTERVAL)
            now, total = time.monotonic(), _seconds(own)
            share = max(0.001, (total - used) / (now - at) / cores)
            rate = self._calls / (now - at)
            self._report = f"TEXT application_utilization={share:.3f},rps_fractional={rate:.1f}"
            at, used, self._calls = now, max(total, used), 0


def _seconds(own: psutil.Process) -> float:
    """Processor time of a process and those it started. An engine that was replaced takes its own along."""
    total = 0.0
    for process in (own, *own.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total
