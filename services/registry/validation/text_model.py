"""Examines what makes an ONNX model a text model: its entries, its tokenizer, and a run on a text."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, get_origin

import numpy as np
from jinja2 import meta
from tokenizers import Tokenizer

from services.common.chat_template import environment
from services.common.text_model import DECODER, ENCODER, TEXT_KEY, TOKENIZER_KEY, TextConfig
from services.registry.validation import engine
from services.registry.validation.decoder_run import Array, Decoding, divergence
from services.registry.validation.report import Refused, Report, Tensor, Text

SAMPLE = (
    "The quick brown fox jumps over the lazy dog. In 1905 Albert Einstein published four papers;  they changed "
    "physics: E = mc^2.\n\ndef double(x):\n    return 2 * x\n\nParis is the capital of France, and Rome is the capital "
    "of"
)
SAMPLE_TOKENS = 64
MOST_DIVERGENCE, LEAST_AGREEMENT = 0.05, 0.8  # nats, and the share of positions
# What a file may recommend, by the fields of `mercat.inference.v1.Sampling`: type, least and most.
DEFAULTS: dict[str, tuple[type, float, float]] = {
    "max_tokens": (int, 1, 1 << 20), "temperature": (float, 0, 2), "top_k": (int, 0, 1 << 20), "top_p": (float, 0, 1),
    "min_p": (float, 0, 1), "repetition_penalty": (float, 0.01, 10), "presence_penalty": (float, -2, 2),
    "frequency_penalty": (float, -2, 2),
}  # fmt: skip
_MOST_TOKENS, _LARGEST_TOKENIZER = 1 << 20, 32 << 20  # of a context or vocabulary; bytes
_LONGEST_TEMPLATE = 200_000  # characters
_LONGEST_RUN = 2048  # tokens for which an encoder is tried
_SAID = [{"role": role, "content": "Hello."} for role in ("user", "assistant", "user")]


@dataclass(frozen=True)
class Texts:
    """The configuration and tokenizer of a text model, and what they say for the report."""

    config: TextConfig
    tokenizer: Tokenizer
    facts: Text

    def sample(self, most: int = SAMPLE_TOKENS) -> list[int]:
        """A text as tokens, as many as the context holds. Raises Refused."""
        config = self.config
        ids = list(self.tokenizer.encode(SAMPLE, add_special_tokens=config.kind == ENCODER).ids)
        if config.add_bos:
            ids.insert(0, self.tokenizer.token_to_id(config.bos_token) or 0)
        ids = ids[: min(most, config.context)]
        if len(ids) < 2:
            raise Refused("TOKENIZER_INVALID", "a text of several sentences is less than two tokens", TOKENIZER_KEY)
        return ids


def read(entries: Mapping[str, str]) -> Texts:
    """Raises Refused for entries that are missing, malformed, or do not fit each other."""
    for key in (TEXT_KEY, TOKENIZER_KEY):
        if key not in entries:
            raise Refused("TEXT_CONFIG_INVALID", "a text model has this entry, too", key)
    try:
        config = TextConfig.from_json(entries[TEXT_KEY])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as e:
        raise Refused("TEXT_CONFIG_INVALID", f"no configuration of a text model: {e}", TEXT_KEY) from None
    if len(entries[TOKENIZER_KEY]) > _LARGEST_TOKENIZER:
        raise Refused("TOKENIZER_INVALID", f"at most {_LARGEST_TOKENIZER >> 20} MiB", TOKENIZER_KEY)
    try:
        tokenizer = Tokenizer.from_str(entries[TOKENIZER_KEY])
    except Exception as e:  # the library raises plain ones
        raise Refused("TOKENIZER_INVALID", f"no tokenizer.json: {e}", TOKENIZER_KEY) from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return texts(config, tokenizer)


def texts(config: TextConfig, tokenizer: Tokenizer) -> Texts:
    """Raises Refused when they are out of range or do not fit each other, or the chat template is none."""
    if problem := _problem(config):
        raise Refused("TEXT_CONFIG_INVALID", problem, TEXT_KEY)
    if (largest := max(tokenizer.get_vocab().values(), default=0)) >= config.vocabulary:
        text = f"it has a token {largest:,}; the model knows {config.vocabulary:,}"
        raise Refused("TOKENIZER_INVALID", text, TOKENIZER_KEY)
    if config.add_bos and tokenizer.token_to_id(config.bos_token) is None:
        raise Refused("TOKENIZER_INVALID", f"there is no token {config.bos_token!r}", TOKENIZER_KEY)
    facts = Text(config.kind, config.context, config.vocabulary, architecture=config.architecture)
    if config.chat_template:
        facts = replace(facts, chat=True, tools=_takes_tools(config))
    return Texts(config, tokenizer, facts)


def _takes_tools(config: TextConfig) -> bool:
    """Whether the chat template does. Raises Refused when it is none, or refuses a plain conversation."""
    sandbox = environment()
    try:
        names = meta.find_undeclared_variables(sandbox.parse(config.chat_template))
        sandbox.from_string(config.chat_template).render(
            messages=_SAID, tools=None, documents=None, add_generation_prompt=True, bos_token=config.bos_token,
            eos_token=config.eos_token,
        )  # fmt: skip
    except MemoryError:
        raise Refused("CHAT_TEMPLATE_INVALID", "it takes more memory than validation has", "chat_template") from None
    except Exception as e:  # whatever a template does wrong
        raise Refused("CHAT_TEMPLATE_INVALID", str(e), "chat_template") from None
    return "tools" in names


def _problem(config: TextConfig) -> str:
    for field in fields(config):
        wanted = get_origin(field.type) or field.type
        if type(getattr(config, field.name)) is not wanted:
            return f"{field.name} is not of its type"
    if max(config.context, config.vocabulary) > _MOST_TOKENS:
        return f"context and vocabulary are at most {_MOST_TOKENS:,}"
    if len(config.chat_template) > _LONGEST_TEMPLATE:
        return f"a chat template has at most {_LONGEST_TEMPLATE:,} characters"
    if len(config.architecture) > 64 or not all(0 <= t < config.vocabulary for t in config.stop_tokens):
        return "architecture is too long, or a stop token is not of the vocabulary"
    for name, value in config.defaults.items():
        kind, least, most = DEFAULTS.get(name, (str, 0, 0))
        if kind is str or type(value) not in (int, kind) or not least <= value <= most:
            return f"defaults: {name} is not known or out of range"
    if config.kind == DECODER and not (0 < config.layers <= 1000 and config.kv_heads > 0 and config.head_dim > 0):
        return "a decoder needs layers, kv_heads and head_dim"
    return ""


def encoder(session: Any, texts: Texts, report: Report) -> Report:
    """Of an ONNX model that has run on zeros. Raises Refused when it takes or gives something else than vectors of
    texts."""
    inputs = {t.name: t for t in report.inputs}
    for name in ("input_ids", "attention_mask"):
        if name not in inputs:
            raise Refused("ENCODER_DIFFERS", "an encoder takes this", name)
    for name, t in inputs.items():
        known = name in ("input_ids", "attention_mask", "token_type_ids")
        if not known or (t.datatype, t.shape) != ("INT64", (-1, -1)):
            raise Refused("ENCODER_DIFFERS", "an encoder takes INT64 [any, any] of known names only", name)
    # The output that Embed takes: vectors of all tokens where there are any, else of the texts.
    output = next((t.name for axes in (3, 2) for t in report.outputs if len(t.shape) == axes), None)
    if output is None:
        raise Refused("ENCODER_DIFFERS", "an encoder gives vectors: no output has two or three axes")
    ids = texts.sample()
    longest = (ids * -(-_LONGEST_RUN // len(ids)))[: min(texts.config.context, _LONGEST_RUN)]
    for tokens in (ids, longest):
        row = np.array([tokens], np.int64)
        given = {"input_ids": row, "attention_mask": np.ones_like(row), "token_type_ids": np.zeros_like(row)}
        before = time.perf_counter()
        try:
            (answer,) = session.run([output], {name: given[name] for name in inputs})
        except Exception as e:
            engine.no_memory(e)
            text = f"a run on {len(tokens)} tokens failed: {engine.first_line(e, Path())}"
            raise Refused("SAMPLE_RUN_FAILED", text) from None
        taken = int((time.perf_counter() - before) * 1e6)
        of_one_text = answer.shape[:-1] == ((1, len(tokens)) if answer.ndim == 3 else (1,))
        if not of_one_text or answer.dtype != np.float32 or not np.isfinite(answer).all():
            text = "an encoder gives FP32 [texts, tokens, any] or [texts, any], and numbers only"
            raise Refused("ENCODER_DIFFERS", text, output)
        if tokens is ids:
            report = replace(report, run_us=taken)
    return replace(report, text=texts.facts, memory_bytes=engine.peak_memory())


def decoder(path: Path, texts: Texts, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> Report:
    """Of an ONNX model that says that it is a decoder. Raises Refused when it takes or gives something else than one,
    or its answers depend on how a text is cut."""
    config = texts.config
    cache = ("FP32", (-1, config.kv_heads, -1, config.head_dim))
    parts = [f"{layer}.{which}" for layer in range(config.layers) for which in ("key", "value")]
    takes = {"input_ids": ("INT64", (-1, -1)), "seqlens_k": ("INT32", (-1,)), "total_sequence_length": ("INT32", ())}
    gives = {"logits": ("FP32", (-1, config.vocabulary))}
    for said, wanted in (
        (inputs, takes | {f"past_key_values.{part}": cache for part in parts}),
        (outputs, gives | {f"present.{part}": cache for part in parts}),
    ):
        there = {t.name: (t.datatype, t.shape) for t in said}
        for name in [*wanted, *there]:
            if not _agree(there.get(name), wanted.get(name)):
                text = f"a decoder has {_shown(wanted.get(name))} here, not {_shown(there.get(name))}"
                raise Refused("DECODER_DIFFERS", text, name)
    session, load_us = engine.load(path)
    tokens = texts.sample()
    stepped, whole, run_us = compared(session, config, tokens)
    far, _ = divergence(stepped[-1:], whole[None])
    if far > MOST_DIVERGENCE or not np.isfinite(stepped).all():
        text = f"token by token its logits are other ones than at once: their divergence is {far:.3g}"
        raise Refused("DECODER_DIFFERS", text, "logits")
    return Report(load_us=load_us, run_us=run_us, memory_bytes=engine.peak_memory(), text=texts.facts)


def compared(session: Any, config: TextConfig, tokens: list[int]) -> tuple[Array, Array, int]:
    """Logits [tokens, vocabulary] after each token, one run a token; [vocabulary] after all in one run, and what that
    took, microseconds. Raises Refused when a run fails."""
    try:
        steps = Decoding(session, config, len(tokens))
        stepped = np.stack([steps.after([token]) for token in tokens])
        before = time.perf_counter()
        whole = Decoding(session, config, len(tokens)).after(tokens)
        return stepped, whole, int((time.perf_counter() - before) * 1e6)
    except Exception as e:
        engine.no_memory(e)
        raise Refused("SAMPLE_RUN_FAILED", f"a run on a text failed: {engine.first_line(e, Path())}") from None


def _agree(there: Any, wanted: Any) -> bool:
    """A length that a graph leaves open is no other one."""
    if there is None or wanted is None or there[0] != wanted[0] or len(there[1]) != len(wanted[1]):
        return False
    return all(a == b or a == -1 for a, b in zip(there[1], wanted[1], strict=True))


def _shown(spec: Any) -> str:
    return f"{spec[0]} {list(spec[1])}" if spec else "nothing"
