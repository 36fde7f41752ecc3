"""What every contract declares, so that the platform around it can be derived."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.api import annotations_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from mercat.common.v1 import policy_pb2, rule_pb2

from gateway_rest import contracts
from gateway_rest.openapi import comments

GENERATED = Path(__file__).parents[2] / "gen" / "descriptors.binpb"
METHODS = list(contracts.methods())
EXPOSED = {binding.method.full_name for binding in contracts.bindings()}


def requests() -> Iterator[tuple[MethodDescriptor, Descriptor]]:
    """Every message that a caller from anywhere may send, with one method that takes it."""
    seen: set[str] = set()

    def reach(method: MethodDescriptor, kind: Descriptor) -> Iterator[tuple[MethodDescriptor, Descriptor]]:
        if kind.full_name in seen or not kind.full_name.startswith("mercat."):
            return
        seen.add(kind.full_name)
        yield method, kind
        for field in kind.fields:
            if field.message_type is not None:
                yield from reach(method, field.message_type)

    for method in METHODS:
        if contracts.policy(method).access != policy_pb2.ACCESS_INTERNAL:
            yield from reach(method, method.input_type)


def fields() -> list[FieldDescriptor]:
    return [field for _, kind in requests() if not kind.GetOptions().map_entry for field in kind.fields]


def rule(field: FieldDescriptor) -> rule_pb2.Rule:
    return field.GetOptions().Extensions[rule_pb2.rule]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)
def test_method_says_who_may_call_it_and_how_often(method: MethodDescriptor) -> None:
    policy = contracts.policy(method)
    assert policy.access != policy_pb2.ACCESS_UNSPECIFIED
    assert policy.rate != policy_pb2.RATE_CLASS_UNSPECIFIED
    assert (policy.rate == policy_pb2.RATE_CLASS_NONE) == (policy.access == policy_pb2.ACCESS_INTERNAL)
    if policy.access != policy_pb2.ACCESS_ACCOUNT:
        assert not policy.scopes
        assert not policy.roles
    assert set(policy.roles) <= {"consumer", "publisher", "admin"}
    for scope in policy.scopes:
        assert re.fullmatch(r"[a-z]+:[a-z]+", scope)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)
def test_method_is_bound_to_http_unless_internal(method: MethodDescriptor) -> None:
    internal = contracts.policy(method).access == policy_pb2.ACCESS_INTERNAL
    assert method.GetOptions().HasExtension(annotations_pb2.http) != internal
    assert (method.full_name in EXPOSED) != internal


def test_services_are_public_or_internal_as_a_whole() -> None:
    for file in contracts.files():
        for service in file.services_by_name.values():
            kinds = {contracts.policy(m).access == policy_pb2.ACCESS_INTERNAL for m in service.methods}
            assert len(kinds) == 1, service.full_name


def test_get_does_not_change_anything_and_carries_no_body() -> None:
    for binding in contracts.bindings():
        if binding.verb == "GET":
            assert not binding.policy.mutates, binding.name
            assert not binding.body, binding.name


def test_bindings_name_fields_that_are() -> None:
    for binding in contracts.bindings():
        kind = binding.method.input_type
        for variable in binding.template.variables:
            assert variable.field in kind.fields_by_name, binding.name
        if binding.body not in ("", "*"):
            assert binding.body in kind.fields_by_name, binding.name
        if binding.response_body:
            assert binding.response_body in binding.method.output_type.fields_by_name, binding.name


@pytest.mark.parametrize("field", fields(), ids=lambda field: field.full_name)
def test_field_of_a_request_is_bounded(field: FieldDescriptor) -> None:
    limits = rule(field)
    if field.type == FieldDescriptor.TYPE_STRING:
        assert limits.max_len > 0, "a string needs max_len"
    if field.is_repeated:
        assert limits.max_items > 0, "a repeated or map field needs max_items"
    if field.name == "page_size":
        assert limits.HasField("gte")
        assert 0 == limits.gte < limits.lte <= 1000
    if limits.pattern:
        re.compile(limits.pattern)
        assert limits.hint, "a pattern needs a hint for people"


def test_lists_have_pages() -> None:
    for method in METHODS:
        if method.name.startswith("List") and method.full_name in EXPOSED:
            assert {"page_size", "page_token"} <= set(method.input_type.fields_by_name), method.full_name
            assert "next_page_token" in method.output_type.fields_by_name, method.full_name


def test_services_and_methods_worth_a_word_have_one() -> None:
    image = FileDescriptorSet.FromString(GENERATED.read_bytes())
    texts = comments.read(image)
    for file in contracts.files():
        for service in file.services_by_name.values():
            commented = [method for method in service.methods if method.full_name in texts]
            assert len(commented) >= len(service.methods) / 2, service.full_name


def test_what_is_kept_of_audited_requests_holds_no_secret() -> None:
    named = re.compile(r"(^|_)(password|secret|token|code|otp|credential)$")
    for method in METHODS:
        if contracts.policy(method).audited:
            for field in method.input_type.fields:
                if (
                    field.type == FieldDescriptor.TYPE_STRING
                    and named.search(field.name)
                    and field.name != "page_token"
                ):
                    assert rule(field).secret, f"{field.full_name} needs `secret: true`"


# What only takes away is never held up.
TAKES_AWAY = {"RevokeApiKey", "EndApiKeyOverlap", "DeleteSigningKey", "DetachPaymentMethod", "CancelSubscription"}
COSTLY = re.compile(r"(billing|credits|keys|ledger|limits|refunds):write")


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)
def test_what_moves_money_or_makes_keys_asks_for_a_recent_proof(method: MethodDescriptor) -> None:
    policy = contracts.policy(method)
    if policy.access != policy_pb2.ACCESS_ACCOUNT:
        assert not policy.step_up
        assert not policy.verified
    if policy.mutates and any(COSTLY.fullmatch(scope) for scope in policy.scopes) and method.name not in TAKES_AWAY:
        assert policy.step_up
