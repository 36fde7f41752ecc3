"""`mercat.common.v1.CallLimit`: its checks, and its form in a column (jsonb, NULL: none)."""

from google.protobuf import json_format
from mercat.common.v1 import limits_pb2

from services.common.errors import InvalidFields, Violation


def column(limit: limits_pb2.CallLimit | None, field: str = "limit") -> str | None:
    """What is stored of a limit from a request.

    Raises:
        InvalidFields: it limits nothing, or contradicts itself.
    """
    if limit is None:
        return None
    wrong: list[Violation] = []
    if not limit.ByteSize():
        wrong.append(Violation(field, "limits nothing; leave it away to take a limit away"))
    if bool(limit.calls_per_second) != bool(limit.burst):
        missing = "burst" if limit.calls_per_second else "calls_per_second"
        wrong.append(Violation(f"{field}.{missing}", "calls_per_second and burst go together"))
    for name in ("daily", "monthly"):
        quota: limits_pb2.CallQuota = getattr(limit, name)
        if quota.hard and quota.soft > quota.hard:
            wrong.append(Violation(f"{field}.{name}.soft", "is above the hard quota"))
    if wrong:
        raise InvalidFields(violations=wrong)
    return json_format.MessageToJson(limit, indent=None)


def read(stored: str | None) -> limits_pb2.CallLimit | None:
    """The limit in a column."""
    return json_format.Parse(stored, limits_pb2.CallLimit()) if stored is not None else None
