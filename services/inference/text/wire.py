"""What a worker and the process of a decoder model say to each other: the frames of `services.inference.engines.wire`
around JSON. What comes from a process that runs other people's models is not trusted to be more than is read
here."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from services.common.errors import DeadlineExceeded, EngineFailed, InvalidFields, MercatError, Violation
from services.common.texts import (
    LENGTH,
    STOP,
    BadFormat,
    BadPrompt,
    Logprob,
    NoChatTemplate,
    Options,
    Piece,
    Prompt,
    PromptTooLong,
    Written,
)
from services.inference.engines.wire import frame
from services.inference.text import StreamsFull
from services.inference.text.news import Event, Stats
from services.inference.tickets import TooLate

# To the process: LOAD, COUNT and PREPARE are questions; GENERATE and CANCEL go by the number of the PREPARE.
LOAD, COUNT, PREPARE, FORGET, GENERATE, CANCEL = 1, 2, 3, 4, 5, 6
# Instead of LOAD where the model itself runs elsewhere: COUNT and WRITE are all that can be asked then.
INTAKE, WRITE = 7, 8
# And from it: answers to questions, and news of calls.
DONE, FAILED, NEWS = 11, 12, 13
MOST = 64 << 20  # octets of a frame
_encode = json.JSONEncoder(separators=(",", ":")).encode

_ERRORS = {
    error.reason: error
    for error in (
        PromptTooLong, NoChatTemplate, BadPrompt, BadFormat, StreamsFull, TooLate, DeadlineExceeded, EngineFailed,
        InvalidFields,
    )
}  # fmt: skip


def message(kind: int, number: int, body: Any = None) -> bytes:
    return frame(kind, number, _encode(body).encode())


def question(prompt: Prompt, options: Options | None = None) -> dict[str, Any]:
    """Raises BadPrompt when a message is no JSON."""
    asked: dict[str, Any] = {
        "text": prompt.text, "tokens": prompt.tokens and list(prompt.tokens),
        "messages": prompt.messages and [dict(m) for m in prompt.messages], "tools": [dict(t) for t in prompt.tools],
    }  # fmt: skip
    return {"prompt": asked, "options": options and _options(options)}


def asked(body: Any) -> tuple[Prompt, Options]:
    return Prompt(**body["prompt"]), _read_options(body["options"] or {"logit_bias": ()})


def _options(o: Options) -> dict[str, Any]:
    return {**asdict(o), "logit_bias": list(o.logit_bias.items())}


def _read_options(body: Any) -> Options:
    return Options(**{**body, "logit_bias": dict(body["logit_bias"])})


def written(w: Written) -> dict[str, Any]:
    return {**asdict(w), "options": _options(w.options)}


def read_written(body: Any) -> Written:
    """What `written` said. Raises KeyError, TypeError or ValueError when it is no such thing."""
    return Written(str(body["text"]), int(body["tokens"]), int(body["longest"]), _read_options(body["options"]))


def error(e: MercatError) -> dict[str, Any]:
    return {
        "reason": e.reason, "message": e.message[:1000], "retry_after": e.retry_after,
        "violations": [(v.field, v.description) for v in e.violations],
    }  # fmt: skip


def raised(body: Any) -> MercatError:
    """The error that was told, of the few there may be."""
    kind = _ERRORS.get(body["reason"], EngineFailed)
    retry = body["retry_after"]
    return kind(
        str(body["message"])[:1000],
        violations=[Violation(str(field), str(text)) for field, text in body["violations"]],
        retry_after=None if retry is None else float(retry),
    )


def named(text: str) -> MercatError | None:
    """The error that a text begins with the reason of: so Triton's `decoder` backend says them."""
    reason, _, message = text.partition(": ")
    kind = _ERRORS.get(reason)
    return kind and kind(message, retry_after=1.0 if kind is StreamsFull else None)


def news(events: Iterable[Event], s: Stats) -> dict[str, Any]:
    # Field by field, not `astuple`: it runs after every token, when nothing of it is in the processor's caches.
    return {
        "calls": [
            (e.number, e.cached, [_piece(p) for p in e.pieces], e.end, e.error and error(e.error)) for e in events
        ],
        "stats": (
            s.slots, s.running, s.waiting, s.tokens, s.prompt_tokens, s.cached_tokens, s.steps, s.step_seconds,
        ),
    }  # fmt: skip


def told(body: Any) -> tuple[list[Event], Stats]:
    """What `news` said. Raises KeyError, TypeError or ValueError when it is no such thing."""
    events = []
    for number, cached, pieces, end, e in body["calls"]:
        found = [_read(p) for p in pieces]
        events.append(Event(int(number), None if cached is None else int(cached), found, bool(end), e and raised(e)))
    *counts, seconds = body["stats"]
    stats = Stats(*(int(count) for count in counts))
    stats.step_seconds = float(seconds)
    return events, stats


def _piece(p: Piece) -> tuple[Any, ...]:
    return (p.index, p.text, p.tokens, p.finish, [_logprob(each) for each in p.logprobs])


def _read(body: Any) -> Piece:
    index, text, tokens, finish, logprobs = body
    if finish not in ("", STOP, LENGTH) or int(tokens) < 0:
        raise ValueError("no piece of an answer")
    return Piece(int(index), str(text), int(tokens), finish, tuple(_read_logprob(each) for each in logprobs))


def _logprob(p: Logprob) -> tuple[Any, ...]:
    return (p.token, p.data.hex(), p.logprob, [_logprob(each) for each in p.top])


def _read_logprob(body: Any) -> Logprob:
    token, data, value, top = body
    return Logprob(str(token), bytes.fromhex(data), float(value), tuple(_read_logprob(each) for each in top))
