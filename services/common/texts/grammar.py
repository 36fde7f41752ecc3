"""Answers that must have a form: which tokens may come next, by `llguidance`."""

import json
import threading
from collections.abc import Sequence

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from numpy.typing import NDArray

from services.common.texts import BadFormat, Options

# Unbounded, it is what a small model likes best.
_WHITESPACE = r"[\x20\x0A\x0D\x09]{0,12}"


class Grammars:
    """One tokenizer's. Safe in several threads."""

    def __init__(self, tokenizer: str, vocabulary: int, stop_tokens: Sequence[int]) -> None:
        """`tokenizer`: tokenizer.json."""
        self._facts = tokenizer, vocabulary, list(stop_tokens)
        self._made: LLTokenizer | None = None  # takes a second
        self._making = threading.Lock()

    @property
    def tokens(self) -> LLTokenizer:
        with self._making:
            if self._made is None:
                tokenizer, vocabulary, stop_tokens = self._facts
                self._made = LLTokenizer(tokenizer, n_vocab=vocabulary, eos_token=stop_tokens or None)
            return self._made

    def text(self, token: int) -> bytes:
        """A token's bytes."""
        return self.tokens.decode_bytes([token])

    def matcher(self, options: Options) -> LLMatcher | None:
        """None where any text will do. Raises BadFormat."""
        if options.json_object:
            grammar = _json('{"type": "object"}')
        elif options.json_schema:
            grammar = _json(options.json_schema)
        elif options.regex:
            grammar = LLMatcher.grammar_from_regex(options.regex)
        else:
            return None
        matcher = LLMatcher(self.tokens, grammar, log_level=0)
        if not matcher.is_error():
            matcher.compute_bitmask()  # the first may take long, and the loop must not wait for it
        if matcher.is_error():
            raise BadFormat(_sentence(matcher))
        return matcher


def _json(schema: str) -> str:
    try:
        parsed = json.loads(schema)
        if not isinstance(parsed, dict):
            raise ValueError("it is no object")
        return LLMatcher.grammar_from_json_schema(parsed, overrides={"whitespace_pattern": _WHITESPACE})
    except (ValueError, RecursionError) as e:
        raise BadFormat(f"this is no JSON Schema: {str(e)[:200]}") from e


def allowed(matcher: LLMatcher, vocabulary: int) -> NDArray[np.bool_]:
    """[vocabulary]: the tokens that may come next. Raises BadFormat where the grammar turned out too large."""
    bits = np.frombuffer(matcher.compute_bitmask(), np.uint8)
    if matcher.is_error():
        raise BadFormat(_sentence(matcher))
    return np.unpackbits(bits, count=vocabulary, bitorder="little").view(np.bool_)


def advance(matcher: LLMatcher, token: int) -> bool:
    """Takes a token; answers whether nothing may follow. Raises BadFormat."""
    if not matcher.consume_token(token):
        raise BadFormat(_sentence(matcher))
    return bool(matcher.is_stopped())


def _sentence(matcher: LLMatcher) -> str:
    return f"the answer cannot be held to this form: {matcher.get_error().strip().splitlines()[0][:200]}"
