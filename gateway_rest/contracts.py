"""What the contracts say about REST: every binding of `google.api.http`, with its policy."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import mercat
from google.api import annotations_pb2, http_pb2
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor, MethodDescriptor
from google.protobuf.message import Message
from mercat.common.v1 import policy_pb2

from gateway_rest import paths

HTTP_BODY = "google.api.HttpBody"


@dataclass(frozen=True)
class Binding:
    """One way to call an RPC over HTTP."""

    method: MethodDescriptor
    policy: policy_pb2.Policy
    verb: str
    template: paths.Template
    # "" no body, "*" the whole request, else the field the body is.
    body: str
    # "" the whole reply, else the field that is answered.
    response_body: str

    @property
    def name(self) -> str:
        """The gRPC path, `/package.Service/Method`."""
        return f"/{self.method.containing_service.full_name}/{self.method.name}"

    @property
    def request(self) -> type[Message]:
        return message_factory.GetMessageClass(self.method.input_type)

    @property
    def reply(self) -> type[Message]:
        return message_factory.GetMessageClass(self.method.output_type)

    @property
    def request_body(self) -> Descriptor | None:
        """The type the HTTP body is read as: None without a body or when it is a plain value."""
        if self.body in ("", "*"):
            return self.method.input_type if self.body else None
        return self.method.input_type.fields_by_name[self.body].message_type

    @property
    def reply_field(self) -> FieldDescriptor | None:
        return self.method.output_type.fields_by_name[self.response_body] if self.response_body else None

    @property
    def takes_bytes(self) -> bool:
        """The HTTP body is the content of a google.api.HttpBody, not JSON."""
        body = self.request_body
        return body is not None and body.full_name == HTTP_BODY

    @property
    def gives_bytes(self) -> bool:
        chosen = self.reply_field.message_type if self.reply_field else self.method.output_type
        return chosen is not None and chosen.full_name == HTTP_BODY


@cache
def files() -> tuple[FileDescriptor, ...]:
    """Every contract, imported."""
    names = sorted(
        module.name
        for module in pkgutil.walk_packages(mercat.__path__, "mercat.")
        if module.name.endswith("_pb2") and not module.ispkg
    )
    return tuple(importlib.import_module(name).DESCRIPTOR for name in names)


def methods() -> Iterator[MethodDescriptor]:
    for file in files():
        for service in file.services_by_name.values():
            yield from service.methods


def policy(method: MethodDescriptor) -> policy_pb2.Policy:
    return method.GetOptions().Extensions[policy_pb2.policy]


def _bindings(method: MethodDescriptor, rule: http_pb2.HttpRule) -> Iterator[Binding]:
    kind = rule.WhichOneof("pattern")
    if kind == "custom":
        verb, text = rule.custom.kind, rule.custom.path
    else:
        verb, text = str(kind).upper(), str(getattr(rule, str(kind)))
    yield Binding(method, policy(method), verb, paths.parse(text), rule.body, rule.response_body)
    for further in rule.additional_bindings:
        yield from _bindings(method, further)


@cache
def bindings() -> tuple[Binding, ...]:
    """Every REST binding of a method that may be called from outside."""
    found: list[Binding] = []
    for method in methods():
        options = method.GetOptions()
        if options.HasExtension(annotations_pb2.http) and policy(method).access != policy_pb2.ACCESS_INTERNAL:
            found.extend(_bindings(method, options.Extensions[annotations_pb2.http]))
    return tuple(found)
