"""Between HTTP's JSON, path and query and the messages of the contracts; no network.

The choices are those of Envoy's transcoder as it is configured here: unknown JSON fields are ignored, unknown query
parameters are refused, the path and the body may not contradict each other, answers carry fields in lowerCamelCase and
those without presence also when they are zero.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from gateway_rest.contracts import Binding
from gateway_rest.errors import MALFORMED, Refusal
from services.common.errors import Internal, InvalidArgument, InvalidFields, Violation

# A tensor nests 32 deep at most. Nested lists cost two levels of the 100 that protobuf parsers allow.
MAX_DEPTH = 40

_BASE64 = re.compile(r"[A-Za-z0-9+/_-]*={0,2}")
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[{]|[\]}]', re.DOTALL)


def _too_deep(text: bytes) -> bool:
    if text.count(b"[") + text.count(b"{") <= MAX_DEPTH:
        return False
    depth = 0
    for token in _TOKEN.finditer(text):
        first = token[0][:1]
        if first in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif first in b"]}":
            depth -= 1
    return False


def _bad_json(reason: str) -> Refusal:
    return Refusal(InvalidArgument(f"the body is not what this call takes: {reason}", reason=MALFORMED))


def parse_json(text: bytes, message: Message) -> None:
    """Merges a JSON body into a message. Raises Refusal when it is not JSON, too deep, or of other types."""
    if text.strip():
        _merge(loads(text), message)


def loads(text: bytes) -> Any:
    """The value of a JSON text. Raises Refusal when it is not JSON or too deep."""
    if _too_deep(text):
        raise _bad_json(f"it is nested more than {MAX_DEPTH} deep")
    try:
        return json.loads(text, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise _bad_json("it is not UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise _bad_json(str(error)) from error


def _merge(value: Any, message: Message) -> None:
    if not isinstance(value, dict):
        raise _bad_json("it is not a JSON object")
    try:
        json_format.ParseDict(_known(value, message.DESCRIPTOR), message, max_recursion_depth=2 * MAX_DEPTH)
    except (json_format.ParseError, RecursionError, ValueError, TypeError, AttributeError) as error:
        # Everything json_format lets through for JSON of the wrong kind, such as a list where an object belongs.
        raise _bad_json(str(error)[:500]) from error


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _known(value: Any, kind: Any) -> Any:
    """`value` without the fields that a message of this kind does not have. json_format can ignore those itself, but
    would ignore unknown enum values too, and letters in bytes that are not base64. Raises ValueError for those."""
    if not isinstance(value, dict) or kind.full_name.startswith("google.protobuf."):
        return value
    fields = {name: field for field in kind.fields for name in (field.name, field.json_name)}
    return {name: _known_field(item, fields[name]) for name, item in value.items() if name in fields}


def _known_field(value: Any, field: FieldDescriptor) -> Any:
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        of = kind.fields_by_name["value"]
        return {key: _known_field(item, of) for key, item in value.items()} if isinstance(value, dict) else value
    if kind is not None:
        return [_known(item, kind) for item in value] if isinstance(value, list) else _known(value, kind)
    if field.type == FieldDescriptor.TYPE_BYTES:
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, str) and not _BASE64.fullmatch(item):
                raise ValueError(f"{field.json_name}: not base64")
    return value


def _field(message: Message, name: str) -> FieldDescriptor | None:
    kind: Any = message.DESCRIPTOR
    found: FieldDescriptor | None = kind.fields_by_name.get(name)
    return found or next((field for field in kind.fields if field.json_name == name), None)


def _value(field: FieldDescriptor, text: str) -> Any:
    """A JSON value for the text of a path variable or a query parameter."""
    if field.type == FieldDescriptor.TYPE_BOOL:
        if text.lower() in ("true", "t", "yes", "y", "1"):
            return True
        if text.lower() in ("false", "f", "no", "n", "0"):
            return False
        raise ValueError("true or false expected")
    if field.enum_type is not None and re.fullmatch(r"-?\d+", text):
        return int(text)
    return text


def _set(message: Message, path: str, texts: list[str]) -> None:
    """Sets the field at a dotted path. Raises Refusal naming it when there is none or the text does not fit."""
    *parents, last = path.split(".")
    target = message
    for name in parents:
        field = _field(target, name)
        if field is None or field.message_type is None or field.is_repeated:
            raise _unknown(path)
        target = getattr(target, field.name)
    field = _field(target, last)
    if field is None:
        raise _unknown(path)
    try:
        values = [_value(field, text) for text in texts]
        if field.is_repeated:
            json_format.ParseDict({field.name: values}, target)
        else:
            target.ClearField(field.name)
            json_format.ParseDict({field.name: values[-1]}, target)
    except (json_format.ParseError, ValueError, TypeError, AttributeError) as error:
        problem = Violation(path, f"{texts[-1][:100]!r} is not a value of this parameter")
        raise Refusal(InvalidFields(violations=[problem], reason=MALFORMED)) from error


def _unknown(path: str) -> Refusal:
    problem = Violation(path[:200], "this call has no such parameter")
    return Refusal(InvalidFields(violations=[problem], reason=MALFORMED))


def bind(message: Message, query: str, variables: Mapping[str, str]) -> None:
    """Sets what the query string and the path say. Raises Refusal, also when the path says other than the rest."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=1000)
    except ValueError as error:
        raise Refusal(InvalidArgument("the query string is malformed", reason=MALFORMED)) from error
    grouped: dict[str, list[str]] = {}
    for name, text in pairs:
        grouped.setdefault(name, []).append(text)
    for name, texts in grouped.items():
        _set(message, name, texts)
    for name, text in variables.items():
        before = getattr(message, name, "") if "." not in name else ""
        _set(message, name, [text])
        if before and before != getattr(message, name):
            problem = Violation(name, "the path says otherwise")
            raise Refusal(InvalidFields(violations=[problem], reason=MALFORMED))


