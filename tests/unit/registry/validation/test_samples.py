"""Samples are run on what is served, and each that fails is named with its reason."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import json_format
from mercat.inference.v1 import text_pb2

from services.registry.validation import Finding, Limits, Report, Samples, validate
from services.registry.validation.samples import AT
from services.registry.validation.trying import named
from tests import graphs
from tests.decoders import tiny_gguf

_SERVED = 16_000  # characters of a reply at most


async def tried(tmp_path: Path, data: bytes, *requests: Any, **fields: Any) -> Report:
    path = tmp_path / "model"
    path.write_bytes(data)
    texts = tuple(r if isinstance(r, str) else json.dumps(r) for r in requests)
    titles = tuple("ABCDEFGH"[: len(texts)])
    return await validate(path, Limits(), tmp_path / "made", samples=Samples(texts, titles, **fields))


def of(**inputs: Any) -> dict[str, Any]:
    return {"inputs": [{"name": name, "data": data} for name, data in inputs.items()]}


def findings(report: Report) -> list[tuple[str, str]]:
    return [(f.where, f.code) for f in report.findings]


async def test_what_they_gave_is_kept_as_a_reply_has_it(tmp_path: Path) -> None:
    raw = {"name": "a", "datatype": "INT64", "shape": [1], "raw": "BQAAAAAAAAA="}
    report = await tried(
        tmp_path, graphs.addition(), of(a=[1, 2], b=[10, 20]), {"inputs": [raw, {"name": "b", "data": [2]}]}
    )
    assert report.findings == ()
    assert [json.loads(text)["outputs"] for text in report.samples] == [
        [{"name": "sum", "datatype": "INT64", "shape": ["2"], "data": [11.0, 22.0]}],
        [{"name": "sum", "datatype": "INT64", "shape": ["1"], "data": [7.0]}],
    ]


async def test_texts_and_what_is_no_number(tmp_path: Path) -> None:
    report = await tried(tmp_path, graphs.labelled(), of(x=[["nan", 1, 2, 3]], text=["häß\n"]))
    assert report.findings == ()
    outputs = {o["name"]: o["data"] for o in json.loads(report.samples[0])["outputs"]}
    assert outputs == {"x_out": ["nan", 1, 2, 3], "text_out": ["häß\n"]}


async def test_large_outputs_are_kept_by_their_shapes(tmp_path: Path) -> None:
    rows = np.zeros((2000, 4)).tolist()
    report = await tried(
        tmp_path, graphs.labelled(), of(x=rows, text=["t"] * 2000), of(x=rows[:1], text=["t" * 20_000])
    )
    assert report.findings == ()
    many, long = (json.loads(text)["outputs"] for text in report.samples)
    assert many == [
        {"name": "x_out", "datatype": "FP32", "shape": ["2000", "4"]},
        {"name": "text_out", "datatype": "BYTES", "shape": ["2000"]},
    ]
    assert [o["shape"] for o in long] == [["1", "4"], ["1"]]
    assert max(map(len, report.samples)) <= _SERVED


@pytest.mark.parametrize(
    ("sample", "code", "said"),
    [
        (of(index=[1, 7]), "SAMPLE_RUN_FAILED", "out of data bounds"),
        (of(indices=[1]), "SAMPLE_INVALID", "no such input"),
        (of(index=[[1]]), "SAMPLE_INVALID", "not [1, 1]"),
        (of(index=["one"]), "SAMPLE_INVALID", "no INT64"),
        ({"inputs": []}, "SAMPLE_INVALID", "must not be empty"),
        ({**of(index=[1]), "input": 3}, "SAMPLE_INVALID", 'no field named "input"'),
        ({**of(index=[1]), "outputs": ["cube"]}, "SAMPLE_INVALID", "no such output"),
        ({**of(index=[1]), "priority": 11}, "SAMPLE_INVALID", "priority"),
        ({"inputs": ["a text"]}, "SAMPLE_INVALID", "no body of Predict"),
        ({"prompt": "hello"}, "SAMPLE_INVALID", "no body of Predict"),
    ],
    ids=["run", "name", "shape", "type", "missing", "field", "output", "rule", "texts", "prompt"],
)  # fmt: skip
async def test_one_that_fails_is_named_and_the_others_are_not(
    tmp_path: Path, sample: dict[str, Any], code: str, said: str
) -> None:
    report = await tried(tmp_path, graphs.lookup(), of(index=[3]), sample, of(index=[0]))
    assert findings(report) == [("samples[1] B", code)]
    assert said in report.findings[0].message
    assert report.samples == ()


async def test_every_one_that_fails_isnamed(tmp_path: Path) -> None:
    report = await tried(tmp_path, graphs.lookup(), of(index=[9]), of(index=[0]), of(other=[0]))
    assert findings(report) == [("samples[0] A", "SAMPLE_RUN_FAILED"), ("samples[2] C", "SAMPLE_INVALID")]


async def test_more_rows_than_a_call_may_have(tmp_path: Path) -> None:
    four, five = (of(x=np.ones((n, 4)).tolist()) for n in (4, 5))
    assert findings(await tried(tmp_path, graphs.tiny(), four, five, most_rows=4)) == [
        ("samples[1] B", "SAMPLE_INVALID")
    ]
    assert findings(await tried(tmp_path, graphs.tiny(), four, five)) == []


async def test_a_sample_that_ends_the_child_isnamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.registry.validation.trying._CPU", -42)  # six of the 90 seconds are left
    ((where, code),) = findings(await tried(tmp_path, graphs.count(), of(n=[5]), of(n=[2_000_000_000])))
    assert where == "samples[1] B"
    assert code in ("VALIDATION_CPU", "VALIDATION_TIMEOUT")


def test_only_a_file_says_which_one_it_was(tmp_path: Path) -> None:
    """What the child left may be anything that a publisher's model wrote."""
    lost, names = Finding("VALIDATION_CRASHED", "it crashed"), ("samples[0] A", "samples[1] B")
    at = tmp_path / AT
    assert named(lost, at, names).where == ""
    for said, where in (("1", "samples[1] B"), ("2", ""), ("one", ""), ("", "")):
        at.write_text(said)
        assert named(lost, at, names).where == where
    at.write_text("0")
    assert named(replace(lost, where="x"), at, names).where == "x"
    at.rename(tmp_path / "other")
    at.symlink_to(tmp_path / "other")
    assert named(lost, at, names).where == ""


CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}], "sampling": {"maxTokens": 5, "seed": 3}}


async def test_texts_are_gone_on_with(tmp_path: Path) -> None:
    prompt = {"prompt": "hello world", "sampling": {"maxTokens": 4, "temperature": 0}, "echo": True}
    long = {"prompt": "hello", "sampling": {"seed": 1, "logitBias": {"2": -100}}}
    shaped = {"prompt": "hello", "sampling": {"regex": "(yes|no)", "seed": 2}}
    report = await tried(tmp_path, tiny_gguf(), CHAT, prompt, long, shaped)
    assert report.findings == ()
    chat = json_format.Parse(report.samples[0], text_pb2.ChatResponse())
    generated, longest, form = (json_format.Parse(text, text_pb2.GenerateResponse()) for text in report.samples[1:])
    assert chat.role == "assistant"
    assert 0 < chat.tokens <= 5
    assert generated.text.startswith("hello world")
    assert longest.tokens <= 128
    assert form.text in ("yes", "no")
    assert form.finish_reason == text_pb2.FINISH_REASON_STOP
    again = await tried(tmp_path, tiny_gguf(), CHAT)
    assert again.samples[0] == report.samples[0], "the same seed gives the same text"


@pytest.mark.parametrize(
    ("sample", "said"),
    [
        ({"messages": [{"role": "user", "content": "x" * 2000}]}, "do not fit a context of 256"),
        ({"messages": []}, "messages"),
        ({"prompt": "hello", "sampling": {"temperature": 3}}, "temperature"),
        ({"prompt": "hello", "sampling": {"jsonSchema": "{"}}, "no JSON Schema"),
        ({"prompt": "hello", "temperature": 1}, 'no field named "temperature"'),
        (of(input_ids=[[1, 2]]), "goes on with texts"),
        ({"prompt": ""}, "give either `prompt` or `prompt_tokens`"),
    ],
    ids=["long", "empty", "rule", "schema", "field", "tensors", "nothing"],
)
async def test_a_text_that_is_refused(tmp_path: Path, sample: dict[str, Any], said: str) -> None:
    report = await tried(tmp_path, tiny_gguf(), CHAT, sample)
    assert findings(report) == [("samples[1] B", "SAMPLE_INVALID")]
    assert said in report.findings[0].message


async def test_a_conversation_with_a_model_that_has_no_template(tmp_path: Path) -> None:
    report = await tried(tmp_path, tiny_gguf(metadata={"tokenizer.chat_template": None}), CHAT, {"prompt": "hello"})
    assert findings(report) == [("samples[0] A", "SAMPLE_INVALID")]
    assert "no chat template" in report.findings[0].message


async def test_the_context_is_that_of_calls_here(tmp_path: Path) -> None:
    longer: Sequence[Any] = [{"prompt": "word " * 30, "sampling": {"maxTokens": 1}}]
    assert findings(await tried(tmp_path, tiny_gguf(), *longer, context=16)) == [("samples[0] A", "SAMPLE_INVALID")]
    assert findings(await tried(tmp_path, tiny_gguf(), *longer, context=2048)) == []
