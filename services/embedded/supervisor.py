"""Starts everything in order, keeps it running, and stops it in order."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

from services.common.rpc.addresses import door_token
from services.embedded import probes, status, topology
from services.embedded.connection import Account, Connection, Tls
from services.embedded.envoy import Envoy
from services.embedded.envoy_config import KSERVE
from services.embedded.envoy_door import FrontDoor
from services.embedded.errors import ChildFailed, StartError
from services.embedded.home import Home
from services.embedded.nats import Nats
from services.embedded.postgres import Postgres
from services.embedded.preflight import check_platform, check_ports
from services.embedded.process import Child, Spec
from services.embedded.server import Server
from services.embedded.settings import UpSettings
from services.embedded.tls import certificate
from services.embedded.valkey import Valkey

ANSWER_WITHIN = 30.0  # seconds from the last process being ready to the first call answered through the front door
QUIET_WITHIN = 2.0  # seconds for transactions under way when PostgreSQL is about to be stopped

Publish = Callable[[Connection], Awaitable[Connection]]
OwnProcesses = Callable[[UpSettings, Home, topology.Urls, topology.Addresses], dict[str, Spec]]


class Supervisor:
    """One home's processes. `run` is all of its life; `on_change` is called with its status at every step."""

    def __init__(
        self,
        settings: UpSettings,
        *,
        on_change: Callable[[status.Status], None] = lambda status: None,
        publish: Publish | None = None,
        own_processes: OwnProcesses = topology.own_processes,
    ) -> None:
        self.settings = settings
        self.home = Home(settings.home)
        self.status = status.Status(home=str(settings.home))
        self.connection: Connection | None = None
        self._on_change = on_change
        self._publish = publish
        self._own_processes = own_processes
        self._servers: dict[str, Server] = {}
        self._children: dict[str, Child] = {}
        self._restarting: asyncio.Task[None] | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Starts, and returns when `stop` is set and everything is stopped. StartError when it cannot start: then
        nothing is left running."""
        check_platform()
        self.home.open(min_free_mb=self.settings.min_free_mb)
        try:
            await self._run(stop)
        except BaseException as error:
            await self._stop_all(failed=str(error) or type(error).__name__)
            raise
        else:
            await self._stop_all()
        finally:
            self.home.close()

    def restart(self) -> None:
        """Restarts one after the other what the home's `restart.json` names, beside everything else; how that goes is
        in the status."""
        if self._restarting is None or self._restarting.done():
            self._restarting = asyncio.create_task(self._restart())

    async def _restart(self) -> None:
        try:
            asked = status.Restart.model_validate_json(self.home.restart.read_bytes())
        except (OSError, ValueError):
            return
        self.status.restart = asked
        for name in asked.parts:
            self.status.note = f"restarting {name}"
            self._changed()
            try:
                if isinstance(server := self._servers.get(name), Postgres):
                    await self._restart_postgres(server)
                elif server is not None:
                    await server.restart()
                else:
                    child = self._children[name]
                    await child.replace(topology.successor(child.spec, self.home))
            except (KeyError, OSError, StartError, ChildFailed) as error:
                asked.error = str(error)
                break
            asked.done += 1
        asked.finished, self.status.note = True, ""
        self._changed()

    async def _restart_postgres(self, postgres: Postgres) -> None:
        """While nothing is under way in it: a transaction that a stop meets in its commit ends nobody knows how."""
        users = [child for name, child in self._children.items() if name != "gateway"]
        for child in users:
            child.tell(signal.SIGUSR1)
        try:
            await postgres.quiet(QUIET_WITHIN)
            await postgres.restart()
        finally:
            for child in users:
                child.tell(signal.SIGUSR2)

    def kill(self) -> None:
        """SIGKILL for all at once, when somebody cannot wait."""
        for child in self._all():
            child.end()

    async def _run(self, stop: asyncio.Event) -> None:
        before = status.Status.read(self.home.state)
        self.status.pid, self.status.started = os.getpid(), status.now()
        self._changed()
        if before is not None:
            await asyncio.to_thread(status.end_leftovers, before)
        check_ports(self.settings.host, self.settings.port, self.settings.tls_port)
        starting = asyncio.create_task(self._start())
        waiting = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([starting, waiting], return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                await starting
                await waiting
        finally:
            for task in (starting, waiting):
                task.cancel()
            await asyncio.gather(starting, waiting, return_exceptions=True)

    async def _start(self) -> None:
        settings, home = self.settings, self.home
        addresses = topology.allocate(settings.worker_count)
        await probes.reachable(settings.postgres_url, settings.redis_url, settings.nats_url)
        postgres = Postgres(home.path / "postgres", log=home.log("postgres"))
        valkey = Valkey(home.path / "valkey", log=home.log("valkey"))
        nats = Nats(home.path / "nats", log=home.log("nats"))
        door = self._front_door(addresses)
        envoy = Envoy(home.path / "envoy", door, log=home.log("envoy"), concurrency=settings.envoy_concurrency)
        given = {"postgres": settings.postgres_url, "valkey": settings.redis_url, "nats": settings.nats_url}
        for server in (postgres, valkey, nats):
            if given[server.name]:
                self.status.part(server.name).state = status.EXTERNAL
            else:
                self._servers[server.name] = server
        self._servers["envoy"] = envoy
        for name in [*self._servers, "control", *(f"worker-{n}" for n in range(settings.worker_count)), "gateway"]:
            self.status.part(name)
        self._changed()
        await _together(server.start(supervised=True, on_change=self._put) for server in self._stores())
        urls = topology.Urls(
            settings.postgres_url or postgres.url, settings.redis_url or valkey.url, settings.nats_url or nats.url
        )
        specs = self._own_processes(settings, home, urls, addresses)
        self._children = {name: Child(spec, True, self._put) for name, spec in specs.items()}
        await _together(
            [envoy.start(supervised=True, on_change=self._put), *(child.start() for child in self._children.values())]
        )
        await self._answered()
        await self._demo()
        self.status.phase, self.status.ready, self.status.note = status.READY, status.now(), ""
        self._changed()

    def _front_door(self, addresses: topology.Addresses) -> FrontDoor:
        settings = self.settings
        chain, key = self._certificate() if settings.tls_port else (None, None)
        return FrontDoor(
            host=settings.plain_host,
            port=settings.port,
            control=addresses.control,
            workers=addresses.workers,
            gateway=addresses.gateway,
            admin_socket=Path(),
            tls_port=settings.tls_port,
            certificate=chain,
            private_key=key,
            tls_host=settings.host,
            mutual=self.home.mutual(settings),
            reflection=not settings.production,
            address_rate=settings.rate_of_an_address,
            max_connections=settings.max_connections,
            cors_origins=[origin.strip() for origin in settings.cors_origins.split(",") if origin.strip()],
            by_load=settings.balance == "utilization",
            trusted_hops=settings.trusted_hops,
            token=door_token(settings.internal_token or self.home.secret("internal-token")),
            trace_endpoint=settings.trace_endpoint,
            trace_ratio=settings.trace_ratio,
        )

    def _certificate(self) -> tuple[Path, Path]:
        """What TLS is served with: chain and key. StartError for one without the other."""
        chain, key = self.settings.tls_certificate, self.settings.tls_key
        if chain is None and key is None:
            made = certificate(self.home.path / "tls", self.settings.host)
            return made.chain, made.key
        if chain is None or key is None:
            raise StartError("MERCAT_TLS_CERTIFICATE and MERCAT_TLS_KEY belong together; set both, or none.")
        for path in (chain, key):
            if not os.access(path, os.R_OK):
                raise StartError(f"{path} cannot be read; correct MERCAT_TLS_CERTIFICATE and MERCAT_TLS_KEY.")
        return chain, key

    async def _answered(self) -> None:
        """Waits until calls through the front door reach control and a worker."""
        address = topology.reach(self.settings.plain_host, self.settings.port)
        until = asyncio.get_running_loop().time() + ANSWER_WITHIN
        for method in ("/grpc.health.v1.Health/Check", f"/{KSERVE}/ServerLive"):
            while not await probes.grpc_answers(address, method):
                if asyncio.get_running_loop().time() > until:
                    raise StartError(
                        f"The front door at {address} does not reach {method}; see {self.home.log('envoy')}."
                    )
                await asyncio.sleep(0.05)

    async def _demo(self) -> None:
        """Writes what clients need to know; the first time with the help of the demo publisher."""
        before = Connection.read(self.home.connection)
        connection = self._connection(before)
        connection.save(self.home.connection)
        if self.settings.demo and self._publish is not None and not connection.complete:
            self.status.note = "publishing the demo catalogue"
            self._changed()
            connection = await self._publish(connection)
            connection.save(self.home.connection)
        self.connection = connection

    def _connection(self, before: Connection | None) -> Connection:
        settings = self.settings
        address = topology.reach(settings.plain_host, settings.port)
        password = settings.admin_password or self.home.secret("admin-password")
        accounts = {"admin": Account(email=settings.admin_email, password=password, api_key="")}
        if settings.demo:
            for name in topology.DEMO_ACCOUNTS:
                secret = self.home.secret(f"{name}-password")
                accounts[name] = Account(email=topology.demo_email(name), password=secret, api_key="")
        for name, account in accounts.items():
            known = before.accounts.get(name) if before else None
            if known is not None and (known.email, known.password) == (account.email, account.password):
                account.api_key = known.api_key
        tls = None
        if settings.tls_port is not None:
            # Empty: those that this machine trusts.
            ca = "" if settings.tls_certificate else str(self.home.path / "tls" / "ca.pem")
            tls = Tls(address=topology.reach(settings.host, settings.tls_port), ca=ca)
        return Connection(
            grpc=address,
            rest=f"http://{address}",
            console=f"http://{address}/console/",
            tls=tls,
            accounts=accounts,
            models=before.models if before else [],
        )

    async def _stop_all(self, failed: str = "") -> None:
        """Front door first, so that nothing new comes in; then who uses before who is used."""
        if self._restarting is not None:
            self._restarting.cancel()
            await asyncio.wait([self._restarting])
        self.status.phase, self.status.note = status.STOPPING, ""
        self._changed()
        envoy = self._servers.get("envoy")
        if isinstance(envoy, Envoy) and envoy.child is not None:
            if not failed:
                await envoy.drain()
            await envoy.stop()
        workers = [child for name, child in self._children.items() if name.startswith("worker-")]
        await asyncio.gather(*(child.stop() for child in workers))
        for name in ("control", "gateway"):
            if name in self._children:
                await self._children[name].stop()
        for name in ("nats", "valkey", "postgres"):
            if name in self._servers:
                await self._servers[name].stop()
        self.status.phase, self.status.error = status.FAILED if failed else status.STOPPED, failed
        self._changed()

    def _stores(self) -> list[Server]:
        return [server for name, server in self._servers.items() if name != "envoy"]

    def _all(self) -> list[Child]:
        return [server.child for server in self._servers.values() if server.child] + list(self._children.values())

    def _put(self, child: Child) -> None:
        self.status.put(child)
        self._changed()

    def _changed(self) -> None:
        with contextlib.suppress(OSError):  # a full disk must not keep anything from being stopped
            self.status.save(self.home.state)
        self._on_change(self.status)


async def _together(jobs: Iterable[Coroutine[Any, Any, None]]) -> None:
    """All at once; the first failure cancels the rest and is raised as itself."""
    try:
        async with asyncio.TaskGroup() as group:
            for job in jobs:
                group.create_task(job)
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
