"""Publishers: what they say of themselves, what is known of them, and whose name they may not take."""

import secrets

import pytest
from mercat.auth.v1 import auth_pb2, sso_pb2
from mercat.marketplace.v1 import collections_pb2
from mercat.marketplace.v1 import publishers_pb2 as pb
from mercat.registry.v1 import access_pb2, visibility_pb2

from tests import graphs
from tests.expect import fails, until
from tests.platform import Account, Platform


def shown(person: Account, publisher: str) -> pb.Publisher:
    return person.publishers.GetPublisher(pb.GetPublisherRequest(publisher=publisher)).publisher  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def owner(platform: Platform) -> Account:
    return platform.organisation(platform.sign_up(auth_pb2.ROLE_PUBLISHER))


def test_a_publisher_is_who_has_published(platform: Platform, owner: Account) -> None:
    handle, reader = owner.profile.organisation, platform.sign_up()
    hidden = fails(reader.publishers.GetPublisher, pb.GetPublisherRequest(publisher=handle))
    nobody = fails(reader.publishers.GetPublisher, pb.GetPublisherRequest(publisher="nobody"))
    assert hidden.reason == nobody.reason == "PUBLISHER_NOT_FOUND"
    public, private = (platform.publish(owner, graphs.tiny()) for _ in range(2))
    hide = access_pb2.SetModelVisibilityRequest(model=private, visibility=visibility_pb2.VISIBILITY_PRIVATE)
    owner.access.SetModelVisibility(hide)
    until(lambda: _models(reader, handle) == [public])
    reader.collections.FollowPublisher(collections_pb2.FollowPublisherRequest(publisher=handle))
    found = shown(platform.anonymous, handle)
    assert (found.model_count, found.follower_count, found.review_count, found.verified) == (1, 1, 0, False)

    name = f"Acme {secrets.token_hex(4)}"
    domain = f"{handle}.example"
    said = pb.SetPublisherProfileRequest(display_name=name, about="We add.", website=f"https://www.{domain}/models")
    owner.publishers.SetPublisherProfile(said)
    found = shown(reader, handle)
    assert (found.display_name, found.about, found.verified) == (name, "We add.", False)
    owner.sso.AddSsoDomain(sso_pb2.AddSsoDomainRequest(domain=domain))
    assert not shown(reader, handle).verified
    platform.value(f"UPDATE auth.sso_domains SET verified_at = now() WHERE domain = '{domain}' RETURNING domain")
    assert shown(reader, handle).verified

    other = platform.publisher()
    for like in (name, name.upper().replace(" ", "-"), handle):
        taken = fails(other.publishers.SetPublisherProfile, pb.SetPublisherProfileRequest(display_name=like))
        assert taken.reason == "DISPLAY_NAME_TAKEN"
        assert taken.violations[0].field == "display_name"
    foreign = pb.SetPublisherProfileRequest(display_name="\u0410cme")  # a Cyrillic letter
    assert fails(other.publishers.SetPublisherProfile, foreign).reason == "INVALID_FIELDS"
    said = pb.SetPublisherProfileRequest(display_name=owner.profile.organisation)
    owner.publishers.SetPublisherProfile(said)  # its own
    assert shown(reader, handle).website == ""
    done = platform.command("publisher", "show", handle, MERCAT_API_KEY=reader.api_key)
    assert public in done.stdout, done.stderr


def _models(person: Account, publisher: str) -> list[str]:
    try:
        return [hit.model for hit in shown(person, publisher).models]
    except Exception:  # not listed yet
        return []
