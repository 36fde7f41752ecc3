"""The topology with small processes in the places of Mercat's own."""

import sys
from pathlib import Path

from services.embedded import probes
from services.embedded.home import Home
from services.embedded.process import Spec
from services.embedded.settings import UpSettings
from services.embedded.topology import Addresses, Urls, environment

PEER = str(Path(__file__).with_name("peer.py"))


def peer(name: str, kind: str, listen: str, log: Path, env: dict[str, str] | None = None) -> Spec:
    async def ready() -> bool:
        return await (probes.http_ok(listen, "/healthz") if kind == "http" else probes.grpc_serving(listen))

    return Spec(name, [sys.executable, PEER, kind, listen], log, ready, env=env)


def peers(settings: UpSettings, home: Home, urls: Urls, addresses: Addresses) -> dict[str, Spec]:
    env = environment(settings, home, urls, addresses)
    specs = {"control": peer("control", "grpc", addresses.control, home.log("control"), env)}
    for number, listen in enumerate(addresses.workers):
        specs[f"worker-{number}"] = peer(f"worker-{number}", "grpc", listen, home.log(f"worker-{number}"), env)
    specs["gateway"] = peer("gateway", "http", addresses.gateway, home.log("gateway"), env)
    return specs
