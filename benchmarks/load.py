"""Load from `ghz` (gRPC) and `bombardier` (HTTP), generators written in Go that `make tools` installs, and from clients
of ours: `benchmarks.rotate`, where every call has another key and model, and `benchmarks.chats`. Each runs in a process
of its own."""

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2
from tritonclient.grpc import model_config_pb2, service_pb2

ROOT = Path(__file__).parent.parent
TOOLS = ROOT / ".tools" / "bin"
INFER = "inference.GRPCInferenceService/ModelInfer"
STREAM = "inference.GRPCInferenceService/ModelStreamInfer"
PREDICT = "mercat.inference.v1.InferenceService/Predict"
_GRACE = 120  # seconds beyond a round's own


class LoadError(Exception):
    """The generator gave no figures; the text says why and what to do next."""


@dataclass(frozen=True)
class Load:
    """What one round gave: calls answered OK per second, latencies in milliseconds, calls by status, and the processor
    time that the generator itself took, seconds. A message of a stream counts as a call."""

    per_second: float
    p50_ms: float
    p99_ms: float
    statuses: Mapping[str, int]
    generator_seconds: float = 0.0

    @property
    def ok(self) -> int:
        return self.statuses.get("OK", 0)

    @property
    def failed(self) -> int:
        return sum(n for status, n in self.statuses.items() if status != "OK")


@dataclass(frozen=True)
class Streamed(Load):
    """Chats: a token counts as a call, and its latency is what lies between a message and the one before. `octets` and
    `messages` are what came, those of the last chats' ends too."""

    first_token_ms: float = 0.0
    octets: int = 0
    messages: int = 0


def tool(name: str) -> str:
    """The path of a tool. Raises LoadError with what to do when it is not there."""
    path = shutil.which(name, path=f"{TOOLS}{os.pathsep}{os.environ.get('PATH', '')}")
    if path is None:
        raise LoadError(f"{name} is not installed: run `make tools` (it needs Go)")
    return path


def protoset(folder: Path) -> Path:
    """Writes the descriptors of the KServe contract, as ghz takes them."""
    files = descriptor_pb2.FileDescriptorSet()
    for module in (model_config_pb2, service_pb2):
        module.DESCRIPTOR.CopyToProto(files.file.add())
    path = folder / "kserve.binpb"
    path.write_bytes(files.SerializeToString())
    return path


def grpc(
    target: str, request: bytes, folder: Path, *, in_flight: int, seconds: float = 0, calls: int = 0,
    method: str = INFER, metadata: Mapping[str, str] | None = None, messages: int = 0,
) -> Load:  # fmt: skip
    """Calls a gRPC method with the same request for some seconds, or so many times, over up to four connections.

    Args:
        target: `host:port`.
        request: the serialized request.
        folder: where files may be written.
        in_flight: calls under way at a time; with `messages`, streams.
        messages: how many messages each stream sends, none waiting for an answer. The latency is then a stream's.

    Raises LoadError when ghz is missing or fails.
    """
    body = folder / "request.bin"
    body.write_bytes(request)
    descriptors = ROOT / "gen" / "descriptors.binpb" if method == PREDICT else protoset(folder)
    amount = ["--total", str(calls)] if calls else ["--duration", f"{seconds}s", "--duration-stop", "wait"]
    command = [
        tool("ghz"), "--insecure", "--protoset", str(descriptors), "--call", method, "--binary-file", str(body),
        *amount, "--concurrency", str(in_flight), "--connections", str(min(4, in_flight)), "--timeout", "60s",
        "--stream-call-count", str(messages), "--disable-template-functions", "--disable-template-data",
        "--metadata", json.dumps(metadata or {}), "--format", "json", target,
    ]  # fmt: skip
    out, spent = _run(command, seconds or calls / 100)
    at = {point["percentage"]: point["latency"] / 1e6 for point in out["latencyDistribution"] or []}
    each = messages or 1
    statuses = {status: n * each for status, n in (out["statusCodeDistribution"] or {}).items()}
    return counted(out["rps"] * each, at.get(50, 0.0), at.get(99, 0.0), statuses, spent)


