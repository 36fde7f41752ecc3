"""Puts a tokenizer, and what else makes a text model, inside an ONNX file: what is pushed is one file."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from services.cli.session import Refusal
from services.common.text_model import DECODER, ENCODER, TEXT_KEY, TOKENIZER_KEY, TextConfig

_PAST, _KEY = "past_key_values.", ".key"


def with_tokenizer(
    file: Path, tokenizer: str, folder: Path, *, context: int = 0, template: str = "", stops: Sequence[str] = ()
) -> Path:
    """A copy in `folder` of an ONNX file, with the entries of a text model behind it (what is appended to a protobuf
    message is merged into it). `tokenizer`: a tokenizer.json; `context` 0: as that says. Raises Refusal."""
    import onnx  # slow to import, and seldom needed

    try:
        model = onnx.load(str(file), load_external_data=False)
    except Exception:
        raise Refusal(f"{file} is no ONNX model; only those take a tokenizer.") from None
    config = _config(model, tokenizer, context, template, stops)
    entries = onnx.ModelProto()
    onnx.helper.set_model_props(entries, {TOKENIZER_KEY: tokenizer, TEXT_KEY: config.to_json()})
    made = folder / file.name
    shutil.copyfile(file, made)
    with made.open("ab") as out:
        out.write(entries.SerializeToString())
    return made


def _config(model: Any, text: str, context: int, template: str, stops: Sequence[str]) -> TextConfig:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(text)
        truncation = (json.loads(text).get("truncation") or {}).get("max_length", 0)
    except Exception as error:  # the library raises plain ones
        raise Refusal(f"the tokenizer cannot be read: {error}", "it must be a tokenizer.json") from None
    context = context or int(truncation)
    if not context:
        raise Refusal("the tokenizer does not say how long a text may be.", "say it with --context TOKENS")
    shapes = {
        v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in (*model.graph.input, *model.graph.output)
    }
    vocabulary = max(tokenizer.get_vocab().values(), default=0) + 1
    caches = [shape for name, shape in shapes.items() if name.startswith(_PAST) and name.endswith(_KEY)]
    if not caches:
        return TextConfig(kind=ENCODER, context=context, vocabulary=vocabulary)
    ends: list[int] = []
    for token in stops:
        number = tokenizer.token_to_id(token)
        if number is None:
            raise Refusal(f"the tokenizer has no token {token!r}.")
        ends.append(number)
    if not ends:
        raise Refusal("this decoder would never end.", "name the token that ends an answer with --stop TOKEN")
    if len(caches[0]) != 4:
        raise Refusal("the decoder's caches do not have four axes.", "see docs/publishing.md for what it must take")
    return TextConfig(
        kind=DECODER, context=context, vocabulary=(shapes.get("logits") or [0])[-1] or vocabulary, layers=len(caches),
        kv_heads=caches[0][1], head_dim=caches[0][3], stop_tokens=tuple(sorted(ends)),
        eos_token=stops[0], chat_template=template,
    )  # fmt: skip
