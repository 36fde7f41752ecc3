"""Texts to go on with: what is asked of a decoder model, and how its tokens are chosen and become text. The same
wherever the model runs, and free of it: prompts and answers alone, token by token."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.common.errors import InvalidArgument

STOP, LENGTH = "stop", "length"


class PromptTooLong(InvalidArgument, reason="PROMPT_TOO_LONG"):
    """Prompt and shortest answer do not fit the model's context."""


class NoChatTemplate(InvalidArgument, reason="NO_CHAT_TEMPLATE"):
    """The model is no chat model."""


class BadPrompt(InvalidArgument, reason="BAD_PROMPT"):
    """The chat template refuses the conversation, or a token id is not in the vocabulary."""


class BadFormat(InvalidArgument, reason="BAD_FORMAT"):
    """The JSON Schema or regular expression that the answer must fit is none, or is one that cannot be kept to."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A text, tokens, or a conversation with the tools that the model may call: exactly one of the first three is
    given. Messages are as the template takes them: `role`, `content` and so on."""

    text: str | None = None
    tokens: Sequence[int] | None = None
    messages: Sequence[Mapping[str, Any]] | None = None
    tools: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class Options:
    """How tokens are chosen, as `mercat.inference.v1.Sampling` says; None: as the model's own defaults say, else as
    that message says. `logprobs` None: none are answered. Of `json_schema`, `regex` and `json_object` one at most."""

    max_tokens: int = 0
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    stop: Sequence[str] = ()
    logprobs: int | None = None
    n: int = 1
    json_schema: str = ""
    regex: str = ""
    json_object: bool = False


@dataclass(frozen=True, slots=True)
class Logprob:
    """A token with the natural logarithm of its probability; `top`: the likeliest in its place."""

    token: str
    data: bytes
    logprob: float
    top: tuple["Logprob", ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """What is new of answer `index`: `tokens` output tokens that became `text`. `finish`: STOP or LENGTH in an answer's
    last piece, which may hold no text."""

    index: int
    text: str
    tokens: int
    finish: str = ""
    logprobs: tuple[Logprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Written:
    """A prompt for an engine elsewhere: a text that becomes its tokens, how many these are, how many each answer has at
    most, and options without any left open."""

    text: str
    tokens: int
    longest: int
    options: Options
