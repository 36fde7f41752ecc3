"""Reads what the contract declares: the policy of each method and the rules of each field."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from mercat.common.v1 import policy_pb2, rule_pb2

from services.common.errors import InvalidFields, Malformed, Violation

Check = Callable[[Message, str, list[Violation]], None]


@dataclass(frozen=True)
class Policy:
    """A method's policy, as plain values."""

    access: int
    scopes: frozenset[str]
    roles: frozenset[str]
    mutates: bool
    audited: bool
    rate: int
    step_up: int = policy_pb2.STEP_UP_UNSPECIFIED
    verified: bool = False


def policy_of(method: MethodDescriptor) -> Policy:
    """Raises LookupError when the method declares none: such a contract must not be served."""
    options = method.GetOptions()
    if not options.HasExtension(policy_pb2.policy):
        raise LookupError(f"{method.full_name} declares no policy")
    p: policy_pb2.Policy = options.Extensions[policy_pb2.policy]
    if not p.access or not p.rate:
        raise LookupError(f"{method.full_name}: access and rate must be given")
    return Policy(
        p.access, frozenset(p.scopes), frozenset(p.roles), p.mutates, p.audited, p.rate, p.step_up, p.verified
    )


def validate(request: Message | None) -> None:
    """Raises InvalidFields naming every field that breaks its rule, and Malformed when there is no request: its bytes
    could not be read."""
    if request is None:
        raise Malformed("the request cannot be decoded: its bytes are not a message of this method's type")
    check = _compile(request.DESCRIPTOR)
    if check is None:
        return
    found: list[Violation] = []
    check(request, "", found)
    if found:
        raise InvalidFields(violations=found)


@cache
def _compile(descriptor: Descriptor, depth: int = 0) -> Check | None:
    """One function that checks all of a message; None when nothing in it has a rule."""
    checks = [c for f in descriptor.fields if (c := _field(f, depth)) is not None]
    if not checks:
        return None

    def check(message: Message, path: str, found: list[Violation]) -> None:
        for one in checks:
            one(message, path, found)

    return check


def _field(field: FieldDescriptor, depth: int) -> Check | None:
    options = field.GetOptions()
    rule: rule_pb2.Rule | None = None
    if options.HasExtension(rule_pb2.rule):
        rule = options.Extensions[rule_pb2.rule]
    is_message = field.type == FieldDescriptor.TYPE_MESSAGE
    own = field.message_type is not None and field.message_type.file.package.startswith("mercat.")
    apart = rule is not None and rule.each_apart
    nested = _compile(field.message_type, depth + 1) if is_message and own and not apart and depth < 8 else None
    if rule is None and nested is None:
        return None
    name = field.name
    repeated = bool(field.is_repeated)
    is_map = is_message and field.message_type is not None and field.message_type.GetOptions().map_entry
    value_check = _value_check(rule, field) if rule is not None and (is_map or not is_message) else None
    if is_map and field.message_type is not None:
        value_type = field.message_type.fields_by_name["value"].message_type
        nested = _compile(value_type, depth + 1) if value_type is not None else None

    def check(message: Message, path: str, found: list[Violation]) -> None:
        where = path + name
        value = getattr(message, name)
        if repeated or is_map:
            if rule is not None:
                if rule.required and not value:
                    found.append(Violation(where, "must not be empty"))
                if rule.max_items and len(value) > rule.max_items:
                    found.append(Violation(where, f"at most {rule.max_items} entries, not {len(value)}"))
                    return
            if is_map:
                for key in value if nested is not None or value_check is not None else ():
                    if nested is not None:
                        nested(value[key], f"{where}[{key!r}].", found)
                    elif value_check is not None:
                        value_check(value[key], f"{where}[{key!r}]", found)
                return
            for i, element in enumerate(value if nested is not None or value_check is not None else ()):
                if nested is not None:
                    nested(element, f"{where}[{i}].", found)
                elif value_check is not None:
                    value_check(element, f"{where}[{i}]", found)
            return
        present = message.HasField(name) if field.has_presence else bool(value)
        if not present:
            if rule is not None and rule.required:
                found.append(Violation(where, "is required"))
            elif value_check is not None and not field.has_presence and isinstance(value, int | float):
                value_check(value, where, found)
            return
        if nested is not None:
            nested(value, where + ".", found)
        elif value_check is not None:
            value_check(value, where, found)

    return check


def _value_check(rule: rule_pb2.Rule, field: FieldDescriptor) -> Callable[[object, str, list[Violation]], None] | None:
    kind = "bytes" if field.type == FieldDescriptor.TYPE_BYTES else "characters"
    pattern = re.compile(rule.pattern) if rule.pattern else None
    gte = rule.gte if rule.HasField("gte") else None
    lte = rule.lte if rule.HasField("lte") else None
    least = rule.min if rule.HasField("min") else None
    most = rule.max if rule.HasField("max") else None

    def check(value: object, where: str, found: list[Violation]) -> None:
        if isinstance(value, str | bytes):
            if isinstance(value, str) and "\0" in value:  # no text in PostgreSQL
                found.append(Violation(where, "must not contain a NUL character"))
            elif len(value) < rule.min_len:
                found.append(Violation(where, f"at least {rule.min_len} {kind}, not {len(value)}"))
            elif rule.max_len and len(value) > rule.max_len:
                found.append(Violation(where, f"at most {rule.max_len} {kind}, not {len(value)}"))
            elif pattern is not None and isinstance(value, str) and value and not pattern.fullmatch(value):
                found.append(Violation(where, f"must be {rule.hint or 'of the form ' + rule.pattern}"))
        elif isinstance(value, int) and not isinstance(value, bool):
            if gte is not None and value < gte:
                found.append(Violation(where, f"at least {gte}, not {value}"))
            elif lte is not None and value > lte:
                found.append(Violation(where, f"at most {lte}, not {value}"))
        elif isinstance(value, float):
            # Asked so that NaN, which is neither, is refused.
            if least is not None and not value >= least:
                found.append(Violation(where, f"at least {least:g}, not {value:g}"))
            elif most is not None and not value <= most:
                found.append(Violation(where, f"at most {most:g}, not {value:g}"))

    return check
