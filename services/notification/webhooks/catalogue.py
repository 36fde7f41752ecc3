"""What organisations can be told of: which event of the platform is which type, and what of it is said.

The scopes are those that show the same by other calls: who may not see payments hears of none."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from mercat.event.v1 import event_pb2 as e
from mercat.inference.v1 import inference_pb2 as i

_AT = Timestamp(seconds=1_790_000_000)
Values: TypeAlias = dict[str, Any]
_JOB: Values = {
    "job_id": "job_06b3c8x0z5q7k2m4n6p8r0s2t4", "state": i.JOB_STATE_SUCCEEDED, "entry_count": 3, "done_count": 3,
    "cost_nanos": 3_000_000, "end_time": _AT,
}  # fmt: skip
_STOPPED: Values = {**_JOB, "done_count": 1}
_PAYMENT: Values = {
    "payment_id": "pay_06b3c8x0z5q7k2m4n6p8r0s2t4", "purpose": "top_up", "amount_nanos": 10_000_000_000,
}  # fmt: skip
_REVERSAL: Values = {
    "reversal_id": "rev_06b3c8x0z5q7k2m4n6p8r0s2t4", "payment_id": "pay_06b3c8x0z5q7k2m4n6p8r0s2t4",
    "amount_nanos": 10_000_000_000,
}  # fmt: skip
_INVOICE: Values = {
    "invoice_id": "inv_06b3c8x0z5q7k2m4n6p8r0s2t4", "number": "MER-2026-000001", "due_nanos": 49_000_000_000,
}  # fmt: skip
_PAYOUT: Values = {"payout_id": "po_06b3c8x0z5q7k2m4n6p8r0s2t4", "amount_nanos": 80_000_000_000}
_VERSION: Values = {"version_id": "ver_06b3c8x0z5q7k2m4n6p8r0s2t4", "model": "ada/adder", "version": "1.0.0"}
_ACCESS: Values = {"model": "ada/adder", "organisation": "acme"}
_BUDGET: Values = {
    "budget_id": "bdg_06b3c8x0z5q7k2m4n6p8r0s2t4", "name": "all", "percent": 80, "limit_nanos": 100_000_000_000,
    "spent_nanos": 80_500_000_000, "currency": "usd", "reset_time": _AT,
}  # fmt: skip
_QUOTA: Values = {
    "quota": "key_daily", "key_id": "key_06b3c8x0z5q7k2m4n6p8r0s2t4", "reset_time": _AT,
}  # fmt: skip
_REFUNDED: Values = {
    "refund_id": "rfd_06b3c8x0z5q7k2m4n6p8r0s2t4", "request_id": "req_06b3c8x0z5q7k2m4n6p8r0s2t4",
    "amount_nanos": 1_000_000,
}  # fmt: skip
_SUBSCRIPTION: Values = {
    "subscription_id": "sub_06b3c8x0z5q7k2m4n6p8r0s2t4", "plan_id": "pro", "status": "active",
}  # fmt: skip
_KEY: Values = {
    "resource_id": "key_06b3c8x0z5q7k2m4n6p8r0s2t4", "user_id": "usr_06b3c8x0z5q7k2m4n6p8r0s2t4",
    "ip_address": "203.0.113.7", "created_at": _AT,
}  # fmt: skip
_ENDPOINT: Values = {
    "endpoint_id": "whe_06b3c8x0z5q7k2m4n6p8r0s2t4", "url": "https://example.com/webhooks", "reason": "failing",
    "failing_since": _AT,
}  # fmt: skip
# The names of what is said, and in the event.
Names: TypeAlias = Mapping[str, str]


def _fields(*names: str) -> Names:
    return {name: name for name in names}


_OF_JOB = _fields("job_id", "state", "entry_count", "done_count", "failed_count", "cost_nanos", "end_time")
_OF_PAYMENT = _fields("payment_id", "purpose", "amount_nanos", "failure_code")
_OF_REVERSAL = _fields("reversal_id", "payment_id", "kind", "amount_nanos", "failure_code")
_OF_INVOICE = _fields(
    "invoice_id", "number", "status", "due_nanos", "attempts", "failure_code", "next_attempt_at"
)  # fmt: skip
_OF_PAYOUT = _fields("payout_id", "amount_nanos", "status", "failure_code")
_OF_VERSION = _fields("version_id", "model", "version")
_OF_BUDGET = _fields(
    "budget_id", "name", "key_id", "model", "percent", "limit_nanos", "spent_nanos", "currency", "reset_time"
)
_OF_QUOTA = _fields("quota", "key_id", "model", "limit_calls", "reset_time")
_OF_KEY = {"key_id": "resource_id", "user_id": "user_id", "ip_address": "ip_address", "time": "created_at"}


@dataclass(frozen=True)
class EventType:
    """`fields`: what is said, by its name, from which field; `applies`: whether an event of `source` is one;
    `callers`: who called the version of late is told too."""

    name: str
    description: str
    scope: str
    example: Message
    fields: Names
    applies: Callable[[Any], bool]
    callers: bool = False

    @property
    def source(self) -> type[Message]:
        return type(self.example)

    def whole(self, event: Message, at: datetime, *, test: bool = False) -> dict[str, Any]:
        """What is sent. Money and other 64-bit numbers are texts, as in REST's."""
        said: dict[str, Any] = {"type": self.name, "timestamp": at.astimezone(UTC).isoformat(timespec="milliseconds")}
        if test:
            said["test"] = True
        return said | {"data": self._data(event)}

    def body(self, event: Message, at: datetime, *, test: bool = False) -> str:
        """The same as JSON."""
        return json.dumps(self.whole(event, at, test=test), ensure_ascii=False, separators=(",", ":"))

    def _data(self, event: Message) -> dict[str, Any]:
        shown = json_format.MessageToDict(event, always_print_fields_with_no_presence=True)
        known = event.DESCRIPTOR.fields_by_name
        values = {name: shown.get(known[of].json_name) for name, of in self.fields.items()}
        return {_camel(name): value for name, value in values.items()}

    def schema(self) -> dict[str, Any]:
        """JSON Schema of `data`."""
        known = self.example.DESCRIPTOR.fields_by_name
        properties = {_camel(name): _schema(known[of]) for name, of in self.fields.items()}
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object", "properties": properties,
            "required": list(properties),
        }  # fmt: skip


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.title() for part in rest)


