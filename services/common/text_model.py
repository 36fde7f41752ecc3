"""What a text model carries inside its ONNX file, in `metadata_props`: its tokenizer and what it takes to use it.

One file is one version, whoever made it: an import from GGUF, an exporter, or `mercat push --tokenizer`, which
appends the entries (in protobuf, what is appended to a message is merged into it)."""

from dataclasses import asdict, dataclass, field
from json import dumps, loads
from typing import Any

TOKENIZER_KEY = "mercat.tokenizer"  # tokenizer.json of the `tokenizers` library
TEXT_KEY = "mercat.text"  # a TextConfig as JSON
DECODER, ENCODER = "decoder", "encoder"


@dataclass(frozen=True, slots=True)
class TextConfig:
    """A text model's facts.

    A decoder's graph takes `input_ids` int64 [B, S], `seqlens_k` int32 [B] (tokens of each row so far and now, less
    one), `total_sequence_length` int32 scalar (the largest of them, not less one) and, for each layer l,
    `past_key_values.{l}.key|value` float32 [B, kv_heads, capacity, head_dim]; it gives `logits` float32 [B, vocabulary]
    of the last position and `present.{l}.key|value`, which may share the memory of the past.

    An encoder's graph takes `input_ids` and `attention_mask` int64 [B, S], perhaps `token_type_ids`, and gives
    float32 [B, S, H] or [B, H].

    `stop_tokens` end an answer. `defaults` are those of `mercat.inference.v1.Sampling` by its field names.
    """

    kind: str
    context: int
    vocabulary: int
    architecture: str = ""
    layers: int = 0
    kv_heads: int = 0
    head_dim: int = 0
    stop_tokens: tuple[int, ...] = ()
    bos_token: str = ""
    eos_token: str = ""
    add_bos: bool = False
    chat_template: str = ""
    defaults: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        return dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "TextConfig":
        """Raises ValueError, TypeError or KeyError when the text is no configuration."""
        data = loads(text)
        known = {**data, "stop_tokens": tuple(int(t) for t in data.get("stop_tokens", ()))}
        made = cls(**known)
        if made.kind not in (DECODER, ENCODER) or made.context < 1 or made.vocabulary < 1:
            raise ValueError("kind, context and vocabulary must be given")
        return made
