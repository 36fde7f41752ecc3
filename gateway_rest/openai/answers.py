"""What a model generates as OpenAI's objects: one for the whole answer, or a chunk for each piece."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from grpc import aio
from mercat.inference.v1 import text_pb2
from starlette.responses import Response

from gateway_rest import exchange, replies
from gateway_rest.errors import Refusal, of_call
from gateway_rest.openai import errors
from gateway_rest.openai.calls import Call, merged
from gateway_rest.openai.sse import DONE, Events, event
from gateway_rest.transcode import dumps
from services.common import clock
from services.common.errors import Internal, from_status, to_status

log = logging.getLogger(__name__)

Piece: TypeAlias = text_pb2.GenerateResponse | text_pb2.ChatResponse
Logprobs: TypeAlias = Sequence[text_pb2.TokenLogprob]

FINISH: dict[int, str] = {text_pb2.FINISH_REASON_STOP: "stop", text_pb2.FINISH_REASON_LENGTH: "length"}
# What OpenAI writes for a probability of 0, whose logarithm JSON cannot say.
_LEAST = -9999.0


class Form(Protocol):
    """How one endpoint writes its answers."""

    prefix: str
    whole: str
    chunk: str

    def choice(self, index: int, choice: Choice) -> dict[str, Any]: ...

    def deltas(self, index: int, choice: Choice, piece: Piece) -> list[dict[str, Any]]:
        """The choices of the chunks that a piece becomes; `choice` is what came before it."""
        ...


@dataclass
class Choice:
    """One of the answers, as far as it has come."""

    length: int = 0  # characters
    texts: list[str] = field(default_factory=list)
    logprobs: list[text_pb2.TokenLogprob] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)  # where in the text each of `logprobs` begins
    finish: str | None = None
    begun: bool = False

    def take(self, piece: Piece, *, keep: bool) -> None:
        """`keep`: for the whole answer."""
        if keep:
            self.texts.append(piece.text)
            self.starts += starts(self.length, piece.logprobs)
            self.logprobs += piece.logprobs
        self.length += len(piece.text)
        self.begun = True
        self.finish = FINISH.get(piece.finish_reason, self.finish)


def starts(start: int, logprobs: Logprobs) -> list[int]:
    """Where tokens begin in a text of which the first begins at `start`."""
    found = []
    for one in logprobs:
        found.append(start)
        start += len(one.token)
    return found


def log_of(one: text_pb2.TokenLogprob) -> float:
    return max(_LEAST, one.logprob)


@dataclass
class Answer:
    """What is the same in every chunk, and what adds up."""

    form: Form
    model: str
    per_prompt: int  # answers
    created: int = field(default_factory=lambda: clock.time_ns() // 10**9)
    request_id: str = ""
    version: str = ""
    choices: dict[int, Choice] = field(default_factory=dict)
    usage: text_pb2.TextUsage = field(default_factory=text_pb2.TextUsage)

    def begin(self, piece: Piece) -> None:
        """The first piece names the answer."""
        self.request_id = self.request_id or piece.request_id
        self.version = self.version or piece.version

    def place(self, prompt: int, piece: Piece) -> tuple[int, Choice]:
        """Which choice a piece belongs to."""
        self.begin(piece)
        for counter in ("input_tokens", "cached_input_tokens", "output_tokens", "cost_nanos", "cold_start_ms"):
            setattr(self.usage, counter, getattr(self.usage, counter) + getattr(piece.usage, counter))
        index = prompt * self.per_prompt + piece.index
        return index, self.choices.setdefault(index, Choice())

    def object(self, kind: str, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        return {
            "id": f"{self.form.prefix}-{self.request_id.removeprefix('req_')}",
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": f"fp_{self.version}" if self.version else None,
            "choices": choices,
            **more,
        }

    def counted(self) -> dict[str, Any]:
        used = self.usage
        return {
            "prompt_tokens": used.input_tokens,
            "completion_tokens": used.output_tokens,
            "total_tokens": used.input_tokens + used.output_tokens,
            "prompt_tokens_details": {"cached_tokens": used.cached_input_tokens},
            "cost_nanos": used.cost_nanos,
        }

    def headers(self) -> dict[str, str]:
        """What is known from the first piece on."""
        named = {"mercat-request-id": self.request_id, "x-request-id": self.request_id}
        return {name: value for name, value in (named | {"mercat-model-version": self.version}).items() if value}


async def whole(
    call: Call, answer: Answer, streams: Sequence[AsyncGenerator[Any, None]], said: dict[str, str]
) -> Response:
    """`said`: the headers of the calls, when they have ended. Raises AioRpcError, and ClientDisconnect when nobody
    waits any more."""

    async def collect() -> None:
        async for prompt, piece in merged(streams):
            _, choice = answer.place(prompt, piece)
            choice.take(piece, keep=True)

    await exchange.unless_gone(collect(), None, call.request)
    if not answer.choices:
        raise _nothing()
    choices = [answer.form.choice(index, choice) for index, choice in sorted(answer.choices.items())]
    shown = answer.object(answer.form.whole, choices, usage=answer.counted())
    headers = {**said, **answer.headers(), "mercat-cost-nanos": str(answer.usage.cost_nanos)}
    return Response(dumps(shown), headers=headers, media_type=replies.JSON)


def _nothing() -> Refusal:
    return Refusal(Internal("the model gave no answer", reason="INTERNAL"))


async def streamed(
    call: Call,
    answer: Answer,
    streams: Sequence[AsyncGenerator[Any, None]],
    params: Mapping[str, str],
    said: Mapping[str, str],
    *,
    usage: bool,
) -> Response:
    """The answer in chunks; `said`: the headers that the calls began with. An error that comes before the first of them
    is raised, as `whole` does."""
    pieces = merged(streams)
    first = await exchange.unless_gone(anext(pieces, None), None, call.request)
    if first is None:
        raise _nothing()
    answer.begin(first[1])
    return Events(_events(answer, first, pieces, params, usage), {**said, **answer.headers()})


async def _events(
    answer: Answer,
    first: tuple[int, Piece],
    pieces: AsyncGenerator[tuple[int, Piece], None],
    params: Mapping[str, str],
    usage: bool,
) -> AsyncGenerator[bytes, None]:
    more: dict[str, Any] = {"usage": None} if usage else {}
    chunk = answer.form.chunk
    try:
        prompt, piece = first
        while True:
            index, choice = answer.place(prompt, piece)
            for delta in answer.form.deltas(index, choice, piece):
                yield event(answer.object(chunk, [delta], **more))
            choice.take(piece, keep=False)
            got = await anext(pieces, None)
            if got is None:
                break
            prompt, piece = got
        if usage:
            yield event(answer.object(chunk, [], usage=answer.counted()))
        yield DONE
    except aio.AioRpcError as error:
        yield event(errors.shown(from_status(of_call(error)), params)[2])
    except Exception:
        log.exception("a stream of %s failed", answer.request_id)
        failed = from_status(to_status(Internal("an internal error", reason="INTERNAL"), answer.request_id))
        yield event(errors.shown(failed, params)[2])
    finally:
        await pieces.aclose()
