"""One loaded decoder model, without any process or wire around it."""

import os
import time
from collections.abc import Callable
from pathlib import Path

from services.common.texts import Options, Prompt
from services.common.texts.calls import Call, Model
from services.common.texts.intake import Intake
from services.common.texts.limits import Limits
from services.inference.text import Prepared, StreamsFull
from services.inference.text.decoder.loop import STAGES, Loop
from services.inference.text.decoder.prefixes import Prefixes
from services.inference.text.decoder.slab import Runner, Slab, session
from services.inference.text.news import Event, Stats

_RETRY = 1.0  # seconds


class Engine:
    """`count`, `prepare` and `forget` are for one thread, `generate` and `cancel` for any, and `loop` runs in one of
    its own. `emit` is called there with what is new of all calls together. Calls go by numbers that the caller
    gives."""

    def __init__(
        self,
        path: Path,
        limits: Limits,
        emit: Callable[[list[Event]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises EngineFailed when the file is no decoder that runs."""
        run = session(path, limits.threads)
        self._intake = intake = Intake(run.get_modelmeta().custom_metadata_map, limits)
        config = intake.config
        self.context_tokens = intake.context_tokens
        self.stop_tokens = config.stop_tokens
        self._limits, self._clock = limits, clock
        model = Model(config, intake.tokenizer, intake.grammars)
        slab = Slab(config, limits.slots + STAGES, self.context_tokens)
        prefixes = Prefixes(config, limits.prefix_mb << 20)
        runner = Runner(run, config, slab)
        self.loop = Loop(model, runner, slab, prefixes, limits, intake.budget, emit, clock)
        self.loop.warm_up()
        self._prepared: dict[int, Call] = {}

    @property
    def stats(self) -> Stats:
        return self.loop.stats

    def count(self, prompt: Prompt) -> int:
        """Tokens of a prompt. Raises NoChatTemplate, BadPrompt."""
        return self._intake.count(prompt)

    def prepare(self, number: int, prompt: Prompt, options: Options) -> Prepared:
        """Keeps a prompt, ready to be generated from. Raises PromptTooLong, NoChatTemplate, BadPrompt, BadFormat,
        StreamsFull, InvalidFields."""
        if len(self._prepared) >= self._limits.prepared:
            raise StreamsFull(f"{len(self._prepared)} prompts are ready for this model", retry_after=_RETRY)
        taken = self._intake.take(prompt, options)
        tokens, options = taken.tokens, taken.options
        if options.logprobs is not None:
            self._intake.grammars.text(tokens[0])  # the first time takes long, and the loop must not wait for it
        seed = int.from_bytes(os.urandom(8), "little") if options.seed is None else options.seed
        self._prepared[number] = Call(number, tokens, options, taken.longest, taken.matcher, seed)
        return Prepared(number, len(tokens), taken.longest * options.n)

    def forget(self, number: int) -> None:
        self._prepared.pop(number, None)

    def generate(self, number: int, account: str, level: int = 0, seconds: float | None = None) -> None:
        """Begins with what was prepared, to be done in so many seconds. `emit` tells the rest."""
        call = self._prepared.pop(number)
        call.account, call.level = account, level or self._limits.level
        if seconds is not None:
            call.deadline = self._clock() + seconds
        self.loop.submit(call)

    def cancel(self, number: int) -> None:
        """Ends a call before the next step; nothing more is told of it."""
        self.loop.cancel(number)
