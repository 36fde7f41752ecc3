"""What a decoder makes of prompts and options before anything is generated. Also without the model, for engines
elsewhere: they are given the text that becomes the prompt's tokens."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llguidance import LLMatcher
from tokenizers import Tokenizer

from services.common import onnx_metadata
from services.common.errors import EngineFailed, InvalidFields, Violation
from services.common.text_model import DECODER, TEXT_KEY, TOKENIZER_KEY, TextConfig
from services.common.texts import Options, Prompt, PromptTooLong, Written
from services.common.texts.grammar import Grammars
from services.common.texts.limits import Limits
from services.common.texts.prompts import Prompts
from services.common.texts.sampler import resolved


@dataclass(frozen=True, slots=True)
class Taken:
    """A prompt's tokens, resolved options, tokens of each answer at most, and the form of one."""

    tokens: list[int]
    options: Options
    longest: int
    matcher: LLMatcher | None


class Intake:
    """One model's, for one thread. `budget`: tokens of keys and values that fit its memory."""

    def __init__(self, carried: Mapping[str, str], limits: Limits) -> None:
        """`carried`: the entries of the model's file. Raises EngineFailed when they are no decoder's."""
        self.config, tokenizer = _read(carried)
        c, self._slots = self.config, limits.slots
        self.budget = (limits.memory_mb << 20) // (c.layers * 2 * c.kv_heads * c.head_dim * 4)
        self.context_tokens = min(c.context, limits.context, self.budget)
        if self.context_tokens < 2:
            raise EngineFailed("there is no memory for the model's keys and values")
        self.tokenizer = Tokenizer.from_str(tokenizer)
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.grammars = Grammars(tokenizer, c.vocabulary, c.stop_tokens)
        self._prompts = Prompts(c, self.tokenizer)

    @classmethod
    def of(cls, path: Path, limits: Limits) -> "Intake":
        """Of a model's file, whose graph is not looked at. Raises EngineFailed."""
        try:
            return cls(onnx_metadata.read(path), limits)
        except (OSError, ValueError) as e:
            raise EngineFailed("the model's file cannot be read") from e

    def count(self, prompt: Prompt) -> int:
        """Tokens of a prompt. Raises NoChatTemplate, BadPrompt."""
        return len(self._prompts.tokens(prompt))

    def take(self, prompt: Prompt, options: Options) -> Taken:
        """Raises PromptTooLong, NoChatTemplate, BadPrompt, BadFormat, InvalidFields."""
        options = self._resolved(options)
        return self._taken(self._prompts.tokens(prompt, self.context_tokens), options)

    def write(self, prompt: Prompt, options: Options) -> Written:
        """As `take`; BadPrompt also for tokens that no text becomes."""
        options = self._resolved(options)
        text, tokens = self._prompts.written(prompt, self.context_tokens)
        taken = self._taken(tokens, options)
        return Written(text, len(tokens), taken.longest, taken.options)

    def _resolved(self, options: Options) -> Options:
        options = resolved(options, self.config.defaults)
        if options.n > self._slots:
            most = f"at most {self._slots} answers are made at a time"
            raise InvalidFields(violations=[Violation("sampling.n", most)])
        for token in options.logit_bias:
            if not 0 <= token < self.config.vocabulary:
                raise InvalidFields(
                    violations=[Violation("sampling.logit_bias", f"token {token} is not in the vocabulary")]
                )
        return options

    def _taken(self, tokens: list[int], options: Options) -> Taken:
        room = min(self.context_tokens, self.budget // options.n) - len(tokens)
        if room < 1:
            raise PromptTooLong(
                f"{len(tokens)} tokens and an answer of at least one do not fit a context of {self.context_tokens}"
            )
        longest = min(options.max_tokens or room, room)
        return Taken(tokens, options, longest, self.grammars.matcher(options))


def _read(carried: Mapping[str, str]) -> tuple[TextConfig, str]:
    """What the file says of itself, and its tokenizer.json. Raises EngineFailed."""
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