def http(
    url: str, body: bytes, folder: Path, *, in_flight: int, seconds: float, headers: Mapping[str, str] | None = None
) -> Load:
    """Posts the same JSON for some seconds over as many kept connections as calls are in flight (HTTP/1.1).

    Raises LoadError when bombardier is missing or fails.
    """
    path = folder / "body.json"
    path.write_bytes(body)
    command = [
        tool("bombardier"), "--method", "POST", "--body-file", str(path), "--connections", str(in_flight),
        "--duration", f"{seconds}s", "--timeout", "60s", "--latencies", "--print", "result", "--format", "json",
    ]  # fmt: skip
    for name, value in {"content-type": "application/json", **(headers or {})}.items():
        command += ["--header", f"{name}: {value}"]
    out, spent = _run([*command, url], seconds)
    result = out["result"]
    statuses = {f"{n}xx": result[f"req{n}xx"] for n in range(1, 6) if n != 2} | {"others": result["others"]}
    statuses = {"OK": result["req2xx"], **{name: n for name, n in statuses.items() if n}}
    percentiles = result["latency"]["percentiles"]
    rate = sum(statuses.values()) / result["timeTakenSeconds"]
    return counted(rate, percentiles["50"] / 1e3, percentiles["99"] / 1e3, statuses, spent)


def rotating(
    target: str, folder: Path, *, keys: Sequence[str], requests: Sequence[bytes], in_flight: int, seconds: float
) -> Load:
    """Calls ModelInfer with each key and each request in turn. Raises LoadError when the client fails."""
    job = {
        "target": target, "keys": list(keys), "requests": [r.hex() for r in requests], "in_flight": in_flight,
        "seconds": seconds,
    }  # fmt: skip
    out, spent = ours("rotate", job, folder)
    return counted(out["per_second"], out["p50_ms"], out["p99_ms"], out["statuses"], spent)


def chats(job: Mapping[str, Any], folder: Path) -> Streamed:
    """Chats one after the other, as `benchmarks.chats.steady` says. Raises LoadError when one does not end as it
    should."""
    out, spent = ours("chats", {"what": "steady", **job}, folder)
    if out["broken"]:
        raise LoadError(f"{out['broken']} chats were not answered to their end")
    return Streamed(
        out["tokens_per_second"], out["gap_p50_ms"], out["gap_p99_ms"], {"OK": out["tokens"]}, spent,
        first_token_ms=out["first_token_ms"], octets=out["octets"], messages=out["messages"],
    )  # fmt: skip


def ours(client: str, job: Mapping[str, Any], folder: Path) -> tuple[dict, float]:
    """Gives a client of ours a job; answers what it found, and the processor time that it took, seconds. Raises
    LoadError when it fails."""
    path = folder / f"{client}.json"
    path.write_text(json.dumps(job))
    return _run([sys.executable, "-m", f"benchmarks.{client}", str(path)], job["seconds"])


def counted(rate: float, p50_ms: float, p99_ms: float, statuses: Mapping[str, int], spent: float) -> Load:
    """A load of so many calls per second, of which those that failed do not count: refusing is quick.

    Raises LoadError when none was answered.
    """
    ok, all_calls = statuses.get("OK", 0), sum(statuses.values())
    if not ok:
        raise LoadError(f"no call was answered OK: {dict(statuses)}")
    return Load(rate * ok / all_calls, p50_ms, p99_ms, statuses, spent)


def _run(command: Sequence[str], seconds: float) -> tuple[dict, float]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + _GRACE, cwd=ROOT)
    except subprocess.CalledProcessError as e:
        raise LoadError(f"{Path(command[0]).name} failed: {(e.stderr or e.stdout).strip()[-500:]}") from None
    except subprocess.TimeoutExpired:
        raise LoadError(f"{Path(command[0]).name} did not end {_GRACE} s after its time") from None
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    try:
        return json.loads(done.stdout), spent
    except ValueError:
        raise LoadError(f"{Path(command[0]).name} printed no figures: {done.stdout[-500:]}") from None
