"""Options as vLLM's sampling parameters, and back."""

import json
from typing import Any

import pytest

from services.common.errors import InvalidFields
from services.common.texts import Options
from services.inference.text import sampling_parameters

ALL = Options(
    max_tokens=40, temperature=0.5, top_k=3, top_p=0.9, min_p=0.1, repetition_penalty=1.1, presence_penalty=0.2,
    frequency_penalty=-0.3, logit_bias={7: -100.0}, seed=11, stop=("a", "\n"),
)  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [
        ALL, Options(max_tokens=1, json_schema='{"type": "object"}'), Options(max_tokens=1, regex="[0-9]+"),
        Options(max_tokens=1, json_object=True),
    ],
)  # fmt: skip
def test_what_is_written_is_read(options: Options) -> None:
    assert sampling_parameters.read(sampling_parameters.write(options, options.max_tokens, 0)) == options


def test_they_have_vllms_names() -> None:
    written = json.loads(sampling_parameters.write(ALL, 30, 2))
    assert written == {
        "max_tokens": 30, "temperature": 0.5, "top_k": 3, "top_p": 0.9, "min_p": 0.1, "repetition_penalty": 1.1,
        "presence_penalty": 0.2, "frequency_penalty": -0.3, "logit_bias": {"7": -100.0}, "seed": 13,
        "stop": ["a", "\n"],
    }  # fmt: skip
    form = json.loads(sampling_parameters.write(Options(regex="x"), 1, 0))["structured_outputs"]
    assert json.loads(form) == {"regex": "x"}


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ("no", "sampling_parameters"), ("[]", "sampling_parameters"), ({"n": 2}, "n"), ({"top_k": 1.5}, "top_k"),
        ({"top_k": True}, "top_k"), ({"temperature": "1"}, "temperature"), ('{"top_p": NaN}', "top_p"),
        ({"stop": [1]}, "stop"), ({"logit_bias": [1]}, "logit_bias"), ({"logit_bias": {"a": 1}}, "logit_bias"),
        ({"structured_outputs": "{}"}, "structured_outputs"), ({"structured_outputs": "x"}, "structured_outputs"),
        ({"structured_outputs": {"regex": "a", "json_object": True}}, "structured_outputs"),
        ({"structured_outputs": {"regex": 1}}, "structured_outputs"), ({"best_of": 2}, "best_of"),
    ],
)  # fmt: skip
def test_anything_else_is_refused_by_its_name(given: Any, field: str) -> None:
    with pytest.raises(InvalidFields) as refused:
        sampling_parameters.read(given if isinstance(given, str) else json.dumps(given))
    assert [violation.field for violation in refused.value.violations] == [field]


def test_what_others_send_is_understood() -> None:
    read = sampling_parameters.read
    assert read('{"stop": "x", "temperature": 1, "n": 1}') == Options(stop=("x",), temperature=1.0)
    assert read('{"structured_outputs": {"json": {"type": "object"}}}').json_schema == '{"type": "object"}'
    assert read("{}") == Options()
