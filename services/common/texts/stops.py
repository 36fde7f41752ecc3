"""Text of tokens as it becomes certain: no part of a character, and no part of what may still become a stop string."""

from collections.abc import Sequence

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

_CONTEXT = 8  # tokens of the prompt that decide how the first one of the answer is written


class Words:
    """An answer's tokens as text. Special ones are none."""

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)
        for token in prompt[-_CONTEXT:]:
            self.add(token)

    def add(self, token: int) -> str:
        """What is new; nothing while a character is not whole."""
        try:
            return self._stream.step(self._tokenizer, token) or ""
        except Exception:  # tokens before it that are no text: the library tells them by an exception without a class
            self._stream = DecodeStream(skip_special_tokens=True)
            return self._stream.step(self._tokenizer, token) or ""


class Stops:
    """Text that ends before the first of some strings: of two that overlap, the one that is whole first, and of two
    whole at once the longer one."""

    def __init__(self, strings: Sequence[str]) -> None:
        self._strings = [s for s in strings if s]
        self._longest = max(map(len, self._strings), default=0)
        self._held = ""

    def feed(self, text: str) -> tuple[str, bool]:
        """What can be told now, and whether a stop string was met."""
        if not self._strings:
            return text, False
        held = self._held + text
        ends = [(at + len(s), at) for s in self._strings if (at := held.find(s)) >= 0]
        if ends:
            self._held = ""
            return held[: min(ends)[1]], True
        cut = len(held) - self._part(held)
        self._held = held[cut:]
        return held[:cut], False

    def rest(self) -> str:
        """What was held back for a stop string that does not come any more."""
        rest, self._held = self._held, ""
        return rest

    def _part(self, text: str) -> int:
        """The length of the longest end of a text that a stop string begins with."""
        for size in range(min(self._longest - 1, len(text)), 0, -1):
            end = text[-size:]
            if any(s.startswith(end) for s in self._strings):
                return size
        return 0
