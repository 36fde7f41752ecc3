"""Chat templates: a conversation as the text that a model was trained to go on with. They come from publishers, so they
are rendered where they can neither change nor reach anything, with what Hugging Face's own give them
(https://huggingface.co/docs/transformers/chat_templating)."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from jinja2 import Template, TemplateError, meta
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

LONGEST = 100_000  # characters of a template


class ChatTemplate:
    """A template, compiled. Raises ValueError when it is none."""

    def __init__(self, text: str, bos_token: str = "", eos_token: str = "") -> None:
        if len(text) > LONGEST:
            raise ValueError(f"a chat template has at most {LONGEST:,} characters")
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.filters["tojson"] = _json
        environment.globals |= {"raise_exception": _refuse, "strftime_now": _now}
        try:
            self._template: Template = environment.from_string(text)
            names = meta.find_undeclared_variables(environment.parse(text))
        except (TemplateError, RecursionError, ValueError, OverflowError) as e:
            raise ValueError(f"no chat template: {e}") from None
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        self.takes_tools = "tools" in names

    def render(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()) -> str:
        """The conversation up to where the answer begins. Raises ValueError when the template refuses it."""
        given = {"messages": messages, "tools": tools or None, "add_generation_prompt": True, **self._tokens}
        try:
            return self._template.render(given)
        except Exception as e:  # a template's own, whatever it does
            raise ValueError(f"the chat template refuses these messages: {e}") from None


def _json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **more: Any) -> str:
    """As it is, without the escapes that keep HTML safe."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **more)


def _refuse(message: str) -> None:
    raise TemplateError(message)


def _now(form: str) -> str:
    return datetime.now(UTC).strftime(form)
