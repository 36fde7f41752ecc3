"""Load from `ghz`, a gRPC load generator written in Go (`make tools` installs it)."""

import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import descriptor_pb2
from tritonclient.grpc import model_config_pb2, service_pb2

TOOLS = Path(__file__).parent.parent / ".tools" / "bin"
METHOD = "inference.GRPCInferenceService/ModelInfer"


@dataclass(frozen=True)
class Load:
    """What one round gave: calls per second, latencies in milliseconds, and calls by status."""

    per_second: float
    p50_ms: float
    p99_ms: float
    statuses: Mapping[str, int]

    @property
    def failed(self) -> int:
        return sum(n for status, n in self.statuses.items() if status != "OK")


def ghz() -> str:
    """The path of ghz. Raises SystemExit with what to do when it is not there."""
    path = shutil.which(str(TOOLS / "ghz")) or shutil.which("ghz")
    if path is None:
        raise SystemExit("ghz is not installed: run `make tools` (it needs Go)")
    return path


def protoset(folder: Path) -> Path:
    """Writes the descriptors of the KServe contract, as ghz takes them."""
    files = descriptor_pb2.FileDescriptorSet()
    for module in (model_config_pb2, service_pb2):
        module.DESCRIPTOR.CopyToProto(files.file.add())
    path = folder / "kserve.binpb"
    path.write_bytes(files.SerializeToString())
    return path


def run(
    target: str, request: bytes, folder: Path, *, seconds: float, in_flight: int, connections: int = 4,
    metadata: Mapping[str, str] | None = None,
) -> Load:  # fmt: skip
    """Calls ModelInfer with the same request for some seconds."""
    body = folder / "request.bin"
    body.write_bytes(request)
    command = [
        ghz(), "--insecure", "--protoset", str(protoset(folder)), "--call", METHOD, "--binary-file", str(body),
        "--duration", f"{seconds}s", "--duration-stop", "wait", "--concurrency", str(in_flight),
        "--connections", str(min(connections, in_flight)), "--format", "json", "--metadata", json.dumps(metadata or {}),
        target,
    ]  # fmt: skip
    out = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 60).stdout)
    at = {point["percentage"]: point["latency"] / 1e6 for point in out["latencyDistribution"] or []}
    return Load(out["rps"], at.get(50, 0.0), at.get(99, 0.0), out["statusCodeDistribution"])
