"""`POST /chat/completions`: a conversation as the contract's Chat."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from google.protobuf import json_format, struct_pb2
from mercat.inference.v1 import text_pb2
from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError
from starlette.responses import Response

from gateway_rest.openai import options
from gateway_rest.openai.answers import FINISH, Answer, Choice, Logprobs, Piece, log_of, streamed, whole
from gateway_rest.openai.calls import Body, Call
from gateway_rest.openai.errors import Invalid
from gateway_rest.openai.options import Options, Positive

RPC = "/mercat.inference.v1.TextService/Chat"
PARAMS = {**options.PARAMS, "prompt": "messages", "logprobs": "top_logprobs"}
# Ignoring these would give another answer than was asked for.
_UNSUPPORTED = ("functions", "function_call", "audio", "web_search_options")


def _text(value: Any) -> Any:
    """The text of a message's content, which may come in parts."""
    if not isinstance(value, list):
        return value
    texts: list[str] = []
    for part in value:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise PydanticCustomError("part", "only parts of the type text are taken, each with its text")
        texts.append(part["text"])
    return "\n".join(texts)


class Message(Body):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[str, BeforeValidator(_text)] | None = None
    name: str = ""
    tool_calls: list[dict[str, Any]] = Field(default_factory=list)
    tool_call_id: str = ""


class ChatBody(Options):
    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Positive | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: list[dict[str, Any]] = Field(default_factory=list)
    tool_choice: Any = "auto"
    modalities: list[Literal["text"]] = Field(default_factory=list)

    def request(self) -> text_pb2.ChatRequest:
        """Raises Invalid for what the types alone do not say."""
        if self.tool_choice not in ("none", "auto"):
            raise Invalid("Only 'none' and 'auto' are supported.", "tool_choice", "unsupported_value")
        if self.top_logprobs is not None and not self.logprobs:
            raise Invalid("'top_logprobs' needs 'logprobs' to be true.", "top_logprobs")
        logprobs = (self.top_logprobs or 0) if self.logprobs else None
        return text_pb2.ChatRequest(
            model=self.model,
            messages=[_message(place, message) for place, message in enumerate(self.messages)],
            tools=[_struct(tool, f"tools[{place}]") for place, tool in enumerate(self.tools)]
            if self.tool_choice == "auto"
            else (),
            sampling=self.sampling(self.max_completion_tokens or self.max_tokens, logprobs),
            priority=self.priority,
        )


def _message(place: int, message: Message) -> text_pb2.ChatMessage:
    if message.content is None and not message.tool_calls:
        param = f"messages[{place}].content"
        raise Invalid(f"Missing required parameter: '{param}'.", param, "missing_required_parameter")
    return text_pb2.ChatMessage(
        role="system" if message.role == "developer" else message.role,
        content=message.content or "",
        name=message.name,
        tool_calls=[_struct(made, f"messages[{place}].tool_calls[{n}]") for n, made in enumerate(message.tool_calls)],
        tool_call_id=message.tool_call_id,
    )


def _struct(value: dict[str, Any], param: str) -> struct_pb2.Struct:
    try:
        return json_format.ParseDict(value, struct_pb2.Struct())
    except (json_format.ParseError, OverflowError) as error:
        raise Invalid(
            f"Invalid value for '{param}': it is nested too deep or holds too large a number.", param
        ) from error


class Chat:
    """How chats are written."""

    prefix, whole, chunk = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def choice(self, index: int, choice: Choice) -> dict[str, Any]:
        return {
            "index": index,
            "message": {"role": "assistant", "content": "".join(choice.texts), "refusal": None},
            "logprobs": _logprobs(choice.logprobs),
            "finish_reason": choice.finish,
        }

    def deltas(self, index: int, choice: Choice, piece: Piece) -> list[dict[str, Any]]:
        """The role comes with the first, the end in one of its own, as clients know it."""
        begins = {} if choice.begun else {"role": "assistant"}
        found: list[dict[str, Any]] = []
        if begins or piece.text or piece.logprobs:
            delta = {**begins, "content": piece.text}
            found.append(_delta(index, delta, _logprobs(piece.logprobs), None))
        if piece.finish_reason:
            found.append(_delta(index, {}, None, FINISH.get(piece.finish_reason)))
        return found


def _delta(index: int, delta: dict[str, Any], logprobs: dict[str, Any] | None, finish: str | None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}


def _logprobs(found: Logprobs) -> dict[str, Any] | None:
    if not found:
        return None
    content = [{**_token(one), "top_logprobs": [_token(other) for other in one.top]} for one in found]
    return {"content": content, "refusal": None}


def _token(one: text_pb2.TokenLogprob) -> dict[str, Any]:
    return {"token": one.token, "logprob": log_of(one), "bytes": list(one.token_bytes)}


async def chat(call: Call) -> Response:
    asked = await call.body(ChatBody, _UNSUPPORTED)
    said: dict[str, str] = {}
    streams = [call.stream(RPC, asked.request(), text_pb2.ChatResponse, said)]
    answer = Answer(Chat(), asked.model, asked.n)
    if asked.stream:
        return await streamed(call, answer, streams, PARAMS, said, usage=asked.stream_options.include_usage)
    return await whole(call, answer, streams, said)
