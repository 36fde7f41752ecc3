"""Settings of `mercat up`."""

import os

from services.common.settings import Settings, option


class UpSettings(Settings):
    """How Mercat runs on one machine."""

    host: str = option("127.0.0.1", "address the front door listens on; 0.0.0.0: every network of this machine")
    port: int = option(8000, "port of the front door: gRPC, gRPC-Web, REST and console", ge=1, le=65535)
    tls: bool = option(True, "serve the same with TLS at port + 443")
    workers: int = option(
        0, "inference workers; 0: one fewer than there are processor cores", unit="processes", ge=0, le=512
    )
    pin_workers: bool = option(False, "keep each worker on processor cores of its own (Linux)")
    balance: str = option(
        "least-request", "how calls are spread: least-request, or utilization of the workers' processors",
        pattern="^(least-request|utilization)$",
    )  # fmt: skip
    demo: bool = option(True, "publish the demo catalogue and make the demo accounts at the first start")
    envoy_concurrency: int = option(
        0, "event loops of Envoy; 0: half the processor cores", unit="threads", ge=0, le=256
    )
    trusted_hops: int = option(
        0, "proxies of yours before the front door, each of which appends the address that it sees to x-forwarded-for",
        ge=0, le=10,
    )  # fmt: skip
    cors_origins: str = option("*", "origins whose pages may call, separated by commas")
    min_free_mb: int = option(512, "free space the home must have at the start", unit="MiB", ge=0)
    start_timeout: int = option(90, "how long a process may take until it answers", unit="seconds", ge=1)
    stop_timeout: int = option(20, "how long a process may take to end once asked", unit="seconds", ge=1)
    restart_pause: int = option(
        10, "longest pause before a process that keeps dying is restarted", unit="seconds", ge=1
    )

    @property
    def worker_count(self) -> int:
        return self.workers or max(1, (os.cpu_count() or 2) - 1)

    @property
    def tls_port(self) -> int | None:
        return self.port + 443 if self.tls and self.port + 443 <= 65535 else None
