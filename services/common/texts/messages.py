"""Text calls' messages as what engines take and give."""

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from google.protobuf import json_format
from mercat.inference.v1 import text_pb2

from services.common.errors import InvalidFields, Violation
from services.common.texts import LENGTH, STOP, Logprob, Options, Piece, Prompt

Reply = TypeVar("Reply", text_pb2.GenerateResponse, text_pb2.ChatResponse)
_FINISH = {STOP: text_pb2.FINISH_REASON_STOP, LENGTH: text_pb2.FINISH_REASON_LENGTH}


def options(sampling: text_pb2.Sampling) -> Options:
    """How tokens are to be chosen."""
    s = sampling
    return Options(
        temperature=s.temperature if s.HasField("temperature") else None,
        top_k=s.top_k if s.HasField("top_k") else None,
        top_p=s.top_p if s.HasField("top_p") else None,
        min_p=s.min_p if s.HasField("min_p") else None,
        repetition_penalty=s.repetition_penalty if s.HasField("repetition_penalty") else None,
        seed=s.seed if s.HasField("seed") else None,
        logprobs=s.logprobs if s.HasField("logprobs") else None,
        max_tokens=s.max_tokens, presence_penalty=s.presence_penalty,
        frequency_penalty=s.frequency_penalty, logit_bias=dict(s.logit_bias),
        stop=tuple(s.stop), n=s.n or 1, json_schema=s.json_schema, regex=s.regex,
        json_object=s.json_object,
    )  # fmt: skip


def prompt(text: str, tokens: Sequence[int]) -> Prompt:
    """Of a text or of tokens. Raises InvalidFields when both or none are given."""
    if bool(text) == bool(tokens):
        raise InvalidFields(violations=[Violation("prompt", "give either `prompt` or `prompt_tokens`")])
    return Prompt(text=text) if text else Prompt(tokens=tuple(tokens))


def conversation(messages: Iterable[text_pb2.ChatMessage], tools: Iterable[Any]) -> Prompt:
    """Of a chat, as templates take it."""
    made: list[dict[str, Any]] = []
    for given in messages:
        one: dict[str, Any] = {"role": given.role, "content": given.content}
        if given.name:
            one["name"] = given.name
        if given.tool_calls:
            one["tool_calls"] = [json_format.MessageToDict(call) for call in given.tool_calls]
        if given.tool_call_id:
            one["tool_call_id"] = given.tool_call_id
        made.append(one)
    return Prompt(messages=made, tools=[json_format.MessageToDict(tool) for tool in tools])


def message(make: type[Reply], index: int, pieces: Sequence[Piece], *, first: bool) -> Reply:
    """What is new of one answer."""
    made = make(
        index=index, text="".join(piece.text for piece in pieces), tokens=sum(piece.tokens for piece in pieces),
        finish_reason=_FINISH.get(pieces[-1].finish, text_pb2.FINISH_REASON_UNSPECIFIED),
        logprobs=[_logprob(one) for piece in pieces for one in piece.logprobs],
    )  # fmt: skip
    if first and isinstance(made, text_pb2.ChatResponse):
        made.role = "assistant"
    return made


def ended(reply: text_pb2.GenerateResponse | text_pb2.ChatResponse) -> bool:
    """Whether it is the last message of its answer."""
    return reply.finish_reason != text_pb2.FINISH_REASON_UNSPECIFIED


def _logprob(one: Logprob) -> text_pb2.TokenLogprob:
    return text_pb2.TokenLogprob(
        token=one.token, token_bytes=one.data, logprob=one.logprob, top=[_logprob(other) for other in one.top]
    )
