"""One loaded decoder model, without any process or wire around it."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import onnxruntime as ort
from tokenizers import Tokenizer

from services.common.errors import InvalidFields, Violation
from services.common.text_model import DECODER, TEXT_KEY, TOKENIZER_KEY, TextConfig
from services.inference.engines import EngineFailed
from services.inference.text import Options, Prepared, Prompt, PromptTooLong, StreamsFull
from services.inference.text.decoder.calls import Call, Model
from services.inference.text.decoder.grammar import Grammars
from services.inference.text.decoder.loop import STAGES, Loop
from services.inference.text.decoder.prefixes import Prefixes
from services.inference.text.decoder.prompts import Prompts
from services.inference.text.decoder.sampler import resolved
from services.inference.text.decoder.slab import Runner, Slab, session
from services.inference.text.limits import Limits
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
        config, tokenizer = _carried(run)
        token_size = config.layers * 2 * config.kv_heads * config.head_dim * 4
        budget = (limits.memory_mb << 20) // token_size
        self.context_tokens = min(config.context, limits.context, budget)
        if self.context_tokens < 2:
            raise EngineFailed("there is no memory for the model's keys and values")
        self.stop_tokens = config.stop_tokens
        self._budget, self._limits, self._clock = budget, limits, clock
        words = Tokenizer.from_str(tokenizer)
        words.no_truncation()
        words.no_padding()
        self._prompts = Prompts(config, words)
        self._model = Model(config, words, Grammars(tokenizer, config.vocabulary, config.stop_tokens))
        slab = Slab(config, limits.slots + STAGES, self.context_tokens)
        prefixes = Prefixes(config, limits.prefix_mb << 20)
        runner = Runner(run, config, slab)
        self.loop = Loop(self._model, runner, slab, prefixes, limits, budget, emit, clock)
        self.loop.warm_up()
        self._prepared: dict[int, Call] = {}

    @property
    def stats(self) -> Stats:
        return self.loop.stats

    def count(self, prompt: Prompt) -> int:
        """Tokens of a prompt. Raises NoChatTemplate, BadPrompt."""
        return len(self._prompts.tokens(prompt))

    def prepare(self, number: int, prompt: Prompt, options: Options) -> Prepared:
        """Keeps a prompt, ready to be generated from. Raises PromptTooLong, NoChatTemplate, BadPrompt, BadFormat,
        StreamsFull, InvalidFields."""
        if len(self._prepared) >= self._limits.prepared:
            raise StreamsFull(f"{len(self._prepared)} prompts are ready for this model", retry_after=_RETRY)
        options = resolved(options, self._model.config.defaults)
        if options.n > self._limits.slots:
            most = f"at most {self._limits.slots} answers are made at a time"
            raise InvalidFields(violations=[Violation("sampling.n", most)])
        for token in options.logit_bias:
            if not 0 <= token < self._model.config.vocabulary:
                raise InvalidFields(
                    violations=[Violation("sampling.logit_bias", f"token {token} is not in the vocabulary")]
                )
        tokens = self._prompts.tokens(prompt, self.context_tokens)
        room = min(self.context_tokens, self._budget // options.n) - len(tokens)
        if room < 1:
            raise PromptTooLong(
                f"{len(tokens)} tokens and an answer of at least one do not fit a context of {self.context_tokens}"
            )
        longest = min(options.max_tokens or room, room)
        matcher = self._model.grammars.matcher(options)
        if options.logprobs is not None:
            self._model.grammars.text(tokens[0])  # the first time takes long, and the loop must not wait for it
        seed = int.from_bytes(os.urandom(8), "little") if options.seed is None else options.seed
        self._prepared[number] = Call(number, tokens, options, longest, matcher, seed)
        return Prepared(number, len(tokens), longest * options.n)

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


def _carried(run: ort.InferenceSession) -> tuple[TextConfig, str]:
    """What the file says of itself, and its tokenizer.json. Raises EngineFailed."""
    carried = run.get_modelmeta().custom_metadata_map
    try:
        config = TextConfig.from_json(carried[TEXT_KEY])
        tokenizer = carried[TOKENIZER_KEY]
        resolved(Options(), config.defaults)
        Tokenizer.from_str(tokenizer)
    except json.JSONDecodeError as e:
        raise EngineFailed("the model's configuration is no JSON") from e
    except Exception as e:  # the tokenizers' library has no class for it
        raise EngineFailed(f"the file carries no text model: {str(e)[:200]}") from e
    if config.kind != DECODER or min(config.layers, config.kv_heads, config.head_dim) < 1:
        raise EngineFailed("the model is no decoder")
    return config, tokenizer
