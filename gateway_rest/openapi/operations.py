"""Operations: one for each REST binding of an RPC."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from mercat.common.v1 import policy_pb2

from gateway_rest.contracts import Binding
from gateway_rest.openapi.schemas import WELL_KNOWN, Schema, Schemas, map_value
from gateway_rest.paths import ANY, Variable

# What the segments of a variable are called one by one; a resource name is one field in the contract.
SEGMENT_NAMES = {("model", 2): ("publisher", "name")}
SEGMENT_NOTES = {"publisher": "The handle of the organisation that publishes the model.", "name": "The model's name."}

_BYTES: Schema = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_RATES = {
    policy_pb2.RATE_CLASS_READ: "read",
    policy_pb2.RATE_CLASS_WRITE: "write",
    policy_pb2.RATE_CLASS_SIGN_IN: "sign-in",
    policy_pb2.RATE_CLASS_INFERENCE: "inference",
}


def segment_names(variable: Variable, count: int) -> tuple[str, ...]:
    if count == 1:
        return (variable.field,)
    names = SEGMENT_NAMES.get((variable.field, count))
    return names or tuple(f"{variable.field}_{number + 1}" for number in range(count))


def path(binding: Binding) -> tuple[str, list[tuple[str, Variable]]]:
    """The OpenAPI path, and its parameters with the variable each is a part of."""
    template = binding.template
    segments = list(template.segments)
    parameters: list[tuple[str, Variable]] = []
    for variable in template.variables:
        end = len(segments) if variable.end is None else variable.end
        wild = [index for index in range(variable.start, end) if segments[index].startswith(ANY)]
        for index, name in zip(wild, segment_names(variable, len(wild)), strict=True):
            segments[index] = "{" + name + "}"
            parameters.append((name, variable))
    verb = f":{template.verb}" if template.verb else ""
    return "/" + "/".join(segments) + verb, parameters


def leaves(kind: Descriptor, prefix: str = "") -> Iterator[tuple[str, FieldDescriptor]]:
    """The fields a query string can set, by dotted JSON name: no maps, no repeated messages."""
    for field in kind.fields:
        name = prefix + field.json_name
        nested = field.message_type
        if nested is None or nested.full_name in WELL_KNOWN:
            yield name, field
        elif not field.is_repeated and nested is not kind:
            yield from leaves(nested, name + ".")


def words(name: str) -> str:
    """`CreateApiKey` → `Create API key`."""
    return re.sub(r"(?<!^)([A-Z])", r" \1", name).capitalize().replace(" api ", " API ")


def summary(method: MethodDescriptor, text: str) -> str:
    """The first sentence of a comment when it says what the method does, else its name in words."""
    sentence = re.split(r"(?<=[.;])\s", text, maxsplit=1)[0].rstrip(".;")
    telling = sentence.count(" ") > 1 and len(sentence) <= 120 and not sentence.split(" ")[0].isupper()
    return sentence if telling else words(method.name)


class Operations:
    def __init__(self, schemas: Schemas, comments: dict[str, str]) -> None:
        self._schemas = schemas
        self._comments = comments

    def make(self, binding: Binding, number: int) -> dict[str, Any]:
        """The operation object; `number` counts the further bindings of one RPC from 0."""
        method, policy = binding.method, binding.policy
        text = self._comments.get(method.full_name, "")
        operation: dict[str, Any] = {
            "operationId": f"{method.containing_service.name}_{method.name}" + (f"_{number}" if number else ""),
            "tags": [method.containing_service.name],
            "summary": summary(method, text),
            "description": self._description(binding, text),
            "x-grpc-method": binding.name,
        }
        if policy.scopes or policy.roles:
            operation["x-mercat-policy"] = {"scopes": list(policy.scopes), "roles": list(policy.roles)}
        if policy.access == policy_pb2.ACCESS_PUBLIC:
            operation["security"] = [{}, {"bearer": []}]
        if parameters := self._parameters(binding):
            operation["parameters"] = parameters
        if body := self._request_body(binding):
            operation["requestBody"] = body
        operation["responses"] = {"200": self._response(binding), "default": {"$ref": "#/components/responses/Error"}}
        return operation

    def _description(self, binding: Binding, text: str) -> str:
        policy = binding.policy
        notes = [text] if text else []
        if policy.access == policy_pb2.ACCESS_PUBLIC:
            notes.append("Needs no credentials.")
        if policy.scopes:
            notes.append("Scopes: " + ", ".join(f"`{scope}`" for scope in policy.scopes) + ".")
        if policy.roles:
            notes.append("Roles, one of: " + ", ".join(policy.roles) + ".")
        if policy.step_up == policy_pb2.STEP_UP_SECOND_FACTOR:
            notes.append("Where the account has a second factor: needs one that was given in the last 15 minutes.")
        if policy.step_up == policy_pb2.STEP_UP_ALWAYS:
            notes.append("Needs a sign-in of the last 15 minutes, not an API key.")
        if policy.verified:
            notes.append("Needs a verified email address, where the platform asks for that.")
        if policy.rate in _RATES:
            notes.append(f"Rate class: {_RATES[policy.rate]}.")
        if binding.method.server_streaming and not binding.gives_bytes:
            notes.append(
                "The answer is a stream: server-sent events when the request accepts `text/event-stream`, "
                "else one JSON object per line."
            )
        return "\n\n".join(notes)

    def _parameters(self, binding: Binding) -> list[dict[str, Any]]:
        kind = binding.method.input_type
        parameters: list[dict[str, Any]] = []
        for name, variable in path(binding)[1]:
            field = kind.fields_by_name[variable.field.split(".")[0]]
            schema: Schema = {"type": "string"} if variable.multiple else self._schemas.field(field)
            comment = self._comments.get(field.full_name)
            note = schema.pop("description", None) or " ".join(
                filter(None, [SEGMENT_NOTES.get(name) if variable.multiple else None, comment])
            )
            parameter = {"name": name, "in": "path", "required": True, "schema": schema}
            parameters.append({**parameter, "description": note} if note else parameter)
        if binding.body != "*":
            parameters.extend(self._query(binding))
        if binding.policy.mutates:
            parameters.append({"$ref": "#/components/parameters/IdempotencyKey"})
        if binding.policy.rate == policy_pb2.RATE_CLASS_INFERENCE:
            parameters.append({"$ref": "#/components/parameters/Tag"})
        return parameters

    def _query(self, binding: Binding) -> Iterator[dict[str, Any]]:
        bound = {variable.field for variable in binding.template.variables} | {binding.body}
        for name, field in leaves(binding.method.input_type):
            if field.name in bound or map_value(field):
                continue
            schema = self._schemas.field(field)
            parameter = {"name": name, "in": "query", "required": "required" in schema}
            if note := schema.pop("description", None):
                parameter["description"] = note
            yield {**parameter, "schema": schema}

    def _request_body(self, binding: Binding) -> dict[str, Any] | None:
        if not binding.body:
            return None
        if binding.takes_bytes:
            return {"required": True, "content": _BYTES}
        if binding.body == "*":
            bound = {variable.field for variable in binding.template.variables}
            kind = binding.method.input_type
            name = kind.full_name.rpartition(".")[2].removesuffix("Request") + "Body"
            schema = self._schemas.body(name, kind, bound)
            if binding.method.client_streaming:
                schema = {"type": "array", "items": schema}
        else:
            schema = self._schemas.field(binding.method.input_type.fields_by_name[binding.body])
        return {"required": True, "content": {"application/json": {"schema": schema}}}

    def _response(self, binding: Binding) -> dict[str, Any]:
        headers = {"mercat-request-id": {"$ref": "#/components/headers/RequestId"}}
        if binding.policy.rate == policy_pb2.RATE_CLASS_INFERENCE and binding.policy.mutates:
            headers["mercat-cost-nanos"] = {"$ref": "#/components/headers/CostNanos"}
            headers["mercat-model-version"] = {"$ref": "#/components/headers/ModelVersion"}
        if binding.gives_bytes:
            return {"description": "The bytes.", "headers": headers, "content": _BYTES}
        field = binding.reply_field
        schema = self._schemas.field(field) if field else self._schemas.message(binding.method.output_type)
        content: Schema = {"application/json": {"schema": schema}}
        if binding.method.server_streaming:
            content = {"application/x-ndjson": {"schema": schema}, "text/event-stream": {"schema": schema}}
        return {"description": "Done.", "headers": headers, "content": content}
