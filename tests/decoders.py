"""Small decoder models for tests, as GGUF files: random weights, a byte-level vocabulary, a chat template."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from services.registry.validation import gguf_model

END, START, STOP = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_MERGES = ["h e", "l l", "l o", "o r", "i n", "a n", "t h", "th e", "Ġ the", "Ġ w", "Ġw or", "he ll", "hell o"]


def vocabulary() -> list[str]:
    """The three special tokens, the 256 bytes as byte-level BPE writes them, and what the merges make."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    written = [chr(b) for b in plain] + [chr(256 + n) for n in range(256 - len(plain))]
    return [END, START, STOP, *written, *(m.replace(" ", "") for m in _MERGES)]


def tiny_gguf(
    seed: int = 0, *, layers: int = 2, hidden: int = 64, heads: int = 4, kv_heads: int = 2, feed_forward: int = 128,
    context: int = 256, weights: str = "Q8_0", tied: bool = True, metadata: Mapping[str, Any] | None = None,
    tensors: Mapping[str, Any] | None = None,
) -> bytes:  # fmt: skip
    """A llama of random weights of a type that the `gguf` package can write. `metadata` and `tensors` are added to the
    file's own, or replace them; None leaves one out."""
    rng = np.random.default_rng(seed)
    tokens = vocabulary()
    said: dict[str, Any] = {
        "llama.block_count": layers, "llama.context_length": context, "llama.embedding_length": hidden,
        "llama.feed_forward_length": feed_forward, "llama.attention.head_count": heads,
        "llama.attention.head_count_kv": kv_heads, "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.freq_base": 10_000.0, "llama.rope.dimension_count": hidden // heads,
        "llama.vocab_size": len(tokens), "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": [3] * 3 + [1] * (len(tokens) - 3),
        "tokenizer.ggml.merges": _MERGES, "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.add_bos_token": False, "tokenizer.chat_template": TEMPLATE,
    } | dict(metadata or {})  # fmt: skip
    queries, keys = hidden, kv_heads * (hidden // heads)
    shapes = {"token_embd": (len(tokens), hidden), "output_norm": (hidden,)}
    if not tied:
        shapes["output"] = (len(tokens), hidden)
    for i in range(layers):
        shapes |= {
            f"blk.{i}.attn_norm": (hidden,), f"blk.{i}.ffn_norm": (hidden,),
            f"blk.{i}.attn_q": (queries, hidden), f"blk.{i}.attn_k": (keys, hidden),
            f"blk.{i}.attn_v": (keys, hidden), f"blk.{i}.attn_output": (hidden, queries),
            f"blk.{i}.ffn_gate": (feed_forward, hidden), f"blk.{i}.ffn_up": (feed_forward, hidden),
            f"blk.{i}.ffn_down": (hidden, feed_forward),
        }  # fmt: skip
    held: dict[str, Any] = {f"{name}.weight": _random(rng, shape) for name, shape in shapes.items()}
    return write(said, held | dict(tensors or {}), gguf.GGMLQuantizationType[weights])


def onnx_of(gguf_file: bytes) -> bytes:
    """What is served of a GGUF file."""
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "model.gguf", Path(folder) / "model.onnx"
        given.write_bytes(gguf_file)
        gguf_model.convert(given, made)
        return made.read_bytes()


def write(metadata: Mapping[str, Any], tensors: Mapping[str, Any], kind: gguf.GGMLQuantizationType) -> bytes:
    """A GGUF file. Matrices are written as `kind`, vectors as float32; numbers as uint32 or float32."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        writer = gguf.GGUFWriter(path, str(metadata.get("general.architecture", "llama")))
        for key, value in metadata.items():
            if value is None or key == "general.architecture":
                continue
            add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
            add.get(type(value), writer.add_array)(key, value)
        for name, values in tensors.items():
            if values is None:
                continue
            if values.ndim == 1:
                writer.add_tensor(name, values)
            else:
                writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path.read_bytes()


def _random(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    if len(shape) == 1:
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    return (rng.standard_normal(shape) * 1.5 / np.sqrt(shape[1])).astype(np.float32)
