"""What the front door takes from the contracts."""

from collections.abc import Iterator
from dataclasses import dataclass

from google.api import annotations_pb2, http_pb2
from google.protobuf import descriptor_pb2
from mercat.common.v1 import policy_pb2

HTTP_BODY = ".google.api.HttpBody"


@dataclass(frozen=True)
class Method:
    """A method for outsiders. `unwrap` is the field, by its JSON name, that REST answers alone; `lines`
    means that its reply is a stream of messages, not of bytes."""

    path: str
    service: str
    streams: bool
    unwrap: str = ""
    lines: bool = False


def transcodable(descriptors: descriptor_pb2.FileDescriptorSet) -> list[Method]:
    """Every method whose policy lets outsiders in.

    Envoy's transcoder knows `response_body` only for HttpBody and refuses the contracts otherwise; for the rest it is
    taken out of `descriptors` here and left to the Lua filter, as `unwrap`. ValueError for a reply of several fields,
    of which that could not take out one."""
    return list(_methods(descriptors))


def _methods(descriptors: descriptor_pb2.FileDescriptorSet) -> Iterator[Method]:
    messages = {
        f".{file.package}.{message.name}": message for file in descriptors.file for message in file.message_type
    }
    for file in descriptors.file:
        for service in file.service:
            name = f"{file.package}.{service.name}"
            for method in service.method:
                unwrap = _take_response_body(method, messages[method.output_type])
                access = method.options.Extensions[policy_pb2.policy].access
                if access in (policy_pb2.ACCESS_PUBLIC, policy_pb2.ACCESS_ACCOUNT):
                    streams = method.client_streaming or method.server_streaming
                    reply = messages[method.output_type]
                    lines = method.server_streaming and HTTP_BODY not in {field.type_name for field in reply.field}
                    yield Method(f"/{name}/{method.name}", name, streams, unwrap, lines)


def _take_response_body(method: descriptor_pb2.MethodDescriptorProto, reply: descriptor_pb2.DescriptorProto) -> str:
    rule = method.options.Extensions[annotations_pb2.http]
    fields = {field.name: field for field in reply.field}
    if not rule.response_body or fields[rule.response_body].type_name == HTTP_BODY:
        return ""
    if len(fields) != 1:
        raise ValueError(f"{method.name}: response_body needs a reply of this field alone")
    unwrap = fields[rule.response_body].json_name or rule.response_body
    bindings: list[http_pb2.HttpRule] = [rule, *rule.additional_bindings]
    for binding in bindings:
        binding.ClearField("response_body")
    return unwrap
