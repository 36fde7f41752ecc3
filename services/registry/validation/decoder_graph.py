"""A decoder as an ONNX graph for ONNX Runtime's CPU kernels, with the inputs and outputs that
`services.common.text_model` describes.

Operators of the domain com.microsoft: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from services.registry.validation.blocks import Blocks, blocks
from services.registry.validation.decoder_run import Array
from services.registry.validation.gguf_file import Gguf
from services.registry.validation.llama import BLOCK, Llama

_IR, _OPSET, _MICROSOFT = 10, 21, "com.microsoft"
_INT8_ACTIVATIONS = 4  # MatMulNBits' accuracy_level; the fastest, on any CPU


def write(path: Path, file: Gguf, net: Llama, metadata: Mapping[str, str]) -> None:
    """Writes one ONNX file. Raises OSError when it grows past what may be written.

    The file is a series of protobuf messages, which is one message in which all are merged: first the graph without
    weights, then one weight each. So no more than a layer's weights are held at a time."""
    with path.open("wb") as out:
        out.write(_frame(net, metadata).SerializeToString())
        for tensor in _weights(file, net):
            out.write(onnx.ModelProto(graph=onnx.GraphProto(initializer=[tensor])).SerializeToString())


def _frame(net: Llama, metadata: Mapping[str, str]) -> onnx.ModelProto:
    past = [f"past_key_values.{layer}.{which}" for layer in range(net.layers) for which in ("key", "value")]
    cache: list[Any] = ["batch", net.kv_heads, "capacity", net.head_dim]
    inputs = [
        helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"]),
        helper.make_tensor_value_info("seqlens_k", TensorProto.INT32, ["batch"]),
        helper.make_tensor_value_info("total_sequence_length", TensorProto.INT32, []),
        *(helper.make_tensor_value_info(name, TensorProto.FLOAT, cache) for name in past),
    ]
    present = [name.replace("past_key_values", "present") for name in past]
    outputs = [
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", net.vocabulary]),
        *(helper.make_tensor_value_info(name, TensorProto.FLOAT, cache) for name in present),
    ]
    graph = helper.make_graph(list(_nodes(net)), "decoder", inputs, outputs)
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_MICROSOFT, 1)]
    model = helper.make_model(graph, ir_version=_IR, opset_imports=opsets, producer_name="mercat")
    helper.set_model_props(model, dict(metadata))
    return model


def _nodes(net: Llama) -> Iterator[onnx.NodeProto]:
    queries, keys = net.heads * net.head_dim, net.kv_heads * net.head_dim

    def linear(x: str, name: str, n: int, k: int, y: str) -> onnx.NodeProto:
        return helper.make_node(
            "MatMulNBits", [x, f"{name}.q", f"{name}.scale", f"{name}.zero"], [y], y, domain=_MICROSOFT,
            N=n, K=k, bits=8, block_size=BLOCK, accuracy_level=_INT8_ACTIVATIONS,
        )  # fmt: skip

    def added(x: str, rest: str, norm: str, y: str, total: str) -> onnx.NodeProto:
        """The sum, and the sum normalised."""
        return helper.make_node(
            "SkipSimplifiedLayerNormalization", [x, rest, norm], [y, "", "", total], y, domain=_MICROSOFT,
            epsilon=net.epsilon,
        )  # fmt: skip

    # A weight of a tied head serves both: rows of it are looked up, then made numbers as MatMulNBits does.
    for part in ("q", "scale", "zero"):
        yield helper.make_node("Gather", [f"embedding.{part}", "input_ids"], [f"embedded.{part}"])
    yield helper.make_node("Cast", ["embedded.q"], ["embedded.levels"], to=TensorProto.FLOAT)
    yield helper.make_node("Cast", ["embedded.zero"], ["embedded.zeros"], to=TensorProto.FLOAT)
    for part in ("scale", "zeros"):
        yield helper.make_node("Unsqueeze", [f"embedded.{part}", "last_axis"], [f"embedded.{part}.each"])
    yield helper.make_node("Sub", ["embedded.levels", "embedded.zeros.each"], ["embedded.steps"])
    yield helper.make_node("Mul", ["embedded.steps", "embedded.scale.each"], ["embedded.values"])
    yield helper.make_node("Reshape", ["embedded.values", "embedded.shape"], ["rest.0"])
    yield helper.make_node(
        "SimplifiedLayerNormalization", ["rest.0", "layer.0.attention_norm"], ["layer.0.in"], epsilon=net.epsilon
    )
    for i in range(net.layers):
        at = f"layer.{i}"
        yield linear(f"{at}.in", f"{at}.qkv", queries + 2 * keys, net.hidden, f"{at}.packed")
        yield helper.make_node(
            "GroupQueryAttention",
            [
                f"{at}.packed", "", "", f"past_key_values.{i}.key", f"past_key_values.{i}.value", "seqlens_k",
                "total_sequence_length", "cos", "sin",
            ],
            [f"{at}.heads", f"present.{i}.key", f"present.{i}.value"],
            f"{at}.attention", domain=_MICROSOFT, num_heads=net.heads, kv_num_heads=net.kv_heads,
            scale=net.head_dim**-0.5, do_rotary=1, rotary_interleaved=0,
        )  # fmt: skip
        yield linear(f"{at}.heads", f"{at}.output", net.hidden, queries, f"{at}.attended")
        yield added(f"{at}.attended", f"rest.{2 * i}", f"{at}.feed_norm", f"{at}.middle", f"rest.{2 * i + 1}")
        yield linear(f"{at}.middle", f"{at}.gate_up", 2 * net.feed_forward, net.hidden, f"{at}.both")
        yield helper.make_node("Split", [f"{at}.both"], [f"{at}.gate", f"{at}.up"], axis=-1, num_outputs=2)
        yield helper.make_node("QuickGelu", [f"{at}.gate"], [f"{at}.open"], domain=_MICROSOFT, alpha=1.0)
        yield helper.make_node("Mul", [f"{at}.open", f"{at}.up"], [f"{at}.gated"])
        yield linear(f"{at}.gated", f"{at}.down", net.hidden, net.feed_forward, f"{at}.fed")
        norm = f"layer.{i + 1}.attention_norm" if i + 1 < net.layers else "output_norm"
        yield added(f"{at}.fed", f"rest.{2 * i + 1}", norm, f"layer.{i + 1}.in", f"rest.{2 * i + 2}")
    yield helper.make_node("Gather", [f"layer.{net.layers}.in", "last"], ["final"], axis=1)
    yield linear("final", "embedding" if net.tied else "head", net.vocabulary, net.hidden, "logits")


