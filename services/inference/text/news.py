"""What a decoder tells of its calls and of itself."""

from dataclasses import dataclass, field

from services.common.errors import MercatError
from services.common.texts import Piece


@dataclass(slots=True)
class Event:
    """What is new of a call. `cached`: tokens of its prompt that needed no work, told once. `end`: it has ended, well
    or with an error."""

    number: int
    cached: int | None = None
    pieces: list[Piece] = field(default_factory=list)
    end: bool = False
    error: MercatError | None = None


@dataclass(slots=True)
class Stats:
    """`running` and `waiting` calls, and what was counted since the model was loaded: tokens made, tokens of prompts
    that were run and that were known, steps, and seconds that these took."""

    slots: int
    running: int = 0
    waiting: int = 0
    tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    steps: int = 0
    step_seconds: float = 0.0
