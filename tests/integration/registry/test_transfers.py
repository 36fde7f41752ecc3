"""Models that go to another organisation, as owners and callers meet them."""

import secrets
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from mercat.auth.v1 import audit_pb2, auth_pb2
from mercat.billing.v1 import billing_pb2, payments_pb2, plans_pb2, prices_pb2
from mercat.inference.v1 import inference_pb2
from mercat.marketplace.v1 import collections_pb2, marketplace_pb2, reviews_pb2
from mercat.registry.v1 import registry_pb2
from mercat.registry.v1 import transfer_pb2 as pb
from mercat.storage.v1 import storage_pb2

from tests import graphs
from tests.expect import fails, until
from tests.platform import USD, Account, Platform

PRICE = {"requests": 1000 * USD}  # a tenth of a cent for each
CENT_TENTH = USD // 1000


@pytest.fixture
def owner(platform: Platform) -> Account:
    return platform.organisation(platform.sign_up(auth_pb2.ROLE_PUBLISHER))


@pytest.fixture
def other(platform: Platform) -> Account:
    return platform.organisation(platform.sign_up(auth_pb2.ROLE_PUBLISHER))


def call(person: Account, model: str) -> Any:
    x = inference_pb2.Tensor(name="x", datatype="FP32", shape=[1, 4], raw=bytes(16))
    return person.inference.Predict(inference_pb2.PredictRequest(model=model, inputs=[x]))


def offer(owner: Account, model: str, other: Account, **more: str) -> pb.ModelTransfer:
    request = pb.TransferModelRequest(model=model, organisation=other.profile.organisation, **more)
    made: pb.ModelTransfer = owner.transfers.TransferModel(request).transfer
    return made


def accept(other: Account, transfer: pb.ModelTransfer, name: str = "") -> registry_pb2.Model:
    request = pb.AcceptModelTransferRequest(transfer_id=transfer.transfer_id, name=name)
    model: registry_pb2.Model = other.transfers.AcceptModelTransfer(request).model
    return model


def draft(owner: Account, name: str) -> str:
    request = registry_pb2.CreateModelRequest(name=name, summary="s", category="other", task="test", license="MIT")
    return str(owner.registry.CreateModel(request).model.model)


def known(person: Account, model: str) -> registry_pb2.Model:
    found: registry_pb2.Model = person.registry.GetModel(registry_pb2.GetModelRequest(model=model)).model
    return found


def known_version(person: Account, model: str) -> registry_pb2.Version:
    request = registry_pb2.GetVersionRequest(model=model, version="1.0.0")
    found: registry_pb2.Version = person.registry.GetVersion(request).version
    return found


def downloaded(person: Account, request: storage_pb2.DownloadArtifactRequest) -> bytes:
    try:
        return b"".join(piece.chunk.data for piece in person.storage.DownloadArtifact(request))
    except grpc.RpcError:
        return b""


