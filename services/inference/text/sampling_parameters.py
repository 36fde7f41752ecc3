"""`sampling_parameters` of Triton's vLLM backend: vLLM's `SamplingParams` as JSON.
https://docs.vllm.ai/en/latest/api/vllm/sampling_params.html

The backend parses `structured_outputs` a second time: it is JSON inside a string. Of `logit_bias` JSON can only have
names; vLLM itself wants numbers there and refuses them."""

import json
import math
from collections.abc import Mapping
from typing import Any

from services.common.errors import InvalidFields, Violation
from services.common.texts import Options

_NUMBERS: Mapping[str, type] = {
    "max_tokens": int, "temperature": float, "top_k": int, "top_p": float, "min_p": float,
    "repetition_penalty": float, "presence_penalty": float, "frequency_penalty": float, "seed": int,
}  # fmt: skip
_FORMS = {"json": "json_schema", "regex": "regex", "json_object": "json_object"}


def write(options: Options, max_tokens: int, index: int) -> str:
    """Of answer `index` of a call. What is None is left to the backend."""
    made: dict[str, Any] = {name: getattr(options, name) for name in _NUMBERS}
    made["max_tokens"] = max_tokens
    if options.seed is not None:
        made["seed"] = options.seed + index
    made = {name: value for name, value in made.items() if value is not None}
    if options.stop:
        made["stop"] = list(options.stop)
    if options.logit_bias:
        made["logit_bias"] = {str(token): bias for token, bias in options.logit_bias.items()}
    forms = {theirs: value for theirs, ours in _FORMS.items() if (value := getattr(options, ours))}
    if forms:
        made["structured_outputs"] = json.dumps(forms)
    return json.dumps(made)


def read(text: str) -> Options:
    """Raises InvalidFields for what is no such JSON, or holds something else."""
    given = _object(text, "sampling_parameters")
    made: dict[str, Any] = {}
    if (n := given.pop("n", 1)) != 1:
        raise _invalid("n", f"a request has one answer, not {n}")
    for name, kind in _NUMBERS.items():
        if (value := given.pop(name, None)) is not None:
            whole = isinstance(value, int) and not isinstance(value, bool)
            if not whole and not (kind is float and isinstance(value, float) and math.isfinite(value)):
                raise _invalid(name, "it must be a whole number" if kind is int else "it must be a number")
            made[name] = kind(value)
    if (stop := given.pop("stop", None)) is not None:
        stop = [stop] if isinstance(stop, str) else stop
        if not isinstance(stop, list) or not all(isinstance(one, str) for one in stop):
            raise _invalid("stop", "it must be strings")
        made["stop"] = tuple(stop)
    if (bias := given.pop("logit_bias", None)) is not None:
        try:
            made["logit_bias"] = {int(token): float(value) for token, value in bias.items()}
        except (AttributeError, TypeError, ValueError) as e:
            raise _invalid("logit_bias", "it must be numbers by the ids of tokens") from e
    if (form := given.pop("structured_outputs", None)) is not None:
        made |= _form(form)
    if given:
        raise _invalid(sorted(given)[0], "it is not known here")
    return Options(**made)


def _form(given: Any) -> dict[str, Any]:
    name = "structured_outputs"
    form = given if isinstance(given, dict) else _object(given, name)
    (theirs, value), *more = form.items() or [("", None)]
    if more or theirs not in _FORMS:
        raise _invalid(name, f"it must hold one of {', '.join(_FORMS)}")
    if theirs == "json" and isinstance(value, dict):
        value = json.dumps(value)
    if not isinstance(value, bool if theirs == "json_object" else str):
        raise _invalid(name, f"{theirs} cannot be {value!r}")
    return {_FORMS[theirs]: value}


def _object(text: Any, name: str) -> dict[str, Any]:
    try:
        given = json.loads(text)
    except (TypeError, ValueError, RecursionError) as e:
        raise _invalid(name, "it must be JSON") from e
    if not isinstance(given, dict):
        raise _invalid(name, "it must be a JSON object")
    return given


def _invalid(name: str, what: str) -> InvalidFields:
    return InvalidFields(violations=[Violation(name, what)])
