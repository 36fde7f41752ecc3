"""JSON Schemas of the messages, in the proto3 JSON form that REST speaks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from mercat.common.v1 import rule_pb2

from gateway_rest import contracts

Schema = dict[str, Any]

_INT64: Schema = {"type": "string", "format": "int64", "pattern": "^-?[0-9]+$"}
_UINT64: Schema = {"type": "string", "format": "uint64", "pattern": "^[0-9]+$"}
_INT32: Schema = {"type": "integer", "format": "int32"}
_UINT32: Schema = {"type": "integer", "format": "uint32", "minimum": 0}
_BYTES: Schema = {"type": "string", "contentEncoding": "base64"}

_SCALARS: dict[int, Schema] = {
    FieldDescriptor.TYPE_DOUBLE: {"type": "number", "format": "double"},
    FieldDescriptor.TYPE_FLOAT: {"type": "number", "format": "float"},
    FieldDescriptor.TYPE_INT64: _INT64,
    FieldDescriptor.TYPE_SINT64: _INT64,
    FieldDescriptor.TYPE_SFIXED64: _INT64,
    FieldDescriptor.TYPE_UINT64: _UINT64,
    FieldDescriptor.TYPE_FIXED64: _UINT64,
    FieldDescriptor.TYPE_INT32: _INT32,
    FieldDescriptor.TYPE_SINT32: _INT32,
    FieldDescriptor.TYPE_SFIXED32: _INT32,
    FieldDescriptor.TYPE_UINT32: _UINT32,
    FieldDescriptor.TYPE_FIXED32: _UINT32,
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_STRING: {"type": "string"},
    FieldDescriptor.TYPE_BYTES: _BYTES,
}

# Types with a JSON form of their own (protobuf.dev/programming-guides/json).
WELL_KNOWN: dict[str, Schema] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": "^-?[0-9]+(\\.[0-9]{1,9})?s$"},
    "google.protobuf.FieldMask": {"type": "string"},
    "google.protobuf.Struct": {"type": "object", "additionalProperties": True},
    "google.protobuf.ListValue": {"type": "array", "items": {}},
    "google.protobuf.Value": {},
    "google.protobuf.Empty": {"type": "object"},
    "google.protobuf.Any": {
        "type": "object",
        "properties": {"@type": {"type": "string"}},
        "required": ["@type"],
        "additionalProperties": True,
    },
    "google.protobuf.BoolValue": {"type": "boolean"},
    "google.protobuf.StringValue": {"type": "string"},
    "google.protobuf.BytesValue": _BYTES,
    "google.protobuf.Int32Value": _INT32,
    "google.protobuf.UInt32Value": _UINT32,
    "google.protobuf.Int64Value": _INT64,
    "google.protobuf.UInt64Value": _UINT64,
    "google.protobuf.DoubleValue": {"type": "number", "format": "double"},
    "google.protobuf.FloatValue": {"type": "number", "format": "float"},
    "google.rpc.Status": {
        "type": "object",
        "properties": {
            "code": {"type": "integer", "description": "The canonical gRPC code."},
            "message": {"type": "string"},
            "details": {"type": "array", "items": {"type": "object", "additionalProperties": True}},
        },
    },
    contracts.HTTP_BODY: {"type": "string", "contentEncoding": "base64"},
}


def rule(field: FieldDescriptor) -> rule_pb2.Rule:
    return field.GetOptions().Extensions[rule_pb2.rule]


def map_value(field: FieldDescriptor) -> FieldDescriptor | None:
    """The field of a map's values; None for a field that is no map."""
    entry = field.message_type
    return entry.fields_by_name["value"] if entry is not None and entry.GetOptions().map_entry else None


def _messages(kinds: Iterable[Descriptor]) -> Iterator[Descriptor | EnumDescriptor]:
    for kind in kinds:
        if not kind.GetOptions().map_entry:
            yield kind
        yield from kind.enum_types
        yield from _messages(kind.nested_types)


