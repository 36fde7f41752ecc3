"""What callers of a version are told that is on its way out or was taken back, and how they are refused in the end."""

import math
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import TypeAlias

from google.protobuf.timestamp_pb2 import Timestamp
from mercat.registry.v1 import registry_pb2

from services.common.errors import FailedPrecondition
from services.common.rpc.context import Call

_LONGEST = 300  # characters of a reason in a trailer
Notices: TypeAlias = tuple[tuple[str, str], ...]
_NAMES = {
    "mercat-deprecation", "mercat-sunset", "mercat-successor", "mercat-yanked", "deprecation", "sunset", "link",
}  # fmt: skip


class VersionRetired(FailedPrecondition, reason="VERSION_RETIRED"):
    """The version's sunset has come."""


def retires(proto: registry_pb2.Deployment, now: float, wall: datetime) -> float:
    """When calls are refused, in monotonic seconds of which `now` is the same moment as `wall`; infinite: never."""
    if proto.state == registry_pb2.VERSION_STATE_RETIRED:
        return now
    if not proto.deprecation.HasField("sunset_at"):
        return math.inf
    return now + (proto.deprecation.sunset_at.ToDatetime(UTC) - wall).total_seconds()


def refusal(proto: registry_pb2.Deployment) -> VersionRetired:
    """Names the successor."""
    told = proto.deprecation
    instead = f"; call {told.successor}" if told.successor else ""
    known = {"model": proto.model, "version": proto.version, "successor": told.successor}
    if told.HasField("sunset_at"):
        known["sunset_at"] = told.sunset_at.ToJsonString()
    return VersionRetired(f"{proto.model}@{proto.version} is retired{instead}", metadata=known)


def notices(proto: registry_pb2.Deployment) -> Notices:
    """Trailers of every call: `mercat-deprecation`, `mercat-sunset`, `mercat-successor` and `mercat-yanked`, and what
    HTTP has for them: `deprecation` (RFC 9745), `sunset` (RFC 8594), `link` with rel="successor-version" (RFC 5829)."""
    found: list[tuple[str, str]] = []
    if proto.HasField("deprecation"):
        told = proto.deprecation
        found += [("mercat-deprecation", _time(told.deprecated_at)), ("deprecation", f"@{told.deprecated_at.seconds}")]
        if told.HasField("sunset_at"):
            at = told.sunset_at.ToDatetime(UTC)
            found += [("mercat-sunset", _time(told.sunset_at)), ("sunset", format_datetime(at, usegmt=True))]
        if told.successor:
            model, _, version = told.successor.partition("@")
            path = f"/v1/models/{model}" + (f"/versions/{version}" if version else "")
            found += [("mercat-successor", told.successor), ("link", f'<{path}>; rel="successor-version"')]
    if proto.HasField("yank"):
        found.append(("mercat-yanked", _line(proto.yank.reason)))
    return tuple(found)


def pass_on(call: Call, opened: Call) -> None:
    """What the callers of an entry are told is told of the call that brought it, each once."""
    opened.trailers += [t for t in call.trailers if t[0] in _NAMES and t not in opened.trailers]


def _time(at: Timestamp) -> str:
    return f"{at.ToDatetime(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _line(text: str) -> str:
    """As the value of a header: one line of visible ASCII."""
    return " ".join("".join(c if " " < c <= "~" else "?" if c > "~" else " " for c in text).split())[:_LONGEST]