def request(binding: Binding, body: bytes, query: str, variables: Mapping[str, str]) -> Message:
    """The request message of a call whose body is JSON or absent. Raises Refusal."""
    message = binding.request()
    if binding.body == "*":
        parse_json(body, message)
    elif binding.body:
        field = message.DESCRIPTOR.fields_by_name[binding.body]
        if field.message_type is not None and not field.is_repeated:
            parse_json(body, getattr(message, binding.body))
        else:
            parse_json(b'{"%s":%s}' % (binding.body.encode(), body or b"null"), message)
    bind(message, query, variables)
    return message


def requests(binding: Binding, body: bytes, query: str) -> list[Message]:
    """The messages of a call that streams its requests: its body is a JSON array of them. Raises Refusal."""
    bind(binding.request(), query, {})  # which knows no parameters of a stream
    values = loads(body) if body.strip() else []
    if not isinstance(values, list):
        raise _bad_json("it is not a JSON array")
    messages: list[Message] = []
    for value in values:
        messages.append(binding.request())
        _merge(value, messages[-1])
    return messages


def _dict(message: Message) -> Any:
    return json_format.MessageToDict(message, always_print_fields_with_no_presence=True)


def reply(binding: Binding, message: Message) -> bytes:
    """The JSON of a reply, or of its field that the binding answers. Raises Refusal for one JSON cannot say."""
    field = binding.reply_field
    try:
        if field is None:
            shown = _dict(message)
        elif field.message_type is not None and not field.is_repeated:
            shown = _dict(getattr(message, field.name)) if message.HasField(field.name) else {}
        else:
            shown = _dict(message)[field.json_name]
        return dumps(shown)
    except (json_format.SerializeToJsonError, ValueError) as error:
        raise Refusal(Internal("the answer has no JSON form; call over gRPC", reason="NO_JSON_FORM")) from error


def dumps(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def line(item: bytes, event: str = "") -> bytes:
    """A line of NDJSON; an error is told by its shape."""
    return item + b"\n"


def sse(item: bytes, event: str = "") -> bytes:
    """A server-sent event; JSON without line breaks needs no splitting."""
    return (f"event: {event}\n".encode() if event else b"") + b"data: " + item + b"\n\n"