def _names() -> dict[str, str]:
    """Component names by full name: without the package where that is unambiguous."""
    short: dict[str, str] = {}
    for file in contracts.files():
        enums: Iterable[Descriptor | EnumDescriptor] = file.enum_types_by_name.values()
        for kind in [*_messages(file.message_types_by_name.values()), *enums]:
            short[kind.full_name] = kind.full_name.removeprefix(file.package + ".")
    count = Counter(short.values())
    return {full: name if count[name] == 1 else full.removeprefix("mercat.") for full, name in short.items()}


class Schemas:
    """Makes component schemas on demand and keeps those that were asked for."""

    def __init__(self, comments: dict[str, str]) -> None:
        self._comments = comments
        self._names = _names()
        self.components: dict[str, Schema] = {}

    def message(self, kind: Descriptor) -> Schema:
        """A reference to the component of a message, or the inline schema of a well-known type."""
        if kind.full_name in WELL_KNOWN:
            return dict(WELL_KNOWN[kind.full_name])
        return self._component(self._names[kind.full_name], lambda: self.fields(kind, kind.fields))

    def body(self, name: str, kind: Descriptor, bound: set[str]) -> Schema:
        """The schema of a request without the fields that its path binds, as the component `name`."""
        if not bound:
            return self.message(kind)
        return self._component(name, lambda: self.fields(kind, [f for f in kind.fields if f.name not in bound]))

    def _component(self, name: str, make: Callable[[], Schema]) -> Schema:
        if name not in self.components:
            self.components[name] = {}  # a message may contain itself
            self.components[name].update(make())
        return {"$ref": f"#/components/schemas/{name}"}

    def _enum(self, kind: EnumDescriptor) -> Schema:
        lines = [self._comments.get(kind.full_name, "")]
        lines += [
            f"- `{value.name}`: {text}"
            for value in kind.values
            if (text := self._comments.get(f"{kind.full_name}.{value.name}"))
        ]
        schema: Schema = {"type": "string", "enum": [value.name for value in kind.values]}
        text = "\n".join(line for line in lines if line)
        return {**schema, "description": text} if text else schema

    def fields(self, kind: Descriptor, chosen: Iterable[FieldDescriptor]) -> Schema:
        """An object schema of some fields of a message."""
        chosen = list(chosen)
        schema: Schema = {"type": "object"}
        if text := self._comments.get(kind.full_name):
            schema["description"] = text
        schema["properties"] = {field.json_name: self.field(field) for field in chosen}
        if required := [field.json_name for field in chosen if rule(field).required]:
            schema["required"] = required
        return schema

    def field(self, field: FieldDescriptor) -> Schema:
        """The schema of a field, with its rule and its comment."""
        limits = rule(field)
        if value := map_value(field):
            schema: Schema = {"type": "object", "additionalProperties": self._value(value)}
            if limits.max_items:
                schema["maxProperties"] = limits.max_items
        elif field.is_repeated:
            schema = {"type": "array", "items": self._limited(field, limits)}
            if limits.required:
                schema["minItems"] = 1
            if limits.max_items:
                schema["maxItems"] = limits.max_items
        else:
            schema = self._limited(field, limits)
        if text := self._comments.get(field.full_name):
            schema["description"] = text
        return schema

    def _value(self, field: FieldDescriptor) -> Schema:
        if field.message_type is not None:
            return self.message(field.message_type)
        if field.enum_type is not None:
            kind = field.enum_type
            return self._component(self._names[kind.full_name], lambda: self._enum(kind))
        return dict(_SCALARS[field.type])

    def _limited(self, field: FieldDescriptor, limits: rule_pb2.Rule) -> Schema:
        schema = self._value(field)
        if field.type == FieldDescriptor.TYPE_STRING:
            if limits.min_len or (limits.required and not field.is_repeated):
                schema["minLength"] = max(limits.min_len, 1)
            if limits.max_len:
                schema["maxLength"] = limits.max_len
            if limits.pattern:
                # The rule lets the empty string pass unless the field is required.
                pattern = f"(?:{limits.pattern})" if limits.required else f"(?:{limits.pattern})?"
                schema["pattern"] = f"^{pattern}$"
        elif schema.get("type") == "integer":
            if limits.HasField("gte"):
                schema["minimum"] = limits.gte
            if limits.HasField("lte"):
                schema["maximum"] = limits.lte
        return schema
