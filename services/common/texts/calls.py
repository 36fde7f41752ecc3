"""A call and its answers while they are made."""

from dataclasses import dataclass, replace

from llguidance import LLMatcher
from tokenizers import Tokenizer

from services.common.text_model import TextConfig
from services.common.texts import LENGTH, STOP, Logprob, Options, Piece, grammar
from services.common.texts.sampler import Floats, Sampler, logprobs
from services.common.texts.stops import Stops, Words


@dataclass(frozen=True, slots=True)
class Model:
    """What all calls of a model share."""

    config: TextConfig
    tokenizer: Tokenizer
    grammars: grammar.Grammars


@dataclass(slots=True, eq=False)
class Call:
    """`longest`: tokens of each answer at most; `seed`: of the first one. `deadline` and `since`, when it came, are on
    the loop's clock. `open`: answers that have not finished."""

    number: int
    tokens: list[int]
    options: Options
    longest: int
    matcher: LLMatcher | None
    seed: int
    account: str = ""
    level: int = 1
    deadline: float = float("inf")
    since: float = 0.0
    open: int = 0
    ended: bool = False

    @property
    def reserved(self) -> int:
        """Tokens of keys and values that each of its answers may come to."""
        return len(self.tokens) + self.longest


class Answer:
    """One answer of a call: a row. `length`: tokens that its row holds; `last` is not among them yet."""

    def __init__(self, model: Model, call: Call, index: int) -> None:
        self.call, self.index = call, index
        self.length, self.last = len(call.tokens), 0
        self.made = 0
        self.finished = False
        self._model = model
        self._sampler = Sampler(call.options, call.tokens, call.seed + index)
        self._matcher = call.matcher.deep_copy() if call.matcher is not None else None
        self._words, self._stops = Words(model.tokenizer, call.tokens), Stops(call.options.stop)
        self._untold: list[Logprob] = []
        self._untold_tokens = 0

    @property
    def ended(self) -> bool:
        """Whether its row is free for another."""
        return self.finished or self.call.ended

    def go_on(self, logits: Floats) -> Piece | None:
        """Chooses the next token; answers what can be told of it. A piece with `finish` is the last. Raises
        EngineFailed, BadFormat."""
        call, config = self.call, self._model.config
        allowed = None if self._matcher is None else grammar.allowed(self._matcher, config.vocabulary)
        token = self.last = self._sampler.choose(logits, allowed)
        if token in config.stop_tokens:
            return self._piece(self._stops.rest(), STOP)
        self.made += 1
        self._untold_tokens += 1
        if call.options.logprobs is not None:
            self._untold.append(self._logprob(logits, token, call.options.logprobs))
        text, stopped = self._stops.feed(self._words.add(token))
        if self._matcher is not None and grammar.advance(self._matcher, token):
            stopped = True
        if stopped or self.made == call.longest:
            return self._piece(text + self._stops.rest(), STOP if stopped else LENGTH)
        return self._piece(text, "") if text else None

    def _piece(self, text: str, finish: str) -> Piece:
        piece = Piece(self.index, text, self._untold_tokens, finish, tuple(self._untold))
        self._untold_tokens = 0
        self._untold.clear()
        return piece

    def _logprob(self, logits: Floats, token: int, top: int) -> Logprob:
        value, others = logprobs(logits, token, top)
        return replace(self._named(token, value), top=tuple(self._named(*other) for other in others))

    def _named(self, token: int, value: float) -> Logprob:
        data = self._model.grammars.text(token)
        return Logprob(data.decode(errors="replace"), data, value)
