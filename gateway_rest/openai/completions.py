"""`POST /completions`: prompts as calls of the contract's Generate, one each."""

from __future__ import annotations

from typing import Annotated, Any

from mercat.inference.v1 import text_pb2
from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError
from starlette.responses import Response

from gateway_rest.openai import options
from gateway_rest.openai.answers import FINISH, Answer, Choice, Logprobs, Piece, log_of, starts, streamed, whole
from gateway_rest.openai.calls import Call
from gateway_rest.openai.errors import Invalid
from gateway_rest.openai.options import Options

RPC = "/mercat.inference.v1.TextService/Generate"
PARAMS = {**options.PARAMS, "prompt_tokens": "prompt"}
# Ignoring these would give another answer than was asked for.
_UNSUPPORTED = ("suffix",)
_PROMPTS = 128
_MAX_TOKENS = 16  # OpenAI's own default


def _is_tokens(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(one) is int and 0 <= one < 2**31 for one in value)


def _prompts(value: Any) -> Any:
    """OpenAI's four forms as a list of prompts."""
    if isinstance(value, str) or _is_tokens(value):
        return [value]
    several = isinstance(value, list) and 0 < len(value) <= _PROMPTS
    if several and (all(isinstance(one, str) for one in value) or all(_is_tokens(one) for one in value)):
        return value
    raise PydanticCustomError(
        "prompt", "it must be a text, a list of token ids, or a list of up to {most} of either", {"most": _PROMPTS}
    )


class CompletionBody(Options):
    prompt: Annotated[list[Any], BeforeValidator(_prompts)]
    echo: bool = False
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    best_of: int = 1

    def requests(self) -> list[text_pb2.GenerateRequest]:
        """Raises Invalid for what the types alone do not say."""
        if self.best_of not in (1, self.n):
            raise Invalid("Unsupported parameter: 'best_of'.", "best_of", "unsupported_parameter")
        sampling = self.sampling(self.max_tokens or _MAX_TOKENS, self.logprobs)
        return [
            text_pb2.GenerateRequest(
                model=self.model,
                prompt=prompt if isinstance(prompt, str) else "",
                prompt_tokens=None if isinstance(prompt, str) else prompt,
                sampling=sampling,
                priority=self.priority,
                echo=self.echo,
            )
            for prompt in self.prompt
        ]


class Completion:
    """How completions are written."""

    prefix, whole, chunk = "cmpl", "text_completion", "text_completion"

    def choice(self, index: int, choice: Choice) -> dict[str, Any]:
        return _choice(index, "".join(choice.texts), _logprobs(choice.logprobs, choice.starts), choice.finish)

    def deltas(self, index: int, choice: Choice, piece: Piece) -> list[dict[str, Any]]:
        logprobs = _logprobs(piece.logprobs, starts(choice.length, piece.logprobs))
        return [_choice(index, piece.text, logprobs, FINISH.get(piece.finish_reason))]


def _choice(index: int, text: str, logprobs: dict[str, Any] | None, finish: str | None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}


def _logprobs(found: Logprobs, offsets: list[int]) -> dict[str, Any] | None:
    if not found:
        return None
    return {
        "tokens": [one.token for one in found],
        "token_logprobs": [log_of(one) for one in found],
        "top_logprobs": [{other.token: log_of(other) for other in one.top} for one in found],
        "text_offset": offsets,
    }


async def completions(call: Call) -> Response:
    asked = await call.body(CompletionBody, _UNSUPPORTED)
    said: dict[str, str] = {}
    streams = [call.stream(RPC, request, text_pb2.GenerateResponse, said) for request in asked.requests()]
    answer = Answer(Completion(), asked.model, asked.n)
    if asked.stream:
        return await streamed(call, answer, streams, PARAMS, said, usage=asked.stream_options.include_usage)
    return await whole(call, answer, streams, said)
