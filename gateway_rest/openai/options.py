"""What chats and completions are asked for alike: how tokens are chosen, how many answers, and in what form."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from mercat.inference.v1 import text_pb2
from pydantic import BeforeValidator, Field

from gateway_rest.openai.calls import Body
from gateway_rest.openai.errors import Invalid

# Fields of the contract by the dialect's names, where those are others.
PARAMS = {"json_schema": "response_format", "json_object": "response_format", "regex": "response_format"}

Int32 = Annotated[int, Field(ge=-(2**31), lt=2**31)]
Positive = Annotated[int, Field(ge=1, lt=2**31)]
# The ids come as the names of a JSON object.
TokenId = Annotated[int, Field(strict=False, ge=-(2**31), lt=2**31)]


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class JsonSchema(Body):
    fits: dict[str, Any] = Field(alias="schema")


class ResponseFormat(Body):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StreamOptions(Body):
    include_usage: bool = False


class Options(Body):
    """OpenAI's own, and `top_k`, `min_p`, `repetition_penalty` and `priority`, which are Mercat's. Ranges are the
    contract's: what is out of them the service refuses."""

    model: str
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    n: Positive = 1
    max_tokens: Positive | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: Int32 | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[TokenId, float] = Field(default_factory=dict)
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Annotated[list[str], BeforeValidator(_listed)] = Field(default_factory=list, max_length=4)
    response_format: ResponseFormat | None = None
    priority: Int32 = 0

    def sampling(self, max_tokens: int | None, logprobs: int | None) -> text_pb2.Sampling:
        """The contract's form of these. `logprobs`: of how many of the likeliest tokens; None: not even the chosen."""
        made = text_pb2.Sampling(
            max_tokens=max_tokens or 0, temperature=self.temperature, top_k=self.top_k, top_p=self.top_p,
            min_p=self.min_p, repetition_penalty=self.repetition_penalty, presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty, logit_bias=self.logit_bias, seed=self.seed, stop=self.stop,
            logprobs=logprobs, n=self.n,
        )  # fmt: skip
        form = self.response_format
        if form is not None and form.type == "json_object":
            made.json_object = True
        elif form is not None and form.type == "json_schema":
            if form.json_schema is None:
                param = "response_format.json_schema"
                raise Invalid(f"Missing required parameter: '{param}'.", param, "missing_required_parameter")
            made.json_schema = json.dumps(form.json_schema.fits, ensure_ascii=False)
        return made
