"""The floor of streaming: the decoder engine's own loop, without a server, a process or a wire around it.

python -m benchmarks.decoder_floor MODEL THREADS PROMPT ANSWER STREAMS SECONDS    many at a time
python -m benchmarks.decoder_floor MODEL THREADS PROMPT ANSWER      together as many as each line that comes in says
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
from services.common.texts import Options, Prompt
from services.common.texts.limits import Limits
from services.inference.text.decoder.engine import Engine
from services.inference.text.news import Event


class Floor:
    """Answers of `answer` tokens to prompts of `prompt` random ones."""

    def __init__(self, model: Path, threads: int, prompt: int, answer: int) -> None:
        self._prompt, self._answer = prompt, answer
        self._asked: dict[int, float] = {}
        self._told: dict[int, list[float]] = defaultdict(list)
        self._made, self._again = 0, False
        self._numbers = itertools.count()
        self._rng = np.random.default_rng(0)
        self._engine = Engine(model, Limits(threads=threads), self._emit)
        self._forbidden = dict.fromkeys(self._engine.stop_tokens, FORBIDDEN)
        self._open: set[int] = set()

    def rate(self, streams: int, seconds: float) -> dict[str, float]:
        """So many answers at a time, one after the other, as `benchmarks.chats` asks for them: output tokens per second
        and, in milliseconds, the median time to the first token and the gaps between tokens."""
        self._again = True
        for number in range(streams):
            self._ask(first_length(number, streams, self._answer))
        while len(self._told) < streams:
            self._engine.loop.turn()
        began, self._made = time.perf_counter(), 0
        while (took := time.perf_counter() - began) < seconds:
            self._engine.loop.turn()
        return {
            "tokens_per_second": self._made / took,
            "tokens": self._made,
            "first_token_ms": median(times[0] - self._asked[number] for number, times in self._told.items()) * 1e3,
            **gaps(list(self._told.values()), began, began + took),
        }

    def together(self, answers: int) -> tuple[float, float]:
        """Milliseconds to the first token of so many answers, and to the last of all of them."""
        numbers = [self._ask(self._answer) for _ in range(answers)]
        while self._open:
            self._engine.loop.turn()
        asked = self._asked[numbers[0]]
        first = min(self._told[number][0] for number in numbers)
        last = max(self._told[number][-1] for number in numbers)
        return (first - asked) * 1e3, (last - asked) * 1e3

    def _ask(self, most: int) -> int:
        number = next(self._numbers)
        tokens = [int(t) for t in self._rng.integers(100, 1000, self._prompt)]
        self._engine.prepare(number, Prompt(tokens=tokens), Options(most, temperature=0, logit_bias=self._forbidden))
        self._asked[number] = time.perf_counter()
        self._open.add(number)
        self._engine.generate(number, "benchmark")
        return number

    def _emit(self, events: list[Event]) -> None:
        now = time.perf_counter()
        for event in events:
            if event.error is not None:
                raise event.error
            if event.pieces:
                self._told[event.number].append(now)
            self._made += sum(piece.tokens for piece in event.pieces)
            if event.end:
                self._open.discard(event.number)
                if self._again:
                    self._ask(self._answer)


def main() -> None:
    model, threads, prompt, answer, *more = sys.argv[1:]
    floor = Floor(Path(model), int(threads), int(prompt), int(answer))
    if more:
        print(json.dumps(floor.rate(int(more[0]), float(more[1]))))
        return
    for line in sys.stdin:
        print(*floor.together(int(line)), flush=True)


if __name__ == "__main__":
    main()
