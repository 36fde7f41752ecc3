"""What became of a version, as feeds tell it."""

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp
from mercat.marketplace.v1 import collections_pb2 as pb
from mercat.registry.v1 import registry_pb2 as r

from services.marketplace.endings import Ending, endings_of

BEGUN, SUNSET, YANKED = (Timestamp(seconds=1_790_000_000 + n) for n in (0, 100, 200))
NAMES = {"version": "1.0.0", "version_id": "ver_1"}


def at(moment: Timestamp) -> datetime:
    return moment.ToDatetime(UTC)


def test_what_is_published_has_no_ending() -> None:
    assert list(endings_of(r.Version(**NAMES, state=r.VERSION_STATE_PUBLISHED))) == []


def test_a_deprecation_and_its_sunset_and_a_yank_are_each_one() -> None:
    said = r.Deprecation(deprecated_at=BEGUN, sunset_at=SUNSET, successor="ada/adder", reason="old")
    version = r.Version(**NAMES, state=r.VERSION_STATE_DEPRECATED, deprecation=said)
    told = (at(SUNSET), "ada/adder", "old")
    deprecated = Ending("1.0.0", "ver_1", pb.FEED_ENTRY_KIND_DEPRECATED, at(BEGUN), *told)
    assert list(endings_of(version)) == [deprecated]
    version.state = r.VERSION_STATE_RETIRED
    version.yank.CopyFrom(r.Yank(yanked_at=YANKED, reason="wrong"))
    assert list(endings_of(version)) == [
        deprecated, Ending("1.0.0", "ver_1", pb.FEED_ENTRY_KIND_RETIRED, at(SUNSET), *told),
        Ending("1.0.0", "ver_1", pb.FEED_ENTRY_KIND_YANKED, at(YANKED), reason="wrong"),
    ]  # fmt: skip


def test_what_is_deprecated_for_ever_has_no_sunset() -> None:
    version = r.Version(**NAMES, state=r.VERSION_STATE_DEPRECATED, deprecation=r.Deprecation(deprecated_at=BEGUN))
    assert list(endings_of(version)) == [Ending("1.0.0", "ver_1", pb.FEED_ENTRY_KIND_DEPRECATED, at(BEGUN))]
