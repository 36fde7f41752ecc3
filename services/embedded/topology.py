"""Mercat's own processes: what each is started with."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from services.embedded import probes
from services.embedded.home import Home
from services.embedded.ports import free_ports
from services.embedded.process import Spec
from services.embedded.settings import UpSettings

SOURCE = Path(__file__).parents[2]
DEMO_ACCOUNTS = ("publisher", "consumer")


@dataclass(frozen=True)
class Urls:
    """Servers the processes use, embedded or not."""

    postgres: str
    redis: str
    nats: str


@dataclass(frozen=True)
class Addresses:
    """Where the processes listen, `host:port`, and the ports of their metrics."""

    control: str
    workers: tuple[str, ...]
    gateway: str
    metrics: Mapping[str, int]


def demo_email(name: str) -> str:
    """Of a demo account; no mail reaches it."""
    return f"{name}@mercat.localhost"


def allocate(workers: int) -> Addresses:
    """Free ports of 127.0.0.1 for every process."""
    names = ["control", *(f"worker-{number}" for number in range(workers))]
    ports = free_ports(2 * len(names) + 1)
    listen = [f"127.0.0.1:{port}" for port in ports]
    metrics = dict(zip(names, ports[len(names) + 1 :], strict=True))
    return Addresses(listen[0], tuple(listen[1 : len(names)]), listen[len(names)], metrics)


def reach(host: str, port: int) -> str:
    """How a client on this machine names a listener."""
    return f"{'127.0.0.1' if host in ('0.0.0.0', '::', '') else host}:{port}"  # noqa: S104


def environment(settings: UpSettings, home: Home, urls: Urls, addresses: Addresses) -> dict[str, str]:
    """The variables every own process is given over those there are."""
    demo = [demo_email(name) for name in DEMO_ACCOUNTS] if settings.demo else []
    mutual = home.mutual(settings)
    shown = {
        "MERCAT_INTERNAL_CA": str(mutual.ca), "MERCAT_INTERNAL_CERTIFICATE": str(mutual.certificate),
        "MERCAT_INTERNAL_KEY": str(mutual.key),
    } if mutual else {}  # fmt: skip
    return {
        **os.environ,
        **shown,
        "MERCAT_HOME": str(home.path),
        "MERCAT_PRODUCTION": str(settings.production),
        "MERCAT_POSTGRES_URL": urls.postgres,
        "MERCAT_REDIS_URL": urls.redis,
        "MERCAT_NATS_URL": urls.nats,
        "MERCAT_STORAGE_URL": settings.storage_url or home.artifacts.as_uri(),
        "MERCAT_CONTROL": addresses.control,
        "MERCAT_INFERENCE": "ipv4:" + ",".join(addresses.workers),
        "MERCAT_INTERNAL_TOKEN": settings.internal_token or home.secret("internal-token"),
        "MERCAT_JWT_KEY_FILE": str(settings.jwt_key_file or home.jwt_key),
        "MERCAT_ADMIN_EMAIL": settings.admin_email,
        "MERCAT_ADMIN_PASSWORD": settings.admin_password or home.secret("admin-password"),
        "MERCAT_VERIFIED_EMAILS": ",".join(filter(None, [settings.verified_emails, *demo])),
        "MERCAT_GRPC": reach(settings.plain_host, settings.port),
        "MERCAT_LOG_LEVEL": settings.log_level,
        "MERCAT_REUSE_PORT": "true",
        "PYTHONUNBUFFERED": "1",
    }


def own_processes(settings: UpSettings, home: Home, urls: Urls, addresses: Addresses) -> dict[str, Spec]:
    """Control, the workers and the web edge, by name."""
    env = environment(settings, home, urls, addresses)
    specs = {"control": _serve("control", "control", addresses.control, addresses, env, settings, home)}
    # Between workers calls are not spread quite evenly, so that each keeps half as much again of the limits.
    worker = env | {
        "MERCAT_LIMIT_SHARE": str(min(1.0, 1.5 / len(addresses.workers))),
        "MERCAT_LOAD_REPORTS": str(settings.balance == "utilization"),
    }
    for number, listen in enumerate(addresses.workers):
        name = f"worker-{number}"
        pinned = {"MERCAT_CORES": _cores(number, len(addresses.workers))} if settings.pin_workers else {}
        specs[name] = _serve(name, "inference", listen, addresses, worker | pinned, settings, home)
    specs["gateway"] = _serve("gateway", "gateway", addresses.gateway, addresses, env, settings, home)
    return specs


def _cores(number: int, workers: int) -> str:
    """The processor cores of one worker; where there are more workers than cores, some share one."""
    cores = sorted(os.sched_getaffinity(0))
    return ",".join(map(str, cores[number % len(cores) :: workers]))


def _serve(
    name: str, what: str, listen: str, addresses: Addresses, env: Mapping[str, str], settings: UpSettings, home: Home
) -> Spec:
    argv = [sys.executable, "-m", "services", "serve", what, "--listen", listen]
    if name in addresses.metrics:
        argv += ["--metrics", str(addresses.metrics[name])]

    mutual = home.mutual(settings)

    async def ready() -> bool:
        if what == "gateway":
            return await probes.http_ok(listen, "/healthz", mutual)
        return await probes.grpc_serving(listen, mutual=mutual)

    return Spec(
        name=name,
        argv=argv,
        log=home.log(name),
        ready=ready,
        env={**env, "MERCAT_PROCESS": name},
        cwd=SOURCE,
        start_timeout=settings.start_timeout,
        stop_timeout=settings.stop_timeout,
        restart_pause=settings.restart_pause,
    )


def successor(spec: Spec, home: Home) -> Spec:
    """Of a process that takes over from the one of `spec` at the same address, where a probe may reach either: it says
    by a file that it is ready. Its metrics are on another port."""
    file = home.path / "run" / f"ready.{spec.name}"
    file.unlink(missing_ok=True)
    argv = list(spec.argv)
    if "--metrics" in argv:
        argv[argv.index("--metrics") + 1] = str(free_ports(1)[0])

    async def ready() -> bool:
        return file.exists()

    return replace(spec, argv=argv, env={**(spec.env or {}), "MERCAT_READY_FILE": str(file)}, ready=ready)
