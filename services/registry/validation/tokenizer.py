"""The tokenizer of a GGUF file as a tokenizer.json of the `tokenizers` library, and what else it says of its texts."""

from typing import Any

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

from services.common.text_model import DECODER, TextConfig
from services.registry.validation.gguf_file import Gguf
from services.registry.validation.llama import Llama
from services.registry.validation.report import Refused
from services.registry.validation.text_model import DEFAULTS

_KEYS = "tokenizer.ggml."
_CONTROL, _USER_DEFINED = 3, 4  # llama.cpp's token types that are found in a text as a whole
_DIGITS = pre_tokenizers.Digits(individual_digits=True)
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# By llama.cpp's names: what cuts a text into words before they become bytes, and whether a word that is a token needs
# no merges.
_PRE_TOKENIZERS: dict[str, tuple[list[Any], bool]] = {
    "gpt-2": ([pre_tokenizers.ByteLevel(add_prefix_space=False)], False),
    "smollm": ([_DIGITS, pre_tokenizers.ByteLevel(add_prefix_space=False)], False),
    "llama-bpe": (
        [
            pre_tokenizers.Split(Regex(_LLAMA3), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ],
        True,
    ),
}
# Tokens that end an answer, whatever else the file says.
_ENDS = {"<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<|eom_id|>", "<|end|>", "</s>", "<EOT>"}
# What the file recommends, by the fields of `mercat.inference.v1.Sampling`.
_DEFAULTS = {
    "temperature": "general.sampling.temp", "top_k": "general.sampling.top_k", "top_p": "general.sampling.top_p",
    "min_p": "general.sampling.min_p", "repetition_penalty": "general.sampling.penalty_repeat",
}  # fmt: skip


def tokenizer(file: Gguf, net: Llama) -> Tokenizer:
    """Raises Refused for what is not byte-level BPE of a known kind, or does not fit the network."""
    model = file.get(f"{_KEYS}model", str)
    if model != "gpt2":
        raise Refused("TOKENIZER_UNKNOWN", f"the tokenizer is {model!r}; known is 'gpt2' (byte-level BPE)")
    pre = file.get(f"{_KEYS}pre", str)
    if pre not in _PRE_TOKENIZERS:
        text = f"words are cut as {pre!r} does; known are {', '.join(_PRE_TOKENIZERS)}"
        raise Refused("PRE_TOKENIZER_UNKNOWN", text, f"{_KEYS}pre")
    if file.get(f"{_KEYS}add_space_prefix", bool, False):
        raise Refused("TOKENIZER_UNKNOWN", "texts are begun with a space", f"{_KEYS}add_space_prefix")
    tokens, kinds = _tokens(file, net)
    vocabulary = {token: i for i, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise Refused("TOKENIZER_INVALID", "a token occurs twice", f"{_KEYS}tokens")
    merges = [(left, right) for left, _, right in (m.partition(" ") for m in _texts(file, "merges"))]
    cutters, ignore_merges = _PRE_TOKENIZERS[pre]
    try:
        made = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=ignore_merges))
    except Exception as e:  # the library raises plain ones
        raise Refused("TOKENIZER_INVALID", str(e)[:300], f"{_KEYS}merges") from None
    made.pre_tokenizer = pre_tokenizers.Sequence(cutters)
    made.decoder = decoders.ByteLevel()
    made.post_processor = processors.ByteLevel(trim_offsets=False)
    made.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in kinds[_CONTROL]])
    made.add_tokens([AddedToken(t, normalized=False) for t in kinds[_USER_DEFINED]])
    return made


def config(file: Gguf, net: Llama) -> TextConfig:
    """What a decoder's file carries beside its tokenizer. Raises Refused for ids of no token and odd settings."""
    tokens, kinds = _tokens(file, net)
    ids = {name: _token(file, name, tokens) for name in ("bos", "eos", "eot", "eom")}
    stops = {ids[name] for name in ("eos", "eot", "eom")} | {tokens.index(t) for t in kinds[_CONTROL] if t in _ENDS}
    add_bos = file.get(f"{_KEYS}add_bos_token", bool, file.get(f"{_KEYS}pre", str) == "llama-bpe")
    if add_bos and ids["bos"] < 0:
        raise Refused("TOKENIZER_INVALID", "texts begin with a token that is not named", f"{_KEYS}bos_token_id")
    return TextConfig(
        kind=DECODER, context=net.context, vocabulary=net.vocabulary,
        architecture=file.get("general.architecture", str),
        layers=net.layers, kv_heads=net.kv_heads, head_dim=net.head_dim, stop_tokens=tuple(sorted(stops - {-1})),
        bos_token=tokens[ids["bos"]] if ids["bos"] >= 0 else "",
        eos_token=tokens[ids["eos"]] if ids["eos"] >= 0 else "", add_bos=add_bos,
        chat_template=file.get("tokenizer.chat_template", str, ""), defaults=_defaults(file),
    )  # fmt: skip


def _tokens(file: Gguf, net: Llama) -> tuple[list[str], dict[int, list[str]]]:
    """All tokens, and those of each type that is not ordinary."""
    tokens = _texts(file, "tokens")
    if len(tokens) != net.vocabulary:
        text = f"{len(tokens):,} tokens for a vocabulary of {net.vocabulary:,}"
        raise Refused("TOKENIZER_INVALID", text, f"{_KEYS}tokens")
    types = file.metadata.get(f"{_KEYS}token_type")
    if not isinstance(types, np.ndarray) or types.shape != (len(tokens),):
        raise Refused("TOKENIZER_INVALID", "there is not one type a token", f"{_KEYS}token_type")
    return tokens, {kind: [t for t, k in zip(tokens, types, strict=True) if k == kind] for kind in (3, 4)}


def _texts(file: Gguf, name: str) -> list[str]:
    values: list[Any] = file.get(_KEYS + name, list)
    if not all(isinstance(v, str) for v in values):
        raise Refused("METADATA_INVALID", "these are not texts", _KEYS + name)
    return values


def _token(file: Gguf, name: str, tokens: list[str]) -> int:
    """Its id; -1 where the file names none."""
    key = f"{_KEYS}{name}_token_id"
    value = int(file.get(key, int, -1))
    if not -1 <= value < len(tokens):
        raise Refused("TOKENIZER_INVALID", f"there is no token {value:,}", key)
    return value


def _defaults(file: Gguf) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, key in _DEFAULTS.items():
        if key in file.metadata:
            kind, least, most = DEFAULTS[name]
            found[name] = file.get(key, kind)
            if not least <= found[name] <= most:
                raise Refused("METADATA_INVALID", f"it is {found[name]}; from {least} to {most}", key)
    return found
