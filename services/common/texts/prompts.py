"""Prompts as tokens: the model's chat template, and its tokenizer. Both are its publisher's and not trusted."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from jinja2 import TemplateError
from tokenizers import Tokenizer

from services.common.chat_template import environment
from services.common.errors import EngineFailed
from services.common.text_model import TextConfig
from services.common.texts import BadPrompt, NoChatTemplate, Prompt, PromptTooLong

_LONGEST = 16 << 20  # characters that it may write


class Prompts:
    """One model's. The template has what Hugging Face's `apply_chat_template` gives it.

    https://huggingface.co/docs/transformers/chat_templating
    """

    def __init__(self, config: TextConfig, tokenizer: Tokenizer, patience: float = 2.0) -> None:
        """`patience`: seconds that the template may take. Raises EngineFailed when it is none."""
        self._patience = patience
        self._config, self._tokenizer = config, tokenizer
        self._bos = tokenizer.token_to_id(config.bos_token) if config.add_bos and config.bos_token else None
        # No token stands for more characters than the longest one has letters.
        self._widest = max(map(len, tokenizer.get_vocab()), default=1)
        sandbox = environment()
        sandbox.globals["raise_exception"] = _raise_exception
        try:
            with _bounded(self._patience):
                self._template = sandbox.from_string(config.chat_template) if config.chat_template else None
        except Exception as e:
            raise EngineFailed(f"the chat template is not valid: {str(e)[:200]}") from e

    def tokens(self, prompt: Prompt, most: int | None = None) -> list[int]:
        """At least one. With `most`, a text that certainly is more tokens is not read. Raises NoChatTemplate,
        BadPrompt, PromptTooLong."""
        return self._read(prompt, most)[1]

    def written(self, prompt: Prompt, most: int) -> tuple[str, list[int]]:
        """A prompt's tokens, and a text that becomes them. Raises as `tokens`, and BadPrompt where there is none."""
        text, ids = self._read(prompt, most)
        if prompt.text is not None:
            return text, ids
        if prompt.tokens is not None:
            text = self._tokenizer.decode(ids, skip_special_tokens=False)
        # What begins every text is put before it again.
        for one in (text, text.removeprefix(self._config.bos_token)):
            if one and self._read(Prompt(text=one), None)[1] == ids:
                return one, ids
        raise BadPrompt("this model's engine takes text, and no text becomes just the tokens of this prompt")

    def _read(self, prompt: Prompt, most: int | None) -> tuple[str, list[int]]:
        text = ""
        if prompt.tokens is not None:
            ids = [int(t) for t in prompt.tokens]
            for t in ids:
                if not 0 <= t < self._config.vocabulary:
                    raise BadPrompt(f"token {t} is not in the vocabulary of {self._config.vocabulary}")
        else:
            text = self._rendered(prompt) if prompt.messages is not None else prompt.text or ""
            if most is not None and len(text) > most * self._widest:
                raise PromptTooLong(f"a prompt of {len(text)} characters does not fit a context of {most} tokens")
            ids = self._tokenizer.encode(text, add_special_tokens=prompt.messages is None).ids
            if prompt.messages is None and self._bos is not None and ids[:1] != [self._bos]:
                ids = [self._bos, *ids]
        if not ids:
            raise BadPrompt("the prompt holds no token")
        return text, ids

    def _rendered(self, prompt: Prompt) -> str:
        if self._template is None:
            raise NoChatTemplate("this model has no chat template")
        c = self._config
        parts: list[str] = []
        size = 0
        try:
            with _bounded(self._patience):
                for part in self._template.generate(
                    messages=prompt.messages, tools=list(prompt.tools) or None, documents=None,
                    add_generation_prompt=True, bos_token=c.bos_token, eos_token=c.eos_token,
                ):  # fmt: skip
                    parts.append(part)
                    size += len(part)
                    if size > _LONGEST:
                        raise BadPrompt("the chat template makes too long a text of this conversation")
        except BadPrompt:
            raise
        except Exception as e:  # whatever a template does wrong
            raise BadPrompt(f"the chat template does not take this conversation: {str(e)[:200]}") from e
        return "".join(parts)


class _TooSlow(TemplateError):
    pass


@contextmanager
def _bounded(patience: float) -> Iterator[None]:
    """Ends a template that does not end in so many seconds. Its loops are lines of Python, at each of which the clock
    is looked at; what does not come to the next line is ended with its process."""
    end = time.monotonic() + patience

    def look(frame: FrameType, event: str, argument: object) -> Callable[..., Any] | None:
        if time.monotonic() > end:
            raise _TooSlow("it takes too long")
        return look if frame.f_code.co_filename.startswith("<") else None

    before = sys.gettrace()
    sys.settrace(look)
    try:
        yield
    finally:
        sys.settrace(before)


def _raise_exception(message: object) -> None:
    raise BadPrompt(f"the chat template refuses this conversation: {str(message)[:400]}")
