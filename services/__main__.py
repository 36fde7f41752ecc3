"""`python -m services serve NAME… --listen HOST:PORT`: hosts any set of services in one process."""

import argparse
import asyncio
import gc
import importlib
import json
import logging
import os
import pkgutil
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import uvloop
from mercat.common.v1 import policy_pb2
from prometheus_client import start_http_server
from redis.asyncio import Redis

from services.common import ids, outbox
from services.common.clock import Clock, SystemClock, follow
from services.common.db import Database, hold, load_queries, migrate, release
from services.common.events import Events
from services.common.limits import Limiter
from services.common.rpc.channels import InternalChannel
from services.common.rpc.denials import Denials
from services.common.rpc.idempotency import IdempotencyKeys
from services.common.rpc.mutual import Mutual
from services.common.rpc.pipeline import Guard
from services.common.rpc.policy import policy_of
from services.common.rpc.principals import Principals
from services.common.rpc.server import Server
from services.common.rpc.signed import Nonces
from services.common.rpc.tracing import Tracer
from services.common.service import Deps, Service
from services.common.settings import Settings, load, settings_of

log = logging.getLogger("services")
CONTROL = ("auth", "storage", "registry", "usage", "billing", "marketplace", "notification")
NAMES = (*CONTROL, "inference", "gateway")
# Every contract of the platform, so that reflection at any process describes all of it.
CONTRACTS = ("auth", "storage", "registry", "usage", "billing", "marketplace", "notification", "inference")
NOTICE, GRACE = 0.5, 10.0  # seconds: for the front door to see NOT_SERVING, and for calls under way


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def public_services() -> list[str]:
    """The full names of every public service, and of KServe's."""
    names = ["inference.GRPCInferenceService"]
    for name in CONTRACTS:
        package = importlib.import_module(f"mercat.{name}.v1")
        for module in sorted(m.name for m in pkgutil.iter_modules(package.__path__) if m.name.endswith("_pb2")):
            descriptor = importlib.import_module(f"{package.__name__}.{module}").DESCRIPTOR
            names += [s.full_name for s in descriptor.services_by_name.values() if not _is_internal(s)]
    importlib.import_module("tritonclient.grpc.service_pb2")
    return names


def _is_internal(service: Any) -> bool:
    """Whether outsiders have no business with any of its methods."""
    return all(policy_of(m).access == policy_pb2.ACCESS_INTERNAL for m in service.methods)


async def build(name: str, deps: Deps) -> Service:
    """Constructs a service from its package's `build(deps)`."""
    service: Service = await importlib.import_module(f"services.{name}").build(deps)
    return service


async def serve(names: Sequence[str], listen: str, stop: asyncio.Event) -> None:
    """Serves until `stop` is set or a background task ends; then drains."""
    base = load(Settings)
    clock = SystemClock()
    worker_id = ids.new("wrk")
    mutual = Mutual.of(base)
    control = InternalChannel(base.control or listen, base.internal_token, mutual)
    redis: Redis = Redis.from_url(base.redis_url, socket_timeout=1.0, socket_connect_timeout=1.0)
    events = await Events.connect(base.nats_url, base.process or "+".join(names))
    principals, limiter = Principals(control), Limiter(redis, base.limit_scale, base.limit_share)
    await principals.listen(events)
    nonces = Nonces(redis)
    tracer = Tracer(base.trace_endpoint, base.trace_ratio, base.process) if base.trace_endpoint else None
    server = Server()
    control.here = server.here
    services: list[Service] = []
    databases: list[Database] = []
    denying: list[Denials] = []
    tasks: list[asyncio.Task[None]] = []
    for name in names:
        await migrate(base.postgres_url, name, f"services.{name}")
        database = await Database.connect(base.postgres_url, name)
        databases.append(database)
        settings = load(settings_of(f"services.{name}"))
        deps = Deps(settings, database, events, redis, limiter, principals, control, clock, worker_id)
        service = await build(name, deps)
        services.append(service)
        keys = IdempotencyKeys(database, clock)
        denials = Denials(database)
        denying.append(denials)
        guard = Guard(base.internal_token, principals, limiter, keys, tracer, denials, nonces)
        for registration in service.registrations:
            server.add(registration, guard)
        for add_to in service.raw:
            add_to(server, guard)
        tasks += [asyncio.create_task(outbox.relay(database, events), name=f"{name}-outbox")]
        tasks += [asyncio.create_task(_sweep(database, keys, clock), name=f"{name}-sweep")]
        tasks += [asyncio.create_task(keys.hold(), name=f"{name}-keys")]
        tasks += [asyncio.create_task(denials.keep(), name=f"{name}-denials")]
    described = None if base.production else public_services()
    await server.start(listen, described, reuse_port=base.reuse_port, mutual=mutual)
    tasks += [asyncio.create_task(task(), name=s.name) for s in services for task in s.tasks]
    gc.collect()
    gc.freeze()
    if base.ready_file is not None:
        base.ready_file.touch()
    stopping = asyncio.create_task(stop.wait())
    done, _ = await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
    await server.drain(notice=0.0 if base.reuse_port else NOTICE, grace=GRACE)
    for service in services:
        if service.close is not None:
            await service.close()
    for denials in denying:
        await denials.flush()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for database in databases:
        await database.close()
    await events.close()
    await control.close()
    if tracer is not None:
        await asyncio.to_thread(tracer.close)
    await redis.aclose()
    for finished in done - {stopping}:
        finished.result()  # a task that failed takes the process down, to be started anew
        raise RuntimeError(f"the task of {finished.get_name()} ended")


async def _sweep(database: Database, keys: IdempotencyKeys, clock: Clock) -> None:
    """Forgets idempotency keys and inbox rows past their time, every ten minutes."""
    queries = load_queries("services.common")
    while True:
        await asyncio.sleep(600)
        try:
            await keys.forget()
            async with database.connection() as connection:
                await queries.forget_inbox(connection, before=clock.machine() - timedelta(days=14))
        except Exception as e:
            log.warning("sweep of %s: %s", database.schema, e)


async def _main(names: Sequence[str], listen: str) -> None:
    base = load(Settings)
    follow(base.home, base.test_clock)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGUSR1, hold)
    loop.add_signal_handler(signal.SIGUSR2, release)
    if "gateway" in names:
        gateway = importlib.import_module("gateway_rest.app")
        await gateway.serve(listen, load(settings_of("gateway_rest")), stop)
    else:
        await serve(names, listen, stop)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m services", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    sub = commands.add_parser("serve", help="serve services until SIGTERM")
    sub.add_argument(
        "names", nargs="+", choices=[*NAMES, "control"], metavar="NAME", help=", ".join([*NAMES, "control"])
    )
    sub.add_argument("--listen", required=True, metavar="HOST:PORT")
    sub.add_argument("--metrics", type=int, metavar="PORT", help="serve Prometheus metrics there")
    args = parser.parse_args()
    names = [n for name in args.names for n in (CONTROL if name == "control" else (name,))]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    level = logging.getLevelNamesMapping().get(os.environ.get("MERCAT_LOG_LEVEL") or "INFO", logging.INFO)
    # What libraries say to those who mend them holds headers and bodies, and so secrets.
    logging.basicConfig(level=max(level, logging.INFO), handlers=[handler])
    for own in ("services", "gateway_rest"):
        logging.getLogger(own).setLevel(level)
    if args.metrics:
        start_http_server(args.metrics, "127.0.0.1")
    uvloop.run(_main(names, args.listen))


if __name__ == "__main__":
    main()