def _weights(file: Gguf, net: Llama) -> Iterator[TensorProto]:
    angles = np.arange(net.context)[:, None] * net.inverse_frequencies
    yield _tensor("cos", np.cos(angles).astype(np.float32))
    yield _tensor("sin", np.sin(angles).astype(np.float32))
    yield _tensor("last_axis", np.array([-1]))
    yield _tensor("last", np.array(-1))
    yield _tensor("embedded.shape", np.array([0, 0, net.hidden]))
    yield from _linear("embedding", blocks(file.tensors["token_embd.weight"]))
    if not net.tied:
        yield from _linear("head", blocks(file.tensors["output.weight"]))
    yield _norm("output_norm", file, "output_norm.weight")
    for i in range(net.layers):
        b, at = f"blk.{i}.", f"layer.{i}"

        def part(name: str, b: str = b) -> Blocks:
            return blocks(file.tensors[f"{b}{name}.weight"])

        yield _norm(f"{at}.attention_norm", file, f"{b}attn_norm.weight")
        yield _norm(f"{at}.feed_norm", file, f"{b}ffn_norm.weight")
        queries = part("attn_q").rows(_straight(net.heads, net.head_dim))
        keys = part("attn_k").rows(_straight(net.kv_heads, net.head_dim))
        yield from _linear(f"{at}.qkv", Blocks.joined([queries, keys, part("attn_v")]))
        yield from _linear(f"{at}.output", part("attn_output"))
        yield from _linear(f"{at}.gate_up", Blocks.joined([part("ffn_gate"), part("ffn_up")]))
        yield from _linear(f"{at}.down", part("ffn_down"))


def _straight(heads: int, head_dim: int) -> Array:
    """Order of rows in which the rotated pairs of a head are its two halves: GGUF has them side by side."""
    return np.arange(heads * head_dim).reshape(heads, head_dim // 2, 2).swapaxes(1, 2).reshape(-1)


def _linear(name: str, weights: Blocks) -> Iterator[TensorProto]:
    yield _tensor(f"{name}.q", weights.q)
    yield _tensor(f"{name}.scale", weights.scale)
    yield _tensor(f"{name}.zero", weights.zero)


def _norm(name: str, file: Gguf, tensor: str) -> TensorProto:
    return _tensor(name, file.tensors[tensor].values().reshape(-1))


def _tensor(name: str, values: Array) -> TensorProto:
    return numpy_helper.from_array(np.asarray(values), name)
