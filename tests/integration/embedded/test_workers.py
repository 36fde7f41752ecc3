"""How workers use the machine."""

import os
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
