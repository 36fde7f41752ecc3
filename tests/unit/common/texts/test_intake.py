"""Prompts as the texts that become their tokens."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from services.common.errors import EngineFailed
from services.common.texts import BadPrompt, Options, Prompt
from services.common.texts.intake import Intake
from services.common.texts.limits import Limits
from tests.decoders import END, TEMPLATE, onnx_of, tiny_gguf, vocabulary

TOKENS = {token: i for i, token in enumerate(vocabulary())}
HELLO = [TOKENS[token] for token in ("hello", "Ġwor", "l", "d")]
CHAT = Prompt(messages=[{"role": "user", "content": "hello the world é"}])
BEGUN = {"tokenizer.ggml.add_bos_token": True, "tokenizer.chat_template": "{{ bos_token }}" + TEMPLATE}


def intake(folder: Path, metadata: Mapping[str, Any] | None = None) -> Intake:
    file = folder / "model.onnx"
    file.write_bytes(onnx_of(tiny_gguf(1, metadata=metadata)))
    return Intake.of(file, Limits(context=100))


@pytest.mark.parametrize(
    ("metadata", "prompts"),
    [
        pytest.param({}, [CHAT, Prompt(tokens=HELLO), Prompt(text=f"hello{END}")], id="plain"),
        pytest.param({}, [Prompt(tokens=[TOKENS[END], *HELLO])], id="special"),
        # What every text begins with is written by the template, too.
        pytest.param(BEGUN, [CHAT, Prompt(text="hello"), Prompt(tokens=[1, *HELLO])], id="begun"),
    ],
)
def test_a_text_becomes_the_same_tokens(tmp_path: Path, metadata: dict[str, Any], prompts: list[Prompt]) -> None:
    made = intake(tmp_path, metadata)
    for prompt in prompts:
        written = made.write(prompt, Options())
        tokens = made.take(prompt, Options()).tokens
        assert made.take(Prompt(text=written.text), Options()).tokens == tokens
        assert (written.tokens, written.longest) == (len(tokens), 100 - len(tokens))


@pytest.mark.parametrize(
    ("metadata", "tokens"),
    [
        pytest.param({}, [TOKENS["h"], TOKENS["e"]], id="merged"),
        pytest.param({}, [TOKENS["Ã"]], id="half-a-character"),
        pytest.param(BEGUN, HELLO, id="not-begun"),
    ],
)
def test_tokens_that_no_text_becomes_are_refused(tmp_path: Path, metadata: dict[str, Any], tokens: list[int]) -> None:
    made = intake(tmp_path, metadata)
    assert made.take(Prompt(tokens=tokens), Options()).tokens == tokens
    with pytest.raises(BadPrompt, match="no text"):
        made.write(Prompt(tokens=tokens), Options())


def test_options_are_left_open_nowhere(tmp_path: Path) -> None:
    made = intake(tmp_path, {"general.sampling.temp": 0.25})
    options = made.write(CHAT, Options(top_p=0.5)).options
    assert (options.temperature, options.top_p, options.top_k, options.min_p) == (0.25, 0.5, 0, 0.0)


def test_a_file_that_carries_nothing_fails(tmp_path: Path) -> None:
    for data in (b"", b"\xff" * 50):
        file = tmp_path / "model.onnx"
        file.write_bytes(data)
        with pytest.raises(EngineFailed):
            Intake.of(file, Limits())
