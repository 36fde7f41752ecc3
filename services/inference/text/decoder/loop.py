"""Continuous batching: at every step each answer under way gets its next token, in one run of the model. Answers join
when their prompt has been run and leave when they end, whatever the others do.

Answers have the slab's first rows. Prompts are run in rows behind them, a piece between two steps, so that nobody's
answer waits for somebody's long prompt; then their keys and values are copied to the row of each answer. Copies too
take turns with steps."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from services.common.errors import DeadlineExceeded, EngineFailed, MercatError
from services.common.texts.calls import Answer, Call, Model
from services.common.texts.limits import Limits
from services.inference.text import StreamsFull
from services.inference.text.decoder.pace import Pace
from services.inference.text.decoder.prefixes import BLOCK, Prefixes
from services.inference.text.decoder.slab import Floats, Runner, Slab
from services.inference.text.decoder.waiting import Waiting
from services.inference.text.news import Event, Stats
from services.inference.tickets import TooLate

STAGES = 2  # prompts run in turn: a short one need not wait for the end of a long one
_COPIED = 8  # known blocks that are written between two steps
_RETRY_LEAST, _RETRY_MOST = 0.05, 5.0  # seconds


@dataclass(slots=True)
class _Stage:
    """A prompt being run in a row: `known` blocks are to be written there first, `done` tokens it holds. `answers` have
    their first token and wait for a row of their own."""

    call: Call
    row: int
    known: list[Floats]
    done: int = 0
    answers: list[Answer] = field(default_factory=list)

    @property
    def waiting(self) -> int:
        """Answers that will need a row."""
        return len(self.answers) or self.call.options.n


class Loop:
    """`emit` is called in the loop's thread with what is new of all calls together. `clock`: seconds."""

    def __init__(
        self,
        model: Model,
        runner: Runner,
        slab: Slab,
        prefixes: Prefixes,
        limits: Limits,
        budget: int,
        emit: Callable[[list[Event]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`budget`: tokens of keys and values that all answers may come to."""
        self._model, self._runner, self._slab, self._prefixes = model, runner, slab, prefixes
        self._limits, self._budget = limits, budget
        self._tight = slab.rows * slab.capacity > budget  # then memory of rows that were left is given back
        self._emit, self._clock = emit, clock
        self._inbox: deque[Call | int] = deque()  # calls that come, numbers of those that go
        self._wake = threading.Event()
        self._closed = False
        self._waiting: Waiting[Call] = Waiting()
        self._stages: deque[_Stage] = deque()
        self._free = [slab.rows - 1 - i for i in range(STAGES)]
        self._rows: list[Answer] = []
        self._news: dict[int, Event] = {}
        self._pace = Pace()
        self.stats = Stats(slots=limits.slots)

    # From any thread

    def submit(self, call: Call) -> None:
        self._inbox.append(call)
        self._wake.set()

    def cancel(self, number: int) -> None:
        """Ends a call before the next step, without an event."""
        self._inbox.append(number)
        self._wake.set()

    def close(self) -> None:
        """Ends `run` at the next step."""
        self._closed = True
        self._wake.set()

    # In the loop's own

    def warm_up(self) -> None:
        """Runs the model once in each way, to see that it does and how fast. Raises EngineFailed."""
        self._run_prompt(self._free[0], [0] * min(BLOCK, self._slab.capacity), 0)
        self._runner.step([0], [0])

    def run(self) -> None:
        while not self._closed:
            if not self.turn():
                self._wake.wait()

    def turn(self) -> bool:
        """One step of all answers and one piece of one prompt. False when there was nothing to do."""
        self._wake.clear()
        while self._inbox:
            coming = self._inbox.popleft()
            if isinstance(coming, Call):
                self._enqueue(coming)
            else:
                self._cancel(coming)
        self._drop_late()
        self._compact()
        self._admit()
        if self._rows:
            self._step()
            self._compact()
            self._tell()
        if self._stages:
            self._work(self._stages[0])
            self._compact()
        self._tell()
        return bool(self._rows or self._stages or self._waiting)

    # Calls

    def _enqueue(self, call: Call) -> None:
        now = call.since = self._clock()
        ahead = sum(len(s.call.tokens) - s.done for s in self._stages)
        if now + (ahead + len(call.tokens)) * self._pace.token >= call.deadline:
            self._end(call, _too_late())
            return
        if len(self._waiting) >= self._limits.waiting:
            hint = len(self._waiting) * self._pace.call / self._limits.slots
            full = StreamsFull(
                f"{len(self._waiting)} calls are waiting for this model",
                retry_after=min(max(hint, _RETRY_LEAST), _RETRY_MOST),
            )
            shed = self._waiting.last_below(call.level)
            self._end(shed or call, full)
            if shed is None:
                return
        self._waiting.add(call)

    def _cancel(self, number: int) -> None:
        calls = (*self._waiting, *(s.call for s in self._stages), *(a.call for a in self._rows))
        if (call := next((c for c in calls if c.number == number), None)) is not None:
            self._end(call)
            del self._news[number]

    def _drop_late(self) -> None:
        now = self._clock()
        for call in [c for c in self._waiting if c.deadline <= now + len(c.tokens) * self._pace.token]:
            self._end(call, _too_late())
        for call in {a.call for a in self._rows} | {s.call for s in self._stages}:
            if call.deadline <= now:
                self._end(call, DeadlineExceeded("the answer was not whole before the deadline"))

    def _admit(self) -> None:
        while self._free and (call := self._waiting.first()) is not None:
            rows = len(self._rows) + sum(s.waiting for s in self._stages)
            tokens = sum(a.call.reserved for a in self._rows) + sum(s.call.reserved * s.waiting for s in self._stages)
            if rows + call.options.n > self._limits.slots or tokens + call.reserved * call.options.n > self._budget:
                return
            self._waiting.take()
            known = self._prefixes.find(call.account, call.tokens)
            self._of(call).cached = len(known) * BLOCK
            self.stats.cached_tokens += len(known) * BLOCK
            self._stages.append(_Stage(call, self._free.pop(), known))

    def _end(self, call: Call, error: MercatError | None = None) -> None:
        """Its rows go with the next `_compact`."""
        if call.ended:
            return
        call.ended = True
        event = self._of(call)
        event.end, event.error = True, error
        self._waiting.discard(call)
        for stage in [s for s in self._stages if s.call is call]:
            self._leave(stage)

    def _leave(self, stage: _Stage) -> None:
        self._stages.remove(stage)
        self._free.append(stage.row)
        self._give_back(stage.row)

    def _give_back(self, row: int) -> None:
        if self._tight:
            self._slab.free(row)

    def _of(self, call: Call) -> Event:
        return self._news.setdefault(call.number, Event(call.number))

    def _tell(self) -> None:
        """What is new; of a call that was cancelled only that there is one less. During a long prompt nothing is new,
        but all goes well."""
        stats, before = self.stats, (self.stats.running, self.stats.waiting)
        stats.running, stats.waiting = len(self._rows) + len(self._stages), len(self._waiting)
        if self._news or self._stages or before != (stats.running, stats.waiting):
            news, self._news = list(self._news.values()), {}
            self._emit(news)

    # Prompts

    def _work(self, stage: _Stage) -> None:
        """Does something for a prompt, then it is another's turn. All of a kind, where nobody's answer waits for it."""
        self._stages.rotate(-1)
        if stage.known:
            for block in stage.known[: _COPIED if self._rows else None]:
                self._slab.write(stage.row, stage.done, block)
                stage.done += BLOCK
            del stage.known[: _COPIED if self._rows else None]
        elif stage.answers:
            self._join(stage)
        else:
            self._run_piece(stage)

    def _run_piece(self, stage: _Stage) -> None:
        tokens = stage.call.tokens
        rows = len(self._rows)
        prompts = min(len(self._stages) + len(self._waiting), self._limits.slots - rows)  # that may begin now
        size = self._pace.piece(len(tokens) - stage.done, rows, prompts)
        try:
            logits = self._run_prompt(stage.row, tokens[stage.done : stage.done + size], stage.done)
        except EngineFailed as e:
            self._end(stage.call, e)
            return
        stage.done += size
        self.stats.prompt_tokens += size
        self._prefixes.keep(stage.call.account, tokens[: stage.done], self._slab, stage.row)
        if stage.done == len(tokens):
            self._begin(stage, logits)

    def _run_prompt(self, row: int, tokens: Sequence[int], past: int) -> Floats:
        started = time.perf_counter()
        logits = self._runner.prefill(row, tokens, past)
        self._pace.read(len(tokens), time.perf_counter() - started)
        return logits

    def _begin(self, stage: _Stage, logits: Floats) -> None:
        """The first token of each answer."""
        call = stage.call
        call.open = call.options.n
        answers = [Answer(self._model, call, index) for index in range(call.options.n)]
        for answer in answers:
            self._advance(answer, logits)
        stage.answers = [answer for answer in answers if not answer.ended]
        if stage.answers and not self._rows:
            self._join(stage)

    def _join(self, stage: _Stage) -> None:
        """Gives an answer its row; all of them, where nobody's answer waits for it."""
        for answer in stage.answers[: 1 if self._rows else None]:
            self._slab.copy(stage.row, len(self._rows), answer.length)
            self._rows.append(answer)
            stage.answers.remove(answer)
        if not stage.answers:
            self._leave(stage)

    # Answers

    def _step(self) -> None:
        started = time.perf_counter()
        rows = self._rows
        try:
            logits = self._runner.step([a.last for a in rows], [a.length for a in rows])
        except EngineFailed as e:
            for answer in rows:
                self._end(answer.call, e)
            return
        for answer, raw in zip(rows, logits, strict=True):
            answer.length += 1
            self._advance(answer, raw)
        took = time.perf_counter() - started
        self._pace.stepped(took)
        self.stats.steps += 1
        self.stats.step_seconds += took

    def _advance(self, answer: Answer, logits: Floats) -> None:
        """Gives an answer its next token."""
        call = answer.call
        if call.ended:
            return  # by an error in another answer of it
        try:
            piece = answer.go_on(logits)
        except MercatError as e:
            self._end(call, e)
            return
        self.stats.tokens += 1
        if piece is not None:
            self._of(call).pieces.append(piece)
            if piece.finish:
                answer.finished = True
                call.open -= 1
                if not call.open:
                    self._pace.answered(self._clock() - call.since)
                    self._end(call)

    def _compact(self) -> None:
        """Fills the rows of answers that have ended with the last ones."""
        for row in reversed(range(len(self._rows))):
            if self._rows[row].ended:
                last = self._rows.pop()
                if row < len(self._rows):
                    self._slab.copy(len(self._rows), row, last.length)
                    self._rows[row] = last
                self._give_back(len(self._rows))


def _too_late() -> TooLate:
    return TooLate("there would be no token before the deadline; allow it more time, or call less at once")