def _schema(field: Any) -> dict[str, Any]:
    if field.message_type is not None:  # times alone
        return {"type": ["string", "null"], "format": "date-time"}
    if field.enum_type is not None:
        return {"type": "string", "enum": list(field.enum_type.values_by_name)}
    if field.cpp_type == FieldDescriptor.CPPTYPE_INT64:
        return {"type": "string", "pattern": "^-?[0-9]+$"}
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return {"type": "boolean"}
    return {"type": "integer" if field.cpp_type == FieldDescriptor.CPPTYPE_INT32 else "string"}


def _job(*states: int) -> Callable[[Any], bool]:
    return lambda event: event.state in states


def _reversal(kind: str, *, paid: bool) -> Callable[[Any], bool]:
    return lambda event: event.kind == kind and event.paid == paid


def _status(status: str) -> Callable[[Any], bool]:
    return lambda event: event.status == status


def _done(action: str) -> Callable[[Any], bool]:
    """Of the audit log, where attempts that were denied are too."""
    return lambda event: event.action.endswith(f"/{action}") and "denied" not in event.metadata.fields


def _always(event: Any) -> bool:
    return True


_ALL = [
    EventType("model.published", "A version of a model can be called from now on.", "models:read",
              e.VersionPublished(**_VERSION), _OF_VERSION, _always),
    EventType("model.quarantined", "A version was taken out of service: it kept bringing its engine down.",
              "models:read", e.VersionQuarantined(**_VERSION, crashes=3, reason="it brought its engine down"),
              {**_OF_VERSION, "crashes": "crashes", "reason": "reason"}, _always),
    EventType("model.approved", "A reviewer has approved a version: publish it when you like.", "models:read",
              e.VersionReviewed(**_VERSION, approved=True), {**_OF_VERSION, "reason": "reason"},
              lambda event: bool(event.approved)),
    EventType("model.rejected", "A reviewer has sent a version back.", "models:read",
              e.VersionReviewed(**_VERSION, reason="The licence is missing."), {**_OF_VERSION, "reason": "reason"},
              lambda event: not event.approved),
    EventType("model.deprecated", "A version of yours, or that you called in the last 90 days, is on its way out: from "
              "`sunsetAt` on, where there is one, calls are refused.", "models:read",
              e.VersionDeprecated(**_VERSION, sunset_at=_AT, successor="ada/adder@1.1.0", reason="Use 1.1.0."),
              _fields(*_OF_VERSION, "sunset_at", "successor", "reason"), _always, callers=True),
    EventType("model.retired", "The sunset of a version of yours, or that you called in the last 90 days, has come.",
              "models:read", e.VersionRetired(**_VERSION, successor="ada/adder@1.1.0"),
              _fields(*_OF_VERSION, "successor"), _always, callers=True),
    EventType("model.yanked", "A version of yours, or that you called in the last 90 days, was taken back.",
              "models:read", e.VersionYanked(**_VERSION, yanked=True, reason="Trained on the test set."),
              _fields(*_OF_VERSION, "reason"), lambda event: bool(event.yanked), callers=True),
    EventType("model.unyanked", "A version of yours, or that you called in the last 90 days, is there again.",
              "models:read", e.VersionYanked(**_VERSION), _OF_VERSION, lambda event: not event.yanked, callers=True),
    EventType("model.access_requested", "An organisation asks for access to a gated model of yours.", "models:read",
              e.ModelAccessChanged(**_ACCESS, state="requested", message="for our search"),
              _fields("model", "organisation", "message"), lambda event: event.state == "requested"),
    EventType("model.access_decided", "Your access to a gated model was granted, denied or revoked.", "models:read",
              e.ModelAccessChanged(**_ACCESS, state="granted"), _fields("model", "organisation", "state", "reason"),
              lambda event: event.state != "requested"),
    EventType("inference.job.completed", "A job has run to its end; single entries of it may have failed.",
              "inference:call", e.JobFinished(**_JOB), _OF_JOB, _job(i.JOB_STATE_SUCCEEDED)),
    EventType("inference.job.failed", "A job ended before its last entry: it failed, or its time was over.",
              "inference:call", e.JobFinished(**{**_STOPPED, "state": i.JOB_STATE_FAILED}), _OF_JOB,
              _job(i.JOB_STATE_FAILED, i.JOB_STATE_EXPIRED)),
    EventType("inference.job.cancelled", "A job was cancelled.", "inference:call",
              e.JobFinished(**{**_STOPPED, "state": i.JOB_STATE_CANCELLED}), _OF_JOB, _job(i.JOB_STATE_CANCELLED)),
    EventType("payment.succeeded", "A payment by card has come.", "billing:read",
              e.PaymentSettled(**_PAYMENT, succeeded=True), _OF_PAYMENT, lambda event: bool(event.succeeded)),
    EventType("payment.failed", "A payment by card was refused.", "billing:read",
              e.PaymentSettled(**_PAYMENT, failure_code="card_declined"), _OF_PAYMENT,
              lambda event: not event.succeeded),
    EventType("refund.succeeded", "A payment went back to the card.", "billing:read",
              e.PaymentReversed(**_REVERSAL, kind="refund", paid=True), _OF_REVERSAL, _reversal("refund", paid=True)),
    EventType("refund.failed", "A refund could not be paid; the wallet has the money again.", "billing:read",
              e.PaymentReversed(**_REVERSAL, kind="refund", failure_code="expired_or_canceled_card"), _OF_REVERSAL,
              _reversal("refund", paid=False)),
    EventType("dispute.lost", "A disputed payment went back to the card.", "billing:read",
              e.PaymentReversed(**_REVERSAL, kind="dispute", paid=True), _OF_REVERSAL,
              _reversal("dispute", paid=True)),
    EventType("dispute.won", "A disputed payment stays; the wallet has the money again.", "billing:read",
              e.PaymentReversed(**_REVERSAL, kind="dispute"), _OF_REVERSAL, _reversal("dispute", paid=False)),
    EventType("invoice.finalized", "An invoice is to be paid.", "billing:read",
              e.InvoiceChanged(**_INVOICE, status="open"), _OF_INVOICE,
              lambda event: event.status == "open" and not event.attempts),
    EventType("invoice.payment_failed", "An invoice could not be collected; `nextAttemptAt` says when it is tried "
              "again.", "billing:read",
              e.InvoiceChanged(**_INVOICE, status="open", attempts=1, failure_code="card_declined"), _OF_INVOICE,
              lambda event: event.status == "open" and event.attempts > 0),
    EventType("invoice.paid", "An invoice is paid; one of what was paid before is from the beginning.",
              "billing:read", e.InvoiceChanged(**_INVOICE, status="paid"), _OF_INVOICE, _status("paid")),
    EventType("invoice.uncollectible", "An invoice is not tried again.", "billing:read",
              e.InvoiceChanged(**_INVOICE, status="uncollectible", attempts=4), _OF_INVOICE,
              _status("uncollectible")),
    EventType("invoice.voided", "An invoice is given up.", "billing:read",
              e.InvoiceChanged(**_INVOICE, status="void"), _OF_INVOICE, _status("void")),
    EventType("subscription.updated", "A subscription was made, changed, could not be paid or ended.", "billing:read",
              e.SubscriptionChanged(**_SUBSCRIPTION),
              _fields("subscription_id", "plan_id", "model", "status", "cancel_at_period_end"), _always),
    EventType("auto_top_up.disabled", "Automatic top-ups were turned off: the card was refused too often.",
              "billing:read", e.AutoTopUpDisabled(failure_code="card_declined"), _fields("failure_code"), _always),
    EventType("budget.threshold_reached", "Calls have cost a part of a budget that you wanted to hear of.",
              "billing:read", e.BudgetThresholdReached(**_BUDGET), _OF_BUDGET, _always),
    EventType("quota.threshold_reached", "Calls of a day or a month have come to the soft end of a quota; they go on.",
              "keys:read", e.QuotaReached(**_QUOTA, limit_calls=40_000), _OF_QUOTA, lambda event: not event.hard),
    EventType("quota.exceeded", "A quota of a day or a month is used up: a call was refused, and so are all until "
              "`resetTime`.", "keys:read", e.QuotaReached(**_QUOTA, hard=True, limit_calls=50_000), _OF_QUOTA,
              lambda event: bool(event.hard)),
    EventType("call.refunded", "The price of a call was given back.", "billing:read", e.CallRefunded(**_REFUNDED),
              _fields("refund_id", "request_id", "amount_nanos"), _always),
    EventType("payout.created", "A payout of what your models earned is on its way.", "billing:read",
              e.PayoutChanged(**_PAYOUT, status="pending"), _OF_PAYOUT, _status("pending")),
    EventType("payout.paid", "A payout has arrived.", "billing:read", e.PayoutChanged(**_PAYOUT, status="paid"),
              _OF_PAYOUT, _status("paid")),
    EventType("payout.failed", "A payout could not be made.", "billing:read",
              e.PayoutChanged(**_PAYOUT, status="failed", failure_code="account_closed"), _OF_PAYOUT,
              _status("failed")),
    EventType("api_key.created", "An API key was made.", "keys:read", e.AuditRecorded(**_KEY), _OF_KEY,
              _done("CreateApiKey")),
    EventType("api_key.rotated", "An API key has another secret.", "keys:read", e.AuditRecorded(**_KEY), _OF_KEY,
              _done("RotateApiKey")),
    EventType("api_key.revoked", "An API key was revoked by somebody of yours.", "keys:read", e.AuditRecorded(**_KEY),
              _OF_KEY, _done("RevokeApiKey")),
    EventType("api_key.leaked", "Somebody has found a secret of an API key and sent it to us: it has ended.",
              "keys:read", e.AuditRecorded(**_KEY), _OF_KEY, _done("RevokeLeakedKey")),
    EventType("webhook_endpoint.disabled", "Another endpoint was disabled: it answered nothing but failures for days, "
              "or 410.", "webhooks:read", e.WebhookEndpointDisabled(**_ENDPOINT),
              _fields("endpoint_id", "url", "reason", "failing_since"), _always),
]  # fmt: skip
TYPES: Mapping[str, EventType] = {t.name: t for t in sorted(_ALL, key=lambda t: t.name)}
KINDS: list[type[Message]] = list(dict.fromkeys(t.source for t in _ALL if not t.callers))
KINDS_OF_CALLERS: list[type[Message]] = list(dict.fromkeys(t.source for t in _ALL if t.callers))


def types_of(event: Message) -> list[EventType]:
    """The types that an event is of: mostly one, or none."""
    return [t for t in TYPES.values() if t.source.DESCRIPTOR is event.DESCRIPTOR and t.applies(event)]
