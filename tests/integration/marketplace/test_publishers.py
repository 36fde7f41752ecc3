"""Publishers: what they say of themselves, what is known of them, and whose name they may not take."""

import secrets

import pytest
from mercat.auth.v1 import auth_pb2, sso_pb2
from mercat.marketplace.v1 import collections_pb2, marketplace_pb2
from mercat.marketplace.v1 import publishers_pb2 as pb
from mercat.registry.v1 import access_pb2, registry_pb2, transfer_pb2, visibility_pb2

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
    # What nobody was told of is found out when the index is built anew.
    platform.value(f"UPDATE auth.sso_domains SET verified_at = now() WHERE domain = '{domain}' RETURNING domain")
    platform.admin().marketplace.RebuildIndex(marketplace_pb2.RebuildIndexRequest())
    assert shown(reader, handle).verified
    only = marketplace_pb2.SearchModelsRequest(publisher=handle, verified=True)
    assert [hit.publisher.verified for hit in reader.marketplace.SearchModels(only).hits] == [True]

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


def test_a_publisher_whose_models_are_deprecated_or_handed_on_is_one(platform: Platform) -> None:
    """What can still be called says whose it is."""
    owner, reader = platform.organisation(platform.publisher()), platform.sign_up()
    handle = owner.profile.organisation
    model = platform.publish(owner, graphs.tiny())
    until(lambda: _models(reader, handle) == [model])
    deprecate = registry_pb2.DeprecateVersionRequest(model=model, version="1.0.0", reason="old")
    owner.registry.DeprecateVersion(deprecate)
    listed = marketplace_pb2.GetListingRequest(model=model)
    until(lambda: not platform.value(f"SELECT count(*) FROM marketplace.listings WHERE model = '{model}'"))
    assert fails(reader.marketplace.GetListing, listed).reason == "MODEL_NOT_FOUND"
    found = shown(reader, handle)
    assert (found.publisher, found.model_count) == (handle, 0)
    reader.collections.FollowPublisher(collections_pb2.FollowPublisherRequest(publisher=handle))
    done = platform.command("publisher", "show", handle, MERCAT_API_KEY=reader.api_key)
    assert handle in done.stdout, done.stderr

    hide = access_pb2.SetModelVisibilityRequest(model=model, visibility=visibility_pb2.VISIBILITY_PRIVATE)
    owner.access.SetModelVisibility(hide)
    assert fails(reader.publishers.GetPublisher, pb.GetPublisherRequest(publisher=handle)).reason == (
        "PUBLISHER_NOT_FOUND"
    )
    owner.access.SetModelVisibility(access_pb2.SetModelVisibilityRequest(model=model, visibility=1))
    other = platform.organisation(platform.publisher())
    offer = transfer_pb2.TransferModelRequest(model=model, organisation=other.profile.organisation)
    transfer_id = owner.transfers.TransferModel(offer).transfer.transfer_id
    other.transfers.AcceptModelTransfer(transfer_pb2.AcceptModelTransferRequest(transfer_id=transfer_id))
    assert shown(reader, handle).publisher == handle  # its address leads there
    assert shown(reader, other.profile.organisation).model_count == 0
