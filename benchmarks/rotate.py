"""A client whose every call has the next key and the next request: what ghz cannot do cheaply. It parses nothing, so
that a call costs it about what one costs ghz; the runner prints how much.

python -m benchmarks.rotate JOB.json
"""

import asyncio
import json
import sys
import time
from collections import Counter
from itertools import cycle
from pathlib import Path

import grpc
import uvloop

from benchmarks.load import INFER


async def rotate(job: dict) -> dict:
    """Calls for `job["seconds"]`, `job["in_flight"]` at a time, over four connections."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    channels = [grpc.aio.insecure_channel(job["target"], options=options) for _ in range(4)]
    keys = cycle([(("authorization", f"Bearer {key}"),) for key in job["keys"]])
    requests = cycle([bytes.fromhex(request) for request in job["requests"]])
    statuses: Counter[str] = Counter()
    latencies: list[float] = []
    began = time.perf_counter()
    end = began + job["seconds"]

    async def caller(number: int) -> None:
        call = channels[number % len(channels)].unary_unary(f"/{INFER}")
        while (at := time.perf_counter()) < end:
            try:
                await call(next(requests), metadata=next(keys), timeout=60)
                statuses["OK"] += 1
            except grpc.aio.AioRpcError as e:
                statuses[e.code().name] += 1
            latencies.append(time.perf_counter() - at)

    await asyncio.gather(*(caller(number) for number in range(job["in_flight"])))
    took = time.perf_counter() - began
    for channel in channels:
        await channel.close()
    latencies.sort()
    p50, p99 = (latencies[int(len(latencies) * at)] * 1e3 for at in (0.5, 0.99))
    return {"per_second": len(latencies) / took, "p50_ms": p50, "p99_ms": p99, "statuses": statuses}


if __name__ == "__main__":
    print(json.dumps(uvloop.run(rotate(json.loads(Path(sys.argv[1]).read_text())))))
