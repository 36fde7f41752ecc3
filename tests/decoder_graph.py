"""A small llama-like decoder with random weights and a byte-level tokenizer, built here: the kernels that a real one
runs on (GroupQueryAttention, 8-bit MatMulNBits), and answers that are noise but always the same."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from services.common.text_model import DECODER, TEXT_KEY, TOKENIZER_KEY, TextConfig

BLOCK = 32  # weights that share a scale
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MERGES = ["e r", "i n", "a n", "o r", "l o", "t e", "Ġ t", "Ġ a", "in g", "er e", "Ġt h", "h e", "Ġ {", '" :', "Ã ¤"]
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def tokenizer() -> Tokenizer:
    """Bytes, a few merges, and three special tokens, which come first."""
    made = Tokenizer(models.BPE(vocab=_vocabulary(), merges=[tuple(m.split()) for m in MERGES]))
    made.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in SPECIAL])
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    made.decoder = decoders.ByteLevel()
    return made


def _vocabulary() -> dict[str, int]:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    return {token: i for i, token in enumerate([*SPECIAL, *letters, *(m.replace(" ", "") for m in MERGES)])}


def decoder(
    *, layers: int = 2, heads: int = 4, kv_heads: int = 2, head_dim: int = 32, feed: int = 128, vocabulary: int = 0,
    context: int = 512, seed: int = 5, theta: float = 1e4, config: Mapping[str, Any] | None = None,
) -> bytes:  # fmt: skip
    """The model's file. `config`: fields of its TextConfig that are to be different."""
    rng = np.random.default_rng(seed)
    words = tokenizer()
    vocabulary = vocabulary or words.get_vocab_size()
    hidden = heads * head_dim
    graph = _Graph(rng)
    graph.constant("embedding", rng.normal(0, 1, (vocabulary, hidden)).astype(np.float32))
    angles = np.outer(np.arange(context), theta ** -(np.arange(head_dim // 2) * 2 / head_dim)).astype(np.float32)
    graph.constant("cos", np.cos(angles))
    graph.constant("sin", np.sin(angles))
    graph.constant("last", np.array([-1], np.int64))
    x = graph.node("Gather", ["embedding", "input_ids"])
    cache = ["B", kv_heads, "capacity", head_dim]
    inputs = [
        ("input_ids", TensorProto.INT64, ["B", "S"]), ("seqlens_k", TensorProto.INT32, ["B"]),
        ("total_sequence_length", TensorProto.INT32, []),
    ]  # fmt: skip
    outputs = [("logits", TensorProto.FLOAT, ["B", vocabulary])]
    for layer in range(layers):
        past = [f"past_key_values.{layer}.{part}" for part in ("key", "value")]
        present = [f"present.{layer}.{part}" for part in ("key", "value")]
        inputs += [(name, TensorProto.FLOAT, cache) for name in past]
        outputs += [(name, TensorProto.FLOAT, cache) for name in present]
        qkv = graph.linear(graph.norm(x, hidden), hidden, (heads + 2 * kv_heads) * head_dim)
        attended = graph.node(
            "GroupQueryAttention",
            [qkv, "", "", *past, "seqlens_k", "total_sequence_length", "cos", "sin"], present, domain="com.microsoft",
            num_heads=heads, kv_num_heads=kv_heads, do_rotary=1, rotary_interleaved=0, scale=head_dim**-0.5,
        )  # fmt: skip
        x = graph.node("Add", [x, graph.linear(attended, hidden, hidden)])
        normed = graph.norm(x, hidden)
        gate = graph.node("QuickGelu", [graph.linear(normed, hidden, feed)], domain="com.microsoft", alpha=1.0)
        up = graph.node("Mul", [gate, graph.linear(normed, hidden, feed)])
        x = graph.node("Add", [x, graph.linear(up, feed, hidden)])
    x = graph.node("Gather", [x, "last"], axis=1)
    x = graph.linear(graph.norm(x, hidden), hidden, vocabulary, scale=3.0)
    graph.constant("one", np.array([1], np.int64))
    graph.node("Squeeze", [x, "one"], ["logits"])
    facts = {
        "kind": DECODER, "context": context, "vocabulary": vocabulary, "architecture": "llama", "layers": layers,
        "kv_heads": kv_heads, "head_dim": head_dim, "stop_tokens": (0, 2), "bos_token": SPECIAL[1],
        "eos_token": SPECIAL[2], "chat_template": TEMPLATE,
    }  # fmt: skip
    return graph.model(
        inputs, outputs,
        {TOKENIZER_KEY: words.to_str(), TEXT_KEY: TextConfig(**{**facts, **(config or {})}).to_json()},
    )  # fmt: skip


class _Graph:
    """Nodes and weights as they are added."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []

    def constant(self, name: str, array: np.ndarray) -> str:
        self._weights.append(numpy_helper.from_array(array, name))
        return name

    def node(self, kind: str, inputs: list[str], outputs: list[str] | None = None, **attributes: Any) -> str:
        """The name of its first output, which is not among `outputs`, further ones that have names of their own, where
        it is GroupQueryAttention."""
        first = f"v{len(self._nodes)}"
        names = [first, *outputs] if outputs is not None and kind == "GroupQueryAttention" else outputs or [first]
        self._nodes.append(helper.make_node(kind, inputs, names, **attributes))
        return names[0]

    def norm(self, x: str, width: int) -> str:
        scale = self.constant(f"norm{len(self._nodes)}", np.ones(width, np.float32))
        return self.node("SimplifiedLayerNormalization", [x, scale], axis=-1, epsilon=1e-5, stash_type=1)

    def linear(self, x: str, width: int, to: int, scale: float = 1.0) -> str:
        name = f"w{len(self._nodes)}"
        blocks = width // BLOCK
        weights = self._rng.integers(0, 256, (to, blocks, BLOCK), dtype=np.uint8)
        # Uniform over 256 steps has a deviation of 74 steps.
        scales = np.full((to, blocks), scale / (74 * width**0.5), np.float32)
        zeros = np.full((to, blocks), 128, np.uint8)
        parts = [self.constant(name + s, a) for s, a in (("q", weights), ("s", scales), ("z", zeros))]
        return self.node(
            "MatMulNBits", [x, *parts], domain="com.microsoft", K=width, N=to, bits=8, block_size=BLOCK,
            accuracy_level=4,
        )  # fmt: skip

    def model(self, inputs: list, outputs: list, metadata: dict[str, str]) -> bytes:
        graph = helper.make_graph(
            self._nodes, "decoder", [helper.make_tensor_value_info(*i) for i in inputs],
            [helper.make_tensor_value_info(*o) for o in outputs], self._weights,
        )  # fmt: skip
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        helper.set_model_props(model, metadata)
        return bytes(model.SerializeToString())
