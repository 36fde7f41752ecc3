"""What became of a version, as feeds tell it. Pure."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from mercat.marketplace.v1 import collections_pb2 as pb
from mercat.registry.v1 import registry_pb2


class Ending(NamedTuple):
    version: str
    version_id: str
    kind: int
    at: datetime
    sunset_at: datetime | None = None
    successor: str = ""
    reason: str = ""


def endings_of(version: registry_pb2.Version) -> Iterator[Ending]:
    """That it was deprecated, retired, yanked: what of these it is now, each from its own moment on."""
    names = (version.version, version.version_id)
    if version.HasField("deprecation"):
        said = version.deprecation
        sunset = said.sunset_at.ToDatetime(UTC) if said.HasField("sunset_at") else None
        begun = said.deprecated_at.ToDatetime(UTC)
        yield Ending(*names, pb.FEED_ENTRY_KIND_DEPRECATED, begun, sunset, said.successor, said.reason)
        if version.state == registry_pb2.VERSION_STATE_RETIRED and sunset is not None:
            yield Ending(*names, pb.FEED_ENTRY_KIND_RETIRED, sunset, sunset, said.successor, said.reason)
    if version.HasField("yank"):
        yank = version.yank
        yield Ending(*names, pb.FEED_ENTRY_KIND_YANKED, yank.yanked_at.ToDatetime(UTC), reason=yank.reason)
