"""Calls per second with everything on (identity, limits, money, durable metering) through Envoy and direct to the
worker, beside a bare `grpc.aio` echo. One tiny model, one worker, load on the same machine; rounds in turn, medians.

    python -m benchmarks.first [--seconds 5] [--rounds 3] [--in-flight 64]
"""

import argparse
import platform as machine
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import grpc
from tritonclient.grpc import service_pb2

from benchmarks import load
from tests import graphs
from tests.platform import USD, Platform, free_port


def request_for(model: str) -> bytes:
    """A ModelInferRequest of one row."""
    request = service_pb2.ModelInferRequest(model_name=model, raw_input_contents=[bytes(16)])
    request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    return bytes(request.SerializeToString())


def measure(folder: Path, *, seconds: float, rounds: int, in_flight: int) -> None:
    port = free_port()
    echo = subprocess.Popen([sys.executable, "-m", "benchmarks.echo", str(port)])
    try:
        with Platform(folder / "home", workers=1) as platform:
            publisher, consumer = platform.publisher(), platform.sign_up(credit=1_000 * USD)
            model = platform.publish(publisher, graphs.tiny(), batch=64, price={"requests": 1_000_000})
            before = consumer.balance()
            grpc.channel_ready_future(grpc.insecure_channel(f"127.0.0.1:{port}")).result(20)
            body, key = request_for(model), dict(consumer.metadata)
            targets = {
                "bare grpc.aio echo": (f"127.0.0.1:{port}", {}),
                "direct to the worker": (platform.addresses()["worker-0"], key),
                "through Envoy": (platform.grpc, key),
            }
            taken: dict[str, list[load.Load]] = {name: [] for name in targets}
            for warm in (True, *[False] * rounds):
                for name, (target, metadata) in targets.items():
                    got = load.run(
                        target, body, folder, seconds=1 if warm else seconds, in_flight=in_flight, metadata=metadata
                    )
                    if not warm:
                        taken[name].append(got)
            alone = {
                name: load.run(target, body, folder, seconds=2, in_flight=1, metadata=metadata)
                for name, (target, metadata) in targets.items()
            }
            report(taken, alone, in_flight)
            time.sleep(2)
            checked = platform.admin().check_ledger()
            print(
                f"\n{before - consumer.balance():,} calls charged, at 1 nano each; "
                f"{checked.postings_checked:,} postings checked, {'clean' if checked.clean else checked.discrepancies}"
            )
    finally:
        echo.terminate()
        echo.wait()


def report(taken: dict[str, list[load.Load]], alone: dict[str, load.Load], in_flight: int) -> None:
    floor = statistics.median(r.per_second for r in taken["bare grpc.aio echo"])
    print(f"{machine.processor() or machine.machine()}, {machine.python_version()}, {in_flight} in flight\n")
    print(f"{'':22} {'calls/s':>9} {'÷ echo':>7} {'p50 ms':>8} {'p99 ms':>8} {'failed':>7} {'p50 ms at 1':>12}")
    for name, rounds in taken.items():
        rate = statistics.median(r.per_second for r in rounds)
        p50, p99 = (statistics.median(getattr(r, at) for r in rounds) for at in ("p50_ms", "p99_ms"))
        failed = sum(r.failed for r in rounds)
        print(f"{name:22} {rate:9,.0f} {rate / floor:7.2f} {p50:8.2f} {p99:8.2f} {failed:7} {alone[name].p50_ms:12.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5, help="of one round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--in-flight", type=int, default=64)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mercat-bench-") as folder:
        measure(Path(folder), seconds=args.seconds, rounds=args.rounds, in_flight=args.in_flight)


if __name__ == "__main__":
    main()
