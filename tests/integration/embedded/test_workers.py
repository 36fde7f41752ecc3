"""How workers use the machine."""

import os
import time
from collections.abc import Callable

import psutil
import pytest
from mercat.inference.v1 import inference_pb2

from tests import graphs
from tests.platform import Platform


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="only Linux pins processes")
def test_pinned_workers_and_their_engines_stay_on_their_cores(own_platform: Callable[..., Platform]) -> None:
    running = own_platform(workers=2, env={"MERCAT_PIN_WORKERS": "true"})
    cores = sorted(os.sched_getaffinity(0))
    model = running.publish(running.publisher(), graphs.tiny())
    tensor = inference_pb2.Tensor(name="x", shape=[1, 4], raw=bytes(16))
    running.sign_up().inference.Predict(inference_pb2.PredictRequest(model=model, inputs=[tensor]))
    engines = 0
    seen: list[list[int]] = []
    for name in ("worker-0", "worker-1"):
        worker = psutil.Process(running.pids()[name])
        mine = sorted(worker.cpu_affinity())
        for engine in worker.children():
            assert sorted(engine.cpu_affinity()) == mine
            engines += 1
        seen.append(mine)
    assert engines
    assert seen == ([cores[::2], cores[1::2]] if len(cores) > 1 else [cores, cores])


def test_workers_say_how_busy_they_are(own_platform: Callable[..., Platform]) -> None:
    running = own_platform(env={"MERCAT_BALANCE": "utilization"})
    model = running.publish(running.publisher(), graphs.slow(200_000))
    person = running.sign_up()
    tensor = inference_pb2.Tensor(name="x", shape=[1], raw=bytes(8))
    request = inference_pb2.PredictRequest(model=model, inputs=[tensor])
    reports: list[float] = []
    deadline = time.monotonic() + 20
    while len(reports) < 5 and time.monotonic() < deadline:
        _, call = person.inference.Predict.with_call(request)
        trailers = dict(call.trailing_metadata())
        if (report := trailers.get("endpoint-load-metrics")) is not None:
            reports.append(float(report.removeprefix("TEXT application_utilization=").partition(",")[0]))
    assert len(reports) == 5
    assert 0.1 < max(reports) <= 1.5  # one run after the other keeps a core busy
