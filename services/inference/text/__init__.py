"""Text generation: what a call asks of a decoder and what it gets, whichever engine runs it.

A call first has its prompt prepared, which says how long it is and refuses what cannot be done; the money is reserved
in between; then it is generated from."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from services.common.errors import InvalidArgument, ResourceExhausted

STOP, LENGTH = "stop", "length"


class PromptTooLong(InvalidArgument, reason="PROMPT_TOO_LONG"):
    """Prompt and shortest answer do not fit the model's context."""


class NoChatTemplate(InvalidArgument, reason="NO_CHAT_TEMPLATE"):
    """The model is no chat model."""


class BadPrompt(InvalidArgument, reason="BAD_PROMPT"):
    """The chat template refuses the conversation, or a token id is not in the vocabulary."""


class BadFormat(InvalidArgument, reason="BAD_FORMAT"):
    """The JSON Schema or regular expression that the answer must fit is none, or is one that cannot be kept to."""


class StreamsFull(ResourceExhausted, reason="QUEUE_FULL"):
    """Too many calls wait for this model; comes with a retry hint."""


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


@dataclass(slots=True, eq=False)
class Prepared:
    """A prompt as tokens, kept by the engine under `number` until it is generated from or forgotten.
    `most_tokens`: the longest that all its answers together can be. `cached_tokens` of the prompt needed no work;
    known with the first pieces."""

    number: int
    input_tokens: int
    most_tokens: int
    cached_tokens: int = 0


class Decoder(Protocol):
    """A loaded decoder model."""

    context_tokens: int

    async def count(self, prompt: Prompt) -> int:
        """Tokens of a prompt. Raises NoChatTemplate, BadPrompt, EngineFailed."""
        ...

    async def prepare(self, prompt: Prompt, options: Options) -> Prepared:
        """Raises PromptTooLong, NoChatTemplate, BadPrompt, BadFormat, EngineFailed, EngineUnavailable."""
        ...

    def forget(self, prepared: Prepared) -> None:
        """It will not be generated from."""
        ...

    def generate(
        self, prepared: Prepared, *, account: str, level: int = 0, deadline: float = float("inf")
    ) -> AsyncGenerator[list[Piece], None]:
        """The answers, piece by piece, as they are made; what gathered while the caller was busy comes together.
        Closing the generator ends the work at the next token. `account` gets its fair share among those who wait,
        `level` is the priority class (1 first; 0: the default), `deadline` is on the event loop's clock.

        Raises:
            StreamsFull: too many wait. Only before the first piece.
            TooLate: there would be no token before the deadline. Only before the first piece.
            DeadlineExceeded: the deadline passed.
            EngineFailed, EngineCrashed: the model or its process failed.
        """
        ...

    async def unload(self) -> None: ...
