"""The feed: what is published by whom one follows, and what ends of that, of favourites and of what one calls."""

import json
import time
from datetime import UTC, datetime, timedelta

import httpx
from google.protobuf.timestamp_pb2 import Timestamp
from mercat.auth.v1 import auth_pb2
from mercat.marketplace.v1 import collections_pb2 as c
from mercat.registry.v1 import access_pb2, visibility_pb2
from mercat.registry.v1 import registry_pb2 as r

from tests import graphs
from tests.expect import until
from tests.integration.marketplace.test_discovery import listed, predict
from tests.platform import USD, Account, Platform

PUBLISHED, DEPRECATED, RETIRED, YANKED = (
    c.FEED_ENTRY_KIND_PUBLISHED, c.FEED_ENTRY_KIND_DEPRECATED, c.FEED_ENTRY_KIND_RETIRED, c.FEED_ENTRY_KIND_YANKED,
)  # fmt: skip


def entries(person: Account, size: int = 100) -> list[c.FeedEntry]:
    seen: list[c.FeedEntry] = []
    token = ""
    while True:
        answer = person.collections.ListFeed(c.ListFeedRequest(page_size=size, page_token=token))
        seen += answer.entries
        token = answer.next_page_token
        if not token:
            return seen


def feed(person: Account, size: int = 100) -> list[tuple[str, int]]:
    return [(f"{e.hit.model}@{e.version}", e.kind) for e in entries(person, size)]


def soon(person: Account, expected: list[tuple[str, int]]) -> None:
    """It takes a moment; within two seconds on a machine that nothing else uses."""
    deadline = time.monotonic() + 20
    while (seen := feed(person)) != expected:
        assert time.monotonic() < deadline, seen
        time.sleep(0.05)


def ahead(**by: float) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(datetime.now(UTC) + timedelta(**by))
    return stamp


def deprecate(owner: Account, model: str, **fields: object) -> None:
    owner.registry.DeprecateVersion(r.DeprecateVersionRequest(model=model, version="1.0.0", **fields))


def yank(owner: Account, model: str, version: str) -> None:
    owner.registry.YankVersion(r.YankVersionRequest(model=model, version=version, reason="wrong"))


def pair(platform: Platform, owner: Account) -> str:
    """A listed model of two versions."""
    model = platform.publish(owner, graphs.tiny())
    platform.publish(owner, graphs.tiny(seed=8), model.partition("/")[2], version="1.1.0")
    until(lambda: listed(platform, model))
    return model


def test_it_says_what_ends_of_whom_one_follows(platform: Platform) -> None:
    owner, person = platform.publisher(), platform.sign_up()
    model = pair(platform, owner)
    one, two = f"{model}@1.0.0", f"{model}@1.1.0"
    person.collections.FollowPublisher(c.FollowPublisherRequest(publisher=owner.profile.username))
    until(lambda: feed(person) == [(two, PUBLISHED), (one, PUBLISHED)])

    sunset = ahead(days=30)
    deprecate(owner, model, sunset_at=sunset, successor="1.1.0", reason="old")
    soon(person, [(one, DEPRECATED), (two, PUBLISHED)])
    entry = entries(person)[0]
    assert (entry.successor, entry.reason, entry.called) == (two, "old", False)
    assert entry.sunset_at.seconds == sunset.seconds
    assert entry.hit.summary
    assert not entry.HasField("published_at")
    assert abs(entry.time.seconds - time.time()) < 60
    yank(owner, model, "1.1.0")
    soon(person, [(two, YANKED), (one, DEPRECATED)])
    assert feed(person, size=1) == feed(person)
    owner.registry.UnyankVersion(r.UnyankVersionRequest(model=model, version="1.1.0"))
    soon(person, [(one, DEPRECATED), (two, PUBLISHED)])

    # Said anew it comes to the top, once; who is in the middle of the pages sees nothing twice.
    newer = platform.publish(owner, graphs.tiny(seed=9), model.partition("/")[2], version="1.2.0")
    soon(person, [(f"{newer}@1.2.0", PUBLISHED), (one, DEPRECATED), (two, PUBLISHED)])
    first = person.collections.ListFeed(c.ListFeedRequest(page_size=2))
    deprecate(owner, model, sunset_at=ahead(days=90), successor="1.1.0", reason="old")
    soon(person, [(one, DEPRECATED), (f"{newer}@1.2.0", PUBLISHED), (two, PUBLISHED)])
    rest = person.collections.ListFeed(c.ListFeedRequest(page_size=2, page_token=first.next_page_token))
    assert [(e.version, e.kind) for e in rest.entries] == [("1.1.0", PUBLISHED)]


