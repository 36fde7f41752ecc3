"""Whatever is sent in OpenAI's dialect becomes a message of the contract, or a refusal that names a field."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway_rest.errors import Refusal
from gateway_rest.openai import calls, chat, completions, embeddings
from gateway_rest.openai.errors import Invalid

KINDS = [chat.ChatBody, completions.CompletionBody, embeddings.EmbeddingBody]
NAMES = sorted({name for kind in KINDS for name in kind.model_fields} | {"suffix", "functions", "other"})
NESTED = ["role", "content", "type", "text", "schema", "json_schema", "include_usage", "tool_calls", "name"]

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None))
values = st.recursive(
    scalars | st.sampled_from(["user", "tool", "text", "json_schema", "auto", "none", "base64"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NESTED) | st.text(), inner, max_size=4),
    max_leaves=12,
)
bodies = st.dictionaries(st.sampled_from(NAMES), values, max_size=8)
SOUND = {"model": "a/b", "messages": [{"role": "user", "content": "x"}], "prompt": "x", "input": "x"}


def refusal(kind: type[Any], text: bytes) -> Invalid | Refusal | None:
    """Why the text is not taken; None when it becomes messages of the contract."""
    try:
        asked = calls.parsed(text, kind, ("suffix", "functions"))
        made = asked.requests() if isinstance(asked, completions.CompletionBody) else []
        made += [asked.request()] if isinstance(asked, chat.ChatBody) else []
        for message in made:
            message.SerializeToString()
    except (Invalid, Refusal) as refused:
        return refused
    return None


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=150, deadline=None)
@given(bodies, st.booleans())
def test_any_body_is_taken_or_refused_by_a_field(kind: type[Any], body: dict[str, Any], sound: bool) -> None:
    refused = refusal(kind, json.dumps({**body, **SOUND} if sound else body).encode())
    if isinstance(refused, Invalid) and refused.param is not None:
        assert refused.param.partition(".")[0].partition("[")[0] in NAMES


def test_sound_body_is_taken() -> None:
    assert [refusal(kind, json.dumps(SOUND).encode()) for kind in KINDS] == [None, None, None]


@given(st.binary(max_size=300))
def test_bytes_that_are_no_object_are_refused(data: bytes) -> None:
    assert refusal(chat.ChatBody, data) is not None
