"""The floor of streaming: the decoder engine's own loop, without a server, a process or a wire around it.

python -m benchmarks.decoder_floor MODEL THREADS SECONDS STREAMS PROMPT ANSWER
"""

import itertools
import json
import sys
import time
from collections import defaultdict
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.callers import FORBIDDEN
from benchmarks.chats import first_length, gaps
from services.inference.text import Options, Prompt
from services.inference.text.decoder.engine import Engine
from services.inference.text.limits import Limits
from services.inference.text.news import Event


def measure(model: str, threads: int, seconds: float, streams: int, prompt: int, answer: int) -> dict[str, float]:
    """`streams` answers of `answer` tokens at a time to prompts of `prompt` random tokens, one after the other, as
    `benchmarks.chats` asks for them. Answers output tokens per second and, in milliseconds, the median time to the
    first token and the gaps between tokens."""
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
                ask(answer)

    def ask(most: int) -> None:
        number = next(numbers)
        tokens = [int(t) for t in rng.integers(100, 1000, prompt)]
        engine.prepare(number, Prompt(tokens=tokens), Options(most, temperature=0, logit_bias=forbidden))
        asked[number] = time.perf_counter()
        engine.generate(number, "benchmark")

    engine = Engine(Path(model), Limits(threads=threads), emit)
    forbidden = dict.fromkeys(engine.stop_tokens, FORBIDDEN)
    for number in range(streams):
        ask(first_length(number, streams, answer))
    while len(told) < streams:
        engine.loop.turn()
    began, made = time.perf_counter(), 0
    while (took := time.perf_counter() - began) < seconds:
        engine.loop.turn()
    return {
        "tokens_per_second": made / took,
        "tokens": made,
        "first_token_ms": median(times[0] - asked[number] for number, times in told.items()) * 1e3,
        **gaps(list(told.values()), began, began + took),
    }


if __name__ == "__main__":
    path, threads, seconds, *numbers = sys.argv[1:]
    print(json.dumps(measure(path, int(threads), float(seconds), *map(int, numbers))))