def test_it_says_what_ends_of_favourites(platform: Platform) -> None:
    owner, person = platform.publisher(), platform.sign_up()
    model = pair(platform, owner)
    person.collections.AddFavourite(c.AddFavouriteRequest(model=model))
    until(lambda: len(feed(person)) == 2)
    yank(owner, model, "1.0.0")
    soon(person, [(f"{model}@1.0.0", YANKED), (f"{model}@1.1.0", PUBLISHED)])
    person.collections.RemoveFavourite(c.RemoveFavouriteRequest(model=model))
    assert feed(person) == []


def test_it_says_what_ends_of_what_one_calls(platform: Platform) -> None:
    owner, person, stranger = platform.publisher(), platform.sign_up(credit=USD), platform.sign_up()
    model = platform.publish(owner, graphs.tiny())
    one = f"{model}@1.0.0"
    until(lambda: listed(platform, model))
    predict(person, model)
    until(lambda: platform.value(f"SELECT count(*) FROM usage.usage_records WHERE model = '{model}'"))
    assert feed(person) == []  # new versions are for those who follow
    sunset = ahead(seconds=3)
    deprecate(owner, model, sunset_at=sunset, reason="old")
    soon(person, [(one, DEPRECATED)])
    assert entries(person)[0].called
    until(lambda: time.time() > sunset.seconds + 1)
    until(lambda: feed(person) == [(one, RETIRED), (one, DEPRECATED)])
    # Nothing of the model is listed any more, and its callers hear of it all the same.
    until(lambda: not listed(platform, model))
    retired = entries(person)[0]
    assert (retired.hit.model, retired.hit.summary) == (model, "")
    assert retired.time == retired.sunset_at
    assert feed(stranger) == []

    done = platform.command("feed", MERCAT_API_KEY=person.api_key)
    assert done.returncode == 0, done
    assert "retired" in done.stdout
    assert "you call it" in done.stdout
    said = json.loads(platform.command("feed", "--json", MERCAT_API_KEY=person.api_key).stdout)
    assert [e["kind"] for e in said["entries"]] == ["FEED_ENTRY_KIND_RETIRED", "FEED_ENTRY_KIND_DEPRECATED"]
    headers = {"authorization": f"Bearer {person.api_key}"}
    answer = httpx.get(f"{platform.rest}/v1/feed", params={"pageSize": 1}, headers=headers).json()
    assert [(e["hit"]["model"], e["reason"], e["called"]) for e in answer["entries"]] == [(model, "old", True)]


def test_what_became_private_is_in_no_feed(platform: Platform) -> None:
    owner, person = platform.publisher(), platform.sign_up(credit=USD)
    model = pair(platform, owner)
    predict(person, model)
    deprecate(owner, model)
    until(lambda: feed(person) == [(f"{model}@1.0.0", DEPRECATED)])

    def see(visibility: "visibility_pb2.Visibility.ValueType") -> None:
        owner.access.SetModelVisibility(access_pb2.SetModelVisibilityRequest(model=model, visibility=visibility))

    see(visibility_pb2.VISIBILITY_PRIVATE)
    soon(person, [])
    yank(owner, model, "1.0.0")
    time.sleep(1)
    assert feed(person) == []
    see(visibility_pb2.VISIBILITY_PUBLIC)
    soon(person, [(f"{model}@1.0.0", YANKED), (f"{model}@1.0.0", DEPRECATED)])


def test_it_is_made_anew_from_the_registry(platform: Platform) -> None:
    owner, person = platform.publisher(), platform.sign_up()
    model = pair(platform, owner)
    person.collections.AddFavourite(c.AddFavouriteRequest(model=model))
    deprecate(owner, model, reason="old")
    until(lambda: feed(person) == [(f"{model}@1.0.0", DEPRECATED), (f"{model}@1.1.0", PUBLISHED)])
    before = entries(person)
    platform.value("DELETE FROM marketplace.endings")
    assert len(feed(person)) == 1
    key = platform.admin().auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name="tests")).secret
    done = platform.command("reindex", MERCAT_API_KEY=key)
    assert done.returncode == 0, done
    assert entries(person) == before


def test_a_token_of_another_list_is_refused(platform: Platform) -> None:
    person = platform.sign_up()
    answer = httpx.get(
        f"{platform.rest}/v1/feed", params={"pageToken": "WzFd"}, headers={"authorization": f"Bearer {person.api_key}"}
    )
    assert answer.status_code == 400
    assert "page_token" in answer.text
