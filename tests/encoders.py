"""A small encoder model for tests: an ONNX graph with the inputs and output of a BERT, and a tokenizer of words."""

import json

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from services.common.text_model import ENCODER, TEXT_KEY, TOKENIZER_KEY, TextConfig

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "hello", "world", "cats", "sleep", "the", "of"]
POSITIONS = 32


def tokenizer() -> str:
    """Whole words, with [CLS] before and [SEP] behind, as tokenizer.json; cut to 16 tokens by itself."""
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.enable_truncation(16)
    return str(made.to_str())


def config(**fields: object) -> str:
    return json.dumps({"kind": ENCODER, "context": POSITIONS, "vocabulary": len(WORDS)} | fields)


def graph(seed: int = 0, *, hidden: int = 8) -> bytes:
    """int64 input_ids and attention_mask [batch, sequence] → float32 last_hidden_state [batch, sequence, hidden]: the
    sum of a word's vector and that of its position, of which there are 32."""
    rng = np.random.default_rng(seed)
    nodes = [
        helper.make_node("Gather", ["words", "input_ids"], ["w"]),
        helper.make_node("Shape", ["input_ids"], ["length"], start=1, end=2),
        helper.make_node("Squeeze", ["length"], ["stop"]),
        helper.make_node("Range", ["zero", "stop", "one"], ["place"]),
        helper.make_node("Gather", ["positions", "place"], ["p"]),
        helper.make_node("Add", ["w", "p"], ["s"]),
        helper.make_node("Cast", ["attention_mask"], ["m"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["m", "last"], ["mask"]),
        helper.make_node("Mul", ["s", "mask"], ["last_hidden_state"]),
    ]
    values = {
        "words": rng.standard_normal((len(WORDS), hidden)).astype(np.float32),
        "positions": rng.standard_normal((POSITIONS, hidden)).astype(np.float32),
        "zero": np.array(0), "one": np.array(1), "last": np.array([-1]),
    }  # fmt: skip
    axes = ["batch", "sequence"]
    made = helper.make_graph(
        nodes, "encoder",
        [helper.make_tensor_value_info(n, TensorProto.INT64, axes) for n in ("input_ids", "attention_mask")],
        [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, [*axes, hidden])],
        [numpy_helper.from_array(v, k) for k, v in values.items()],
    )  # fmt: skip
    return bytes(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString())


def with_entries(model: bytes, **entries: str) -> bytes:
    """A model's bytes with entries behind them. Keys: `tokenizer` and `text`."""
    keys = {"tokenizer": TOKENIZER_KEY, "text": TEXT_KEY}
    more = onnx.ModelProto()
    helper.set_model_props(more, {keys[name]: value for name, value in entries.items()})
    return model + bytes(more.SerializeToString())


def tiny_encoder() -> bytes:
    """The whole model."""
    return with_entries(graph(), tokenizer=tokenizer(), text=TextConfig(ENCODER, POSITIONS, len(WORDS)).to_json())
