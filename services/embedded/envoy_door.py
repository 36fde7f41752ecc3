"""What Envoy is told of an installation."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.common.rpc.mutual import Mutual

DESCRIPTORS = Path(__file__).parents[2] / "gen" / "descriptors.binpb"
CONTROL, WORKERS, GATEWAY = "control", "workers", "gateway"


@dataclass(frozen=True)
class FrontDoor:
    """What clients reach and what is behind it. Addresses are `host:port`. `tls_host` is where TLS is served, when that
    is elsewhere; `secrets`: the file that names the certificate, which Envoy watches; `address_rate`: requests that one
    network address may begin in a second, 0 for any number."""

    host: str
    port: int
    control: str
    workers: Sequence[str]
    gateway: str
    admin_socket: Path
    tls_port: int | None = None
    certificate: Path | None = None
    private_key: Path | None = None
    tls_host: str = ""
    secrets: Path = Path("certificate.json")
    mutual: Mutual | None = None
    reflection: bool = True
    address_rate: int = 0
    cors_origins: Sequence[str] = ("*",)
    by_load: bool = False
    trusted_hops: int = 0
    # What tells the processes behind it that an address is as the front door saw it.
    token: str = ""
    trace_endpoint: str = ""
    trace_ratio: float = 0.0
    descriptors: Path = DESCRIPTORS
    max_connections: int = 20_000
    max_heap_bytes: int = 2 * 1024**3


def socket_address(address: str) -> dict[str, Any]:
    host, _, port = address.rpartition(":")
    return {"socket_address": {"address": host.strip("[]"), "port_value": int(port)}}
