"""The floor of real work: `session.run` in a loop, nothing around it.

python -m benchmarks.raw MODEL THREADS SECONDS BATCH[,BATCH…] TOKENS
"""

import json
import sys
import time

import numpy as np
import onnxruntime


def measure(model: str, threads: int, seconds: float, batches: list[int], tokens: int) -> dict[int, float]:
    """Rows per second by batch size, each for `seconds`; every input is int64 [batch, tokens] of ones."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options)
    names = [i.name for i in session.get_inputs()]
    found: dict[int, float] = {}
    for batch in batches:
        inputs = {name: np.ones((batch, tokens), np.int64) for name in names}
        session.run(None, inputs)
        runs, began = 0, time.perf_counter()
        while (took := time.perf_counter() - began) < seconds:
            session.run(None, inputs)
            runs += 1
        found[batch] = runs * batch / took
    return found


if __name__ == "__main__":
    path, threads, seconds, batches, tokens = sys.argv[1:]
    print(json.dumps(measure(path, int(threads), float(seconds), [int(b) for b in batches.split(",")], int(tokens))))
