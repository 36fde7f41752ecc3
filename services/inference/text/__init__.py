"""Text generation: what engines are asked, whichever runs the model.

A call first has its prompt prepared, which says how long it is and refuses what cannot be done; the money is reserved
in between; then it is generated from."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from services.common.errors import ResourceExhausted
from services.common.texts import Options, Piece, Prompt


class StreamsFull(ResourceExhausted, reason="QUEUE_FULL"):
    """Too many calls wait for this model; comes with a retry hint."""


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
