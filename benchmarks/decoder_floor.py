"""The floor of streaming: the decoder engine's own loop, without a server, a process or a wire around it.

python -m benchmarks.decoder_floor MODEL THREADS SECONDS STREAMS[,STREAMS…] PROMPT ANSWER
"""

import itertools
import json
import sys
import time
from collections import defaultdict
from pathlib import Path
from statistics import median

import numpy as np

from services.inference.text import Options, Prompt
from services.inference.text.decoder.engine import Engine
from services.inference.text.limits import Limits
from services.inference.text.news import Event

FORBIDDEN = -100.0  # a bias, so that no answer ends before its length


def measure(model: str, threads: int, seconds: float, streams: int, prompt: int, answer: int) -> dict[str, float]:
    """`streams` answers of `answer` tokens at a time to prompts of `prompt` random tokens, one after the other. Answers
    output tokens per second and, in milliseconds, the median time to the first token and between two."""
    asked: dict[int, float] = {}
    told: dict[int, list[float]] = defaultdict(list)
    made = 0
    numbers = itertools.count()
    rng = np.random.default_rng(0)

    def emit(events: list[Event]) -> None:
        nonlocal made
        now = time.perf_counter()
        for event in events:
            if event.error is not None:
                raise event.error
            if event.pieces:
                told[event.number].append(now)
            made += sum(piece.tokens for piece in event.pieces)
            if event.end:
                ask()

    def ask() -> None:
        number = next(numbers)
        tokens = [int(t) for t in rng.integers(100, 1000, prompt)]
        engine.prepare(number, Prompt(tokens=tokens), options)
        asked[number] = time.perf_counter()
        engine.generate(number, "benchmark")

    engine = Engine(Path(model), Limits(threads=threads, slots=max(8, streams)), emit)
    options = Options(answer, temperature=0, logit_bias=dict.fromkeys(engine.stop_tokens, FORBIDDEN))
    for _ in range(streams):
        ask()
    began = time.perf_counter()
    while (took := time.perf_counter() - began) < seconds:
        engine.loop.turn()
    gaps = [b - a for times in told.values() for a, b in itertools.pairwise(times)]
    return {
        "tokens_per_second": made / took,
        "first_token_ms": median(times[0] - asked[number] for number, times in told.items()) * 1e3,
        "gap_ms": median(gaps) * 1e3,
    }


if __name__ == "__main__":
    path, threads, seconds, many, *lengths = sys.argv[1:]
    print(
        json.dumps(
            {n: measure(path, int(threads), float(seconds), int(n), *map(int, lengths)) for n in many.split(",")}
        )
    )
