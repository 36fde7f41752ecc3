"""The one error model. A MercatError has a canonical gRPC code and a stable reason; it is encoded once, as
google.rpc.Status, by the server pipeline, and rebuilt as the same class by the client side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

DOMAIN = "mercat"
STATUS_KEY = "grpc-status-details-bin"


@dataclass(frozen=True)
class Violation:
    """A field of the request and what is wrong with it."""

    field: str
    description: str


class MercatError(Exception):
    """An error a caller may see. Subclasses fix `code` and a default `reason`."""

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.INTERNAL
    reason: str = "INTERNAL"
    _by_reason: ClassVar[dict[str, type["MercatError"]]] = {}
    _by_code: ClassVar[dict[int, type["MercatError"]]] = {}

    def __init_subclass__(cls, *, code: grpc.StatusCode | None = None, reason: str = "") -> None:
        if code is not None:
            cls.code = code
            cls._by_code[code.value[0]] = cls
        cls.reason = reason or cls.code.name
        cls._by_reason[cls.reason] = cls

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[Violation] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        if reason:
            self.reason = reason
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)
        self.retry_after = retry_after  # seconds

    @property
    def retryable(self) -> bool:
        """Whether the same call may succeed later without anything being changed."""
        return self.code in _RETRYABLE


class InvalidArgument(MercatError, code=grpc.StatusCode.INVALID_ARGUMENT): ...


class Unauthenticated(MercatError, code=grpc.StatusCode.UNAUTHENTICATED): ...


class PermissionDenied(MercatError, code=grpc.StatusCode.PERMISSION_DENIED): ...


class NotFound(MercatError, code=grpc.StatusCode.NOT_FOUND): ...


class AlreadyExists(MercatError, code=grpc.StatusCode.ALREADY_EXISTS): ...


class FailedPrecondition(MercatError, code=grpc.StatusCode.FAILED_PRECONDITION): ...


class ResourceExhausted(MercatError, code=grpc.StatusCode.RESOURCE_EXHAUSTED): ...


class Aborted(MercatError, code=grpc.StatusCode.ABORTED): ...


class OutOfRange(MercatError, code=grpc.StatusCode.OUT_OF_RANGE): ...


class Unavailable(MercatError, code=grpc.StatusCode.UNAVAILABLE): ...


class DatabaseUnavailable(Unavailable, reason="DATABASE_UNAVAILABLE"):
    """The database was away; what was under way in it was rolled back, or its end is not known."""


class DeadlineExceeded(MercatError, code=grpc.StatusCode.DEADLINE_EXCEEDED): ...


class Unimplemented(MercatError, code=grpc.StatusCode.UNIMPLEMENTED): ...


class DataLoss(MercatError, code=grpc.StatusCode.DATA_LOSS): ...


class Internal(MercatError, code=grpc.StatusCode.INTERNAL): ...


class EngineFailed(Internal, reason="ENGINE_FAILED"):
    """The engine failed in a run; the caller is not charged."""


class InvalidFields(InvalidArgument, reason="INVALID_FIELDS"):
    """Fields of the request break their rules; `violations` names them."""

    def __init__(self, message: str = "", *, violations: Sequence[Violation] = (), **kwargs: object) -> None:
        text = message or "; ".join(f"{v.field}: {v.description}" for v in violations)
        super().__init__(text, violations=violations, **kwargs)  # type: ignore[arg-type]


class Malformed(InvalidArgument, reason="MALFORMED"):
    """The bytes of the request are not of its type."""


class CredentialMissing(Unauthenticated, reason="CREDENTIAL_MISSING"): ...


class CredentialInvalid(Unauthenticated, reason="CREDENTIAL_INVALID"): ...


class SsoRequired(Unauthenticated, reason="SSO_REQUIRED"):
    """The organisation wants its people to sign in by its provider; the metadata names its domain."""

    def __init__(self, domain: str) -> None:
        text = f"people of {domain} sign in by their organisation: `mercat login --sso {domain}`"
        super().__init__(text, metadata={"domain": domain})


class StepUpRequired(Unauthenticated, reason="STEP_UP_REQUIRED"):
    """Who calls must prove again who they are (RFC 9470). The metadata says how (`with`: code or
    password), what level it takes (`acr_values`) and for how many seconds it is good (`max_age`)."""


class EmailUnverified(PermissionDenied, reason="EMAIL_UNVERIFIED"): ...


class RateLimited(ResourceExhausted, reason="RATE_LIMITED"): ...


class QuotaExceeded(ResourceExhausted, reason="QUOTA_EXCEEDED"): ...


class InsufficientCredit(ResourceExhausted, reason="INSUFFICIENT_CREDIT"): ...


class BudgetExceeded(ResourceExhausted, reason="BUDGET_EXCEEDED"): ...


class ModelNotFound(NotFound, reason="MODEL_NOT_FOUND"):
    """There is none that the caller may know of: whether there is one is not told."""

    @classmethod
    def to_call(cls, model: str) -> "ModelNotFound":
        """What every call of it ends with."""
        return cls(f"there is no model {model} that can be called; find one with `mercat search`")


class UsageRecordNotFound(NotFound, reason="USAGE_RECORD_NOT_FOUND"):
    """The caller has no such call, or it is not recorded yet."""

    def __init__(self, message: str = "you have no such call; one shows up within a second", **kwargs: object) -> None:
        super().__init__(message, **kwargs)  # type: ignore[arg-type]


class EtagMismatch(Aborted, reason="ETAG_MISMATCH"): ...


class IdempotencyKeyReused(FailedPrecondition, reason="IDEMPOTENCY_KEY_REUSED"): ...


class IdempotencyKeyRunning(Aborted, reason="IDEMPOTENCY_KEY_RUNNING"): ...


_RETRYABLE = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.INTERNAL,
}


def _pack(
    message: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo,
) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


def to_status(error: MercatError, request_id: str = "") -> status_pb2.Status:
    """The wire form: google.rpc.Status with ErrorInfo and, where they apply, BadRequest and RetryInfo."""
    metadata = {**error.metadata, "request_id": request_id} if request_id else error.metadata
    details = [_pack(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata))]
    if error.violations:
        bad = error_details_pb2.BadRequest()
        for violation in error.violations:
            bad.field_violations.add(field=violation.field, description=violation.description)
        details.append(_pack(bad))
    if error.retry_after is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(error.retry_after * 1e9))
        details.append(_pack(error_details_pb2.RetryInfo(retry_delay=delay)))
    return status_pb2.Status(code=error.code.value[0], message=error.message, details=details)


def from_status(status: status_pb2.Status) -> MercatError:
    """Rebuilds the error that `to_status` encoded; a status of somebody else's becomes the class of its code."""
    info = error_details_pb2.ErrorInfo()
    bad = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    retry_after: float | None = None
    for detail in status.details:
        if not (detail.Unpack(info) or detail.Unpack(bad)) and detail.Unpack(retry):
            retry_after = retry.retry_delay.ToNanoseconds() / 1e9
    cls = MercatError._by_reason.get(info.reason)
    if cls is None or cls.code.value[0] != status.code:
        cls = MercatError._by_code.get(status.code, Internal)
    error = cls.__new__(cls)  # a subclass may be made in a way of its own
    MercatError.__init__(
        error,
        status.message,
        reason=info.reason or code_pb2.Code.Name(status.code),
        metadata=dict(info.metadata),
        violations=[Violation(v.field, v.description) for v in bad.field_violations],
        retry_after=retry_after,
    )
    return error


def from_rpc_error(error: grpc.RpcError) -> MercatError:
    """Rebuilds an error from what a gRPC client raised."""
    try:
        status = rpc_status.from_call(error)  # type: ignore[arg-type]
    except ValueError:
        status = None
    if status is None:
        code: grpc.StatusCode = error.code()
        if code is grpc.StatusCode.INTERNAL and "RST_STREAM" in (error.details() or ""):
            # The process behind the front door is gone, and a reply that has begun can only be broken off.
            return Unavailable("the connection broke in the middle of the answer", reason="CONNECTION_BROKEN")
        status = status_pb2.Status(code=code.value[0], message=error.details() or code.name)
    return from_status(status)
