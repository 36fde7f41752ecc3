"""Whether a publisher is verified, and what it calls itself, wherever its models are listed: as domains are proven and
given up at a real name server."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from mercat.auth.v1 import signin_pb2, sso_pb2
from mercat.marketplace.v1 import collections_pb2, discovery_pb2
from mercat.marketplace.v1 import marketplace_pb2 as m
from mercat.marketplace.v1 import publishers_pb2 as pb

from tests import graphs
from tests.dns_server import DnsServer
from tests.expect import until
from tests.integration.signin.companies import Company
from tests.integration.signin.people import Mailbox
from tests.integration.signin.test_mail import people
from tests.platform import Account, Platform


@pytest.fixture
def models(platform: Platform, unproved: Company, mailbox: Mailbox) -> tuple[str, str]:
    """Two of a company's that are listed, whose task is its handle."""
    owner = unproved.owner
    people(platform).passwords.VerifyEmail(signin_pb2.VerifyEmailRequest(code=mailbox.code(owner.email)))
    one, two = (platform.publish(owner, graphs.tiny()) for _ in range(2))
    until(lambda: {one, two} <= set(marks(platform.anonymous, unproved.handle)))
    return one, two


def marks(person: Account, publisher: str, **more: Any) -> dict[str, m.PublisherMark]:
    """By search."""
    request = m.SearchModelsRequest(publisher=publisher, **more)
    return {hit.model: hit.publisher for hit in person.marketplace.SearchModels(request).hits}


def everywhere(person: Account, one: str, two: str, collection: str) -> list[m.PublisherMark]:
    """What the first model is marked with, in each way to it."""
    similar = person.marketplace.ListSimilarModels(m.ListSimilarModelsRequest(model=two, page_size=50)).hits
    board = discovery_pb2.GetLeaderboardRequest(board="cheapest", task="test", limit=100)
    compared = person.discovery.CompareModels(discovery_pb2.CompareModelsRequest(models=[one, two])).models
    related = person.discovery.ListRelatedModels(discovery_pb2.ListRelatedModelsRequest(model=two, page_size=50)).models
    got = person.collections.GetCollection(collections_pb2.GetCollectionRequest(collection_id=collection)).collection
    hits = [
        *similar, *person.discovery.GetLeaderboard(board).hits, *(r.hit for r in related), *got.models,
        *person.collections.ListFavourites(collections_pb2.ListFavouritesRequest()).hits,
        *(e.hit for e in person.collections.ListFeed(collections_pb2.ListFeedRequest()).entries),
        *person.publishers.GetPublisher(pb.GetPublisherRequest(publisher=one.partition("/")[0])).publisher.models,
    ]  # fmt: skip
    found = [hit.publisher for hit in hits if hit.model == one]
    found += [c.listing.publisher for c in compared if c.listing.model.model == one]
    found.append(person.marketplace.GetListing(m.GetListingRequest(model=one)).listing.publisher)
    found.append(marks(person, one.partition("/")[0])[one])
    return found


def soon(condition: Callable[[], object]) -> None:
    """Two seconds on a machine that does nothing else."""
    until(condition, 5)


def test_a_mark_is_wherever_models_are_listed(
    platform: Platform, unproved: Company, names: DnsServer, models: tuple[str, str]
) -> None:
    one, two = models
    company, owner, handle = unproved, unproved.owner, unproved.handle
    reader = platform.sign_up()
    made = reader.collections.CreateCollection(collections_pb2.CreateCollectionRequest(title="kept")).collection
    add = collections_pb2.AddToCollectionRequest(collection_id=made.collection_id, model=one)
    reader.collections.AddToCollection(add)
    reader.collections.AddFavourite(collections_pb2.AddFavouriteRequest(model=one))
    reader.collections.FollowPublisher(collections_pb2.FollowPublisherRequest(publisher=handle))
    found = everywhere(reader, one, two, made.collection_id)
    assert len(found) >= 8
    assert set(map(str, found)) == {str(m.PublisherMark(publisher=handle))}
    assert marks(reader, handle, verified=True) == {}

    # Its name is another at once, and it is verified as soon as the domain of its website is proven.
    website = f"https://www.{company.domain}"
    owner.publishers.SetPublisherProfile(pb.SetPublisherProfileRequest(display_name=f"Co {handle}", website=website))
    named = m.PublisherMark(publisher=handle, display_name=f"Co {handle}")
    assert set(map(str, everywhere(reader, one, two, made.collection_id))) == {str(named)}
    company.prove(names)
    soon(lambda: marks(reader, handle, verified=True).keys() == {one, two})
    named.verified = True
    assert set(map(str, everywhere(reader, one, two, made.collection_id))) == {str(named)}
    facets = {
        f.field: f.counts for f in reader.marketplace.SearchModels(m.SearchModelsRequest(publisher=handle)).facets
    }
    assert dict(facets["verified"]) == {"yes": 2}

    # REST and the command line.
    answer = httpx.get(f"{platform.rest}/v1/search", params={"publisher": handle, "verified": "true"}).json()
    assert answer["hits"][0]["publisher"] == {"publisher": handle, "displayName": f"Co {handle}", "verified": True}
    key = {"MERCAT_API_KEY": reader.api_key, "COLUMNS": "200"}
    for words in (
        ("search", "--publisher", handle, "--verified"), ("models", "show", one), ("explore", "compare", one, two),
        ("similar", two), ("publisher", "show", handle), ("favourites", "list"),
    ):  # fmt: skip
        done = platform.command(*words, **key)
        assert "✓" in done.stdout, (words, done.stdout, done.stderr)
        assert f"Co {handle}" in done.stdout, words
    done = platform.command("search", "--publisher", handle, "--json", **key)
    assert json.loads(done.stdout)["hits"][0]["publisher"]["verified"] is True

    # Another website is not proven, and the first one again is.
    owner.publishers.SetPublisherProfile(
        pb.SetPublisherProfileRequest(display_name=f"Co {handle}", website="https://x.example")
    )
    soon(lambda: not marks(reader, handle, verified=True))
    owner.publishers.SetPublisherProfile(pb.SetPublisherProfileRequest(website=website))
    soon(lambda: marks(reader, handle, verified=True).keys() == {one, two})
    assert marks(reader, handle)[one] == m.PublisherMark(publisher=handle, verified=True)
    owner.sso.RemoveSsoDomain(sso_pb2.RemoveSsoDomainRequest(domain=company.domain, force=True))
    soon(lambda: not marks(reader, handle, verified=True))
    assert marks(reader, handle)[one] == m.PublisherMark(publisher=handle)


def test_who_is_verified_is_a_publisher_and_who_is_private_is_not(
    platform: Platform, unproved: Company, names: DnsServer
) -> None:
    """Without any model: it has said who it is, and proven it."""
    show = pb.GetPublisherRequest(publisher=unproved.handle)
    said = pb.SetPublisherProfileRequest(about="We begin.", website=f"https://{unproved.domain}/")
    unproved.owner.publishers.SetPublisherProfile(said)

    def about() -> str:
        try:
            return str(platform.anonymous.publishers.GetPublisher(show).publisher.about)
        except Exception:  # not known
            return ""

    assert about() == ""
    unproved.prove(names)
    soon(lambda: about() == "We begin.")
