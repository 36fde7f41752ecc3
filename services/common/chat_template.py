"""What chat templates are rendered in: they come from publishers, so they can neither change nor reach anything, and
they find what Hugging Face's `apply_chat_template` gives them
(https://huggingface.co/docs/transformers/chat_templating)."""

import json
from datetime import UTC, datetime
from typing import Any

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment


def environment() -> ImmutableSandboxedEnvironment:
    """Compiles templates; neither compiling nor rendering is bounded in time. A template that refuses a conversation
    raises TemplateError."""
    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    made.filters["tojson"] = _json
    made.globals["raise_exception"] = _refuse
    made.globals["strftime_now"] = _now
    return made


def _json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **more: Any) -> str:
    """As it is, without the escapes that keep HTML safe."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **more)


def _refuse(message: object) -> None:
    raise TemplateError(str(message))


def _now(form: str) -> str:
    return datetime.now(UTC).strftime(form)