def test_no_call_fails_while_a_model_moves_and_each_earns_once(
    platform: Platform, owner: Account, other: Account
) -> None:
    caller = platform.sign_up(credit=10 * USD)
    model = platform.publish(owner, graphs.tiny(), price=PRICE)
    alias = registry_pb2.SetAliasRequest(model=model, alias="stable", version="1.0.0")
    owner.registry.SetAlias(alias)
    references = [model, f"{model}@1.0.0", f"{model}:stable"]
    for reference in references:
        call(caller, reference)
    made, failed, stop = [len(references)], [], threading.Event()

    def go_on() -> None:
        while not stop.is_set():
            for reference in references:
                try:
                    call(caller, reference)
                    made[0] += 1
                except grpc.RpcError as e:
                    failed.append(e)

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        time.sleep(0.5)
        moved = accept(other, offer(owner, model, other))
        until(lambda: other.earned() > 0)
    finally:
        stop.set()
        thread.join()
    assert not failed
    name = model.partition("/")[2]
    assert (moved.model, moved.org_id) == (f"{other.profile.organisation}/{name}", other.profile.org_id)
    reply = call(caller, moved.model)
    assert reply.model == moved.model
    assert call(caller, f"{model}:stable").model == moved.model
    made[0] += 2
    until(lambda: 10 * USD - caller.balance() == made[0] * CENT_TENTH)
    until(lambda: owner.earned() + other.earned() == made[0] * (CENT_TENTH - CENT_TENTH // 5), 30)
    got = known_version(other, moved.model)
    download = storage_pb2.DownloadArtifactRequest(digest=got.digest)
    until(lambda: downloaded(other, download) == graphs.tiny())  # which its new owner may have
    before = owner.earned()
    call(caller, model)
    until(lambda: owner.earned() + other.earned() == (made[0] + 1) * (CENT_TENTH - CENT_TENTH // 5))
    assert owner.earned() == before  # what was earned before stays, nothing comes to it
    until(lambda: not platform.admin().check_ledger().discrepancies)


def test_the_address_before_leads_there_until_it_is_taken_anew(
    platform: Platform, owner: Account, other: Account
) -> None:
    caller = platform.sign_up(credit=USD)
    model = platform.publish(owner, graphs.tiny())
    name = model.partition("/")[2]
    listed = marketplace_pb2.GetListingRequest(model=model)

    def counted() -> int:
        """Calls that its listing shows; -1 while there is no listing yet."""
        try:
            return int(caller.marketplace.GetListing(listed).listing.total_requests)
        except grpc.RpcError:
            return -1

    until(lambda: counted() == 0)
    call(caller, model)
    until(lambda: counted() == 1)
    moved = accept(other, offer(owner, model, other), "renamed")
    assert moved.model == f"{other.profile.organisation}/renamed"
    assert known(caller, model).model == moved.model
    found = marketplace_pb2.GetListingRequest(model=moved.model)

    def shown() -> bool:
        try:
            return bool(caller.marketplace.GetListing(found).listing.total_requests == 1)
        except grpc.RpcError:
            return False

    until(shown)
    until(lambda: caller.marketplace.GetListing(listed).listing.model.model == moved.model)
    hits = caller.marketplace.SearchModels(marketplace_pb2.SearchModelsRequest(query=name)).hits
    assert model not in [h.model for h in hits]
    assert fails(owner.registry.UpdateModel, registry_pb2.UpdateModelRequest(model=model, summary="mine")).reason == (
        "MODEL_NOT_FOUND"
    )
    other.registry.UpdateModel(registry_pb2.UpdateModelRequest(model=model, summary="theirs"))
    platform.value(
        "UPDATE registry.model_addresses SET left_at = left_at - interval '180 days'"
        f" WHERE name = '{name}' RETURNING name"
    )
    anew = draft(owner, name)
    assert anew == model
    assert known(owner, model).model_id != moved.model_id
    # And back: the address is the new model's now.
    transfer = offer(other, moved.model, owner)
    assert [v.field for v in fails(
        owner.transfers.AcceptModelTransfer, pb.AcceptModelTransferRequest(transfer_id=transfer.transfer_id, name=name)
    ).violations] == ["name"]  # fmt: skip
    back = accept(owner, transfer, "again")
    assert (back.model_id, back.model) == (moved.model_id, f"{owner.profile.organisation}/again")
    assert known(caller, moved.model).model == back.model


def test_files_beside_its_versions_are_the_new_owners_too(platform: Platform, owner: Account, other: Account) -> None:
    model = draft(owner, "carded")
    card = f"# {secrets.token_hex(8)}\n".encode()
    file = registry_pb2.VersionFile(
        name="README.md", role=registry_pb2.FILE_ROLE_CARD, digest=platform.upload(owner, card)
    )
    version = registry_pb2.CreateVersionRequest(
        model=model, version="1.0.0", digest=platform.upload(owner, graphs.tiny()), files=[file]
    )
    owner.registry.CreateVersion(version)
    platform.until_validated(owner, model, "1.0.0")
    download = storage_pb2.DownloadArtifactRequest(digest=file.digest)
    assert downloaded(other, download) == b""
    accept(other, offer(owner, model, other))
    until(lambda: downloaded(other, download) == card)


def test_what_was_said_of_it_and_kept_of_it_goes_along(platform: Platform, owner: Account, other: Account) -> None:
    caller = platform.sign_up(credit=USD)
    model = platform.publish(owner, graphs.tiny())
    call(caller, model)
    write = reviews_pb2.WriteReviewRequest(model=model, version="1.0.0", rating=4, comment="good")

    def written() -> bool:
        try:  # a call shows up within a second
            return bool(caller.reviews.WriteReview(write).review.review_id)
        except grpc.RpcError:
            return False

    until(written)
    collection = caller.collections.CreateCollection(collections_pb2.CreateCollectionRequest(title="picks")).collection
    place = collections_pb2.AddToCollectionRequest(collection_id=collection.collection_id, model=model)
    caller.collections.AddToCollection(place)
    caller.collections.AddFavourite(collections_pb2.AddFavouriteRequest(model=model))
    moved = accept(other, offer(owner, model, other), "renamed").model

    def listed() -> marketplace_pb2.Listing | None:
        try:
            found: marketplace_pb2.Listing = platform.anonymous.marketplace.GetListing(
                marketplace_pb2.GetListingRequest(model=moved)
            ).listing
        except grpc.RpcError:
            return None
        return found if found.model.model == moved else None

    until(lambda: listed() is not None)
    found = listed()
    assert found is not None
    assert (found.review_count, found.rating) == (1, 4)
    reviews = platform.anonymous.reviews.ListModelReviews(reviews_pb2.ListModelReviewsRequest(model=moved)).reviews
    assert [(r.model, r.author, r.comment) for r in reviews] == [(moved, caller.profile.username, "good")]
    get = collections_pb2.GetCollectionRequest(collection_id=collection.collection_id)
    kept = caller.collections.ListFavourites(collections_pb2.ListFavouritesRequest()).hits
    for hits in (caller.collections.GetCollection(get).collection.models, kept):
        assert [hit.model for hit in hits] == [moved]


def test_who_may_move_it(platform: Platform, owner: Account, other: Account) -> None:
    model = draft(owner, "adder")
    admin = platform.join(owner, platform.sign_up(), "admin")
    developer = platform.join(other, platform.sign_up(), "developer")
    request = pb.TransferModelRequest(model=model, organisation=other.profile.organisation)
    assert fails(admin.transfers.TransferModel, request).reason == "SCOPE_MISSING"
    assert fails(other.transfers.TransferModel, request).reason == "MODEL_NOT_FOUND"
    first = offer(owner, model, other)
    transfer = offer(owner, model, other)  # in place of the first
    one = pb.AcceptModelTransferRequest(transfer_id=first.transfer_id)
    assert fails(other.transfers.AcceptModelTransfer, one).reason == "TRANSFER_NOT_FOUND"
    one = pb.AcceptModelTransferRequest(transfer_id=transfer.transfer_id)
    assert fails(owner.transfers.AcceptModelTransfer, one).reason == "TRANSFER_NOT_FOUND"  # its own
    assert fails(developer.transfers.AcceptModelTransfer, one).reason == "SCOPE_MISSING"
    seen = [
        [t.transfer_id for t in p.transfers.ListModelTransfers(pb.ListModelTransfersRequest()).transfers]
        for p in (owner, other, platform.session(platform.sign_up()))
    ]
    assert seen == [[transfer.transfer_id], [transfer.transfer_id], []]
    other.transfers.CancelModelTransfer(pb.CancelModelTransferRequest(transfer_id=transfer.transfer_id))
    assert fails(other.transfers.AcceptModelTransfer, one).reason == "TRANSFER_NOT_FOUND"
    transfer = offer(owner, model, other)
    draft(other, "adder")
    one = pb.AcceptModelTransferRequest(transfer_id=transfer.transfer_id)
    taken = fails(other.transfers.AcceptModelTransfer, one)
    assert (taken.reason, [v.field for v in taken.violations]) == ("MODEL_EXISTS", ["name"])

    def take(_: int) -> bool:
        try:
            accept(other, transfer, "theirs")
        except grpc.RpcError:
            return False
        return True

    with ThreadPoolExecutor(4) as threads:
        assert sorted(threads.map(take, range(4))) == [False, False, False, True]

    def told(person: Account) -> bool:
        asked = audit_pb2.ListAuditEntriesRequest(filter=audit_pb2.AuditFilter(action="AcceptModelTransfer"))
        listed = person.audit.ListAuditEntries(asked).entries
        return [e.resource_id for e in listed if "denied" not in e.metadata] == [transfer.model_id]

    until(lambda: told(owner) and told(other))
    error = fails(
        owner.transfers.TransferModel, pb.TransferModelRequest(model=draft(owner, "m"), organisation="no-one")
    )
    assert error.reason == "ORGANISATION_NOT_FOUND"


def test_who_administers_both_moves_it_at_once_and_a_key_does_not(platform: Platform) -> None:
    person = platform.sign_up(auth_pb2.ROLE_PUBLISHER)
    home, there = platform.session(person), platform.organisation(person)
    transfer = offer(home, draft(home, "adder"), there, name="summer")
    assert (transfer.accepted, transfer.model) == (True, f"{there.profile.organisation}/summer")
    assert known(there, transfer.model).org_id == there.profile.org_id
    assert not home.transfers.ListModelTransfers(pb.ListModelTransfersRequest()).transfers
    key = Account(platform, there.auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name="k")).secret)
    assert not offer(key, transfer.model, home).accepted
    waiting = there.transfers.ListModelTransfers(pb.ListModelTransfersRequest()).transfers
    assert [t.model for t in waiting] == [transfer.model]


def test_a_keys_rules_go_with_the_model(platform: Platform, owner: Account, other: Account) -> None:
    caller = platform.sign_up(credit=USD)
    model = platform.publish(owner, graphs.tiny())
    request = auth_pb2.CreateApiKeyRequest(name="k", rules=auth_pb2.KeyRules(models=[model]))
    key = Account(platform, caller.auth.CreateApiKey(request).secret)
    moved = accept(other, offer(owner, model, other))
    time.sleep(0.5)
    for reference in (model, moved.model):
        assert call(key, reference).model == moved.model
    another = platform.publish(other, graphs.tiny())
    assert fails(lambda m: call(key, m), another).reason == "KEY_MODEL_DENIED"


def test_what_is_sold_of_it_is_the_new_owners(platform: Platform, owner: Account, other: Account) -> None:
    model = platform.publish(owner, graphs.tiny(), price=PRICE)
    customer, subscriber = platform.sign_up(credit=5 * USD), platform.sign_up(credit=5 * USD)
    discount = prices_pb2.SetDiscountRequest(org_id=customer.profile.org_id, model=model, discount_ppm=500_000)
    owner.prices.SetDiscount(discount)
    owner.plans.SetModelOffer(plans_pb2.SetModelOfferRequest(model=model, monthly_nanos=USD))
    early = platform.sign_up()
    early.plans.SubscribeToModel(plans_pb2.SubscribeToModelRequest(model=model))
    moved = accept(other, offer(owner, model, other))
    listed = prices_pb2.ListDiscountsRequest()
    until(lambda: [d.model for d in other.prices.ListDiscounts(listed).discounts] == [moved.model])
    assert not owner.prices.ListDiscounts(listed).discounts
    subscribed = early.plans.GetSubscription(plans_pb2.GetSubscriptionRequest()).models
    assert [s.model for s in subscribed] == [moved.model]
    call(customer, model)
    until(lambda: customer.balance() == 5 * USD - CENT_TENTH // 2)
    card = payments_pb2.AttachPaymentMethodRequest(payment_method="pm_card_visa", make_default=True)
    subscriber.payments.AttachPaymentMethod(card)
    subscriber.plans.SubscribeToModel(plans_pb2.SubscribeToModelRequest(model=model))
    until(lambda: other.earned() > USD // 2)
    assert owner.earned() == 0
    price = caller_price(subscriber, model)
    assert price.model == moved.model
    changed = [billing_pb2.PriceComponent(meter="requests", nanos_per_million=2000 * USD)]
    other.billing.SetModelPrice(billing_pb2.SetModelPriceRequest(model=model, components=changed))
    until(lambda: call(subscriber, moved.model).cost_nanos == 2 * CENT_TENTH)
    until(lambda: not platform.admin().check_ledger().discrepancies)


def caller_price(person: Account, model: str) -> billing_pb2.Price:
    found: billing_pb2.Price = person.billing.GetModelPrice(billing_pb2.GetModelPriceRequest(model=model)).price
    return found


def test_commands(platform: Platform) -> None:
    person = platform.sign_up(auth_pb2.ROLE_PUBLISHER)
    friend = platform.sign_up(auth_pb2.ROLE_PUBLISHER)
    mine, theirs = {"MERCAT_API_KEY": person.api_key}, {"MERCAT_API_KEY": friend.api_key}
    name = f"m{secrets.token_hex(4)}"
    model = draft(person, name)
    said = platform.command("models", "transfer", name, friend.profile.username, **mine)
    assert f"{model} is offered" in said.stdout, said.stderr
    offered = platform.command("models", "transfers", **theirs).stdout
    transfer = next(word for word in offered.split() if word.startswith("mtr_"))
    taken = platform.command("models", "accept", transfer, "--name", "other", **theirs)
    assert f"{friend.profile.username}/other is yours" in taken.stdout, taken.stderr
    again = platform.command("models", "accept", transfer, **theirs)
    assert again.returncode == 1
    assert "TRANSFER_NOT_FOUND" in again.stderr
    other = draft(person, f"{name}2")
    platform.command("models", "transfer", other, friend.profile.username, **mine)
    transfer = person.transfers.ListModelTransfers(pb.ListModelTransfersRequest()).transfers[0].transfer_id
    assert "ended" in platform.command("models", "decline", transfer, **mine).stdout
