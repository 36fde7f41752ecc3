"""Sensitive acts: an RPC that the contract marks as audited leaves an AuditRecorded event in its own transaction, with
what was asked for, and what was before and after, but for what the contract calls secret."""

import json
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from mercat.common.v1 import rule_pb2
from mercat.event.v1 import event_pb2

from services.common import clock, ids, outbox
from services.common.db import Connection
from services.common.rpc.context import Call, maybe_current

SECRET = "[secret]"  # noqa: S105 - what stands for one
_MOST = 16_384  # characters of JSON that are kept of a message


def about(resource_type: str, resource_id: str) -> None:
    """Names what the current call is about, for its audit record, which keeps it for ever: an id, never a name."""
    if call := maybe_current():
        call.resource = (resource_type, resource_id)


def by(user_id: str, org_id: str) -> None:
    """Names who acts in a call that has no caller: who signs in is known only then."""
    if call := maybe_current():
        call.actor = (user_id, org_id)


def nothing() -> None:
    """Says that the current call does nothing that is worth a record."""
    if call := maybe_current():
        call.audited = False


def changed(before: Message | None = None, after: Message | None = None) -> None:
    """Says what the current call's transaction changes, and into what."""
    if call := maybe_current():
        call.change = (before, after)


async def record(connection: Connection) -> None:
    """Adds the audit event of the current call to its transaction, once per call; nothing outside an audited call."""
    call = maybe_current()
    if call is None or not call.audited:
        return
    call.audited = False
    await outbox.add(connection, _event(call))


async def also(connection: Connection, org_id: str) -> None:
    """Adds the audit event of the current call to another organisation's log too, whose affair it is as well. After
    `about` and `changed`."""
    if call := maybe_current():
        event = _event(call)
        event.org_id = org_id
        await outbox.add(connection, event)


def _event(call: Call) -> event_pb2.AuditRecorded:
    event = event_of(call)
    before, after = call.change
    said = {"request": call.request, "before": before, "after": after}
    json_format.ParseDict({name: shown(m) for name, m in said.items() if m is not None}, event.metadata)
    return event


def event_of(call: Call) -> event_pb2.AuditRecorded:
    """Who does what, from where, now; without what was asked for."""
    user_id, org_id = call.actor or (call.principal.user_id, call.principal.org_id)
    key_id = call.principal.key_id if user_id == call.principal.user_id else ""
    event = event_pb2.AuditRecorded(
        user_id=user_id, org_id=org_id, key_id=key_id, action=call.method, resource_type=call.resource[0],
        resource_id=call.resource[1], ip_address=call.address, user_agent=call.user_agent, request_id=call.request_id,
    )  # fmt: skip
    renew(event)
    return event


def renew(event: event_pb2.AuditRecorded) -> None:
    """Makes it an entry of its own, of now."""
    event.audit_id = ids.new("aud")
    now = Timestamp()
    now.FromNanoseconds(clock.time_ns())
    event.created_at.CopyFrom(now)


def shown(message: Message) -> dict[str, Any]:
    """What is kept of a message: its fields by name, without secrets; of bytes how many; numbers as text, which no
    reader rounds. Of more than 16 Ki characters only how many."""
    said = _fields(message)
    size = len(json.dumps(said))
    return said if size <= _MOST else {"omitted_characters": str(size)}


def _fields(message: Message) -> dict[str, Any]:
    if not message.DESCRIPTOR.full_name.startswith("mercat."):
        plain: Any = json_format.MessageToDict(message)  # of some types a text or a list
        return dict(_plain(plain)) if isinstance(plain, dict) else {"value": _plain(plain)}
    return {field.name: _field(field, value) for field, value in message.ListFields()}


def _field(field: FieldDescriptor, value: Any) -> Any:
    if field.GetOptions().Extensions[rule_pb2.rule].secret:
        return SECRET
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        of = field.message_type.fields_by_name["value"]
        return {_text(key): _one(of, value[key]) for key in value}
    if field.is_repeated:
        return [_one(field, element) for element in value]
    return _one(field, value)


def _one(field: FieldDescriptor, value: Any) -> Any:
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known is not None else str(value)
    if isinstance(value, Message):
        return value.ToJsonString() if isinstance(value, Timestamp) else _fields(value)
    return _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {_text(key): _plain(of) for key, of in value.items()}
    if isinstance(value, list):
        return [_plain(element) for element in value]
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if value is None or isinstance(value, bool):
        return value
    return _text(value)


def _text(value: Any) -> str:
    return str(value).replace("\0", "\N{REPLACEMENT CHARACTER}")  # which jsonb does not have
