"""What they do with models: their own, with words and files of theirs; others'; and what others do with theirs."""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from mercat.marketplace.v1 import collections_pb2, discovery_pb2, publishers_pb2, reviews_pb2
from mercat.notification.v1 import webhooks_pb2
from mercat.registry.v1 import access_pb2, provenance_pb2, registry_pb2, transfer_pb2, visibility_pb2
from mercat.storage.v1 import storage_pb2

from services.common import attesting
from tests import graphs
from tests.expect import until
from tests.platform import USD, Account, Platform
from tests.robustness import living
from tests.robustness.living import Marked, quietly
from tests.webhook_receiver import receiver


def publish(platform: Platform, person: Marked, account: Account, others: Account) -> str:
    """A model that others call, of two versions, one on its way out; with a card that says what it comes from."""
    word = person.word
    model = platform.publish(account, graphs.tiny(), "perceptron", price={"requests": 10**14})
    platform.publish(account, graphs.tiny(seed=8), "perceptron", version="1.1.0")
    card = f"---\nbase_model: {word}/base\ndatasets: [{word}-corpus]\n---\n# by {word}\n"
    account.registry.UpdateModel(registry_pb2.UpdateModelRequest(model=model, description=card, tags=[word]))
    account.registry.SetAlias(registry_pb2.SetAliasRequest(model=model, alias=f"{word}-stable", version="1.1.0"))
    living.call(others, f"{model}@1.1.0")
    account.registry.YankVersion(
        registry_pb2.YankVersionRequest(model=model, version="1.1.0", reason=f"{word} is not content with it")
    )
    key = Ed25519PrivateKey.generate().public_key()
    account.publisher_keys.AddPublisherKey(
        provenance_pb2.AddPublisherKeyRequest(name=f"{word} signs", public_key=attesting.written(key))
    )
    return model


def review(account: Account, model: str, comment: str) -> str:
    """Of a model that they have called; its id."""
    request = reviews_pb2.WriteReviewRequest(model=model, version="1.0.0", rating=2, comment=comment)
    until(lambda: quietly(account.reviews.WriteReview, request))
    return str(account.reviews.WriteReview(request).review.review_id)


def take_part(platform: Platform, person: Marked, account: Account, theirs: str, others: Account, model: str) -> None:
    """In the storefront: with a model of others (`theirs`), while others do with theirs."""
    word = person.word
    living.call(account, theirs)
    review(account, theirs, f"{word} thinks little of it")
    review(account, theirs, f"{word} thinks again")
    reply = reviews_pb2.ReplyToReviewRequest(review_id=review(others, model, "good"), comment=f"{word} says thanks")
    account.reviews.ReplyToReview(reply)
    report = reviews_pb2.ReportReviewRequest(review_id=reply.review_id, reason=f"{word} finds it short")
    account.reviews.ReportReview(report)
    for who, of in ((account, theirs), (others, model)):
        made = who.collections.CreateCollection(
            collections_pb2.CreateCollectionRequest(title=f"{word} picks" if who is account else "picks")
        ).collection
        who.collections.AddToCollection(
            collections_pb2.AddToCollectionRequest(collection_id=made.collection_id, model=of)
        )
        who.collections.AddFavourite(collections_pb2.AddFavouriteRequest(model=of))
        publisher = of.partition("/")[0]
        who.collections.FollowPublisher(collections_pb2.FollowPublisherRequest(publisher=publisher))
    account.publishers.SetPublisherProfile(
        publishers_pb2.SetPublisherProfileRequest(display_name=f"{word} labs", about=f"We are {word}.")
    )
    for _ in range(3):  # three, who call both: what goes together is known
        another = platform.sign_up(credit=10 * USD)
        for called in (theirs, model):
            living.call(another, called)
    account.discovery.SetDiscoveryPreferences(discovery_pb2.SetDiscoveryPreferencesRequest(recommendations_off=True))


def hear(person: Marked, account: Account) -> None:
    """By webhooks: one endpoint that takes what comes, and one that is gone."""
    with receiver() as there:
        there.answers[f"/{person.word}-gone"] = 410
        for path in (f"/{person.word}", f"/{person.word}-gone"):
            request = webhooks_pb2.CreateWebhookEndpointRequest(url=there.url(path), description=f"of {person.word}")
            made = account.webhooks.CreateWebhookEndpoint(request).endpoint
            account.webhooks.SendTestEvent(webhooks_pb2.SendTestEventRequest(endpoint_id=made.endpoint_id))
            there.wait(path)
        get = webhooks_pb2.GetWebhookEndpointRequest(endpoint_id=made.endpoint_id)
        until(lambda: not account.webhooks.GetWebhookEndpoint(get).endpoint.enabled)


def keep(platform: Platform, person: Marked, account: Account, others: Account) -> None:
    """Files, versions with files beside them, a model that has moved and one that is offered; a key to sign with."""
    word = person.word
    upload = storage_pb2.CreateUploadRequest(filename=f"{word}.onnx", size_bytes=10, metadata=f"of {word}")
    account.storage.CreateUpload(upload)
    card = registry_pb2.VersionFile(
        name="README.md", role=registry_pb2.FILE_ROLE_CARD, digest=platform.upload(account, f"# {word}\n".encode())
    )
    for name in ("moved", "offered"):
        account.registry.CreateModel(
            registry_pb2.CreateModelRequest(name=name, summary="s", category="other", task="test", license="MIT")
        )
        model = f"{person.handle}/{name}"
        account.registry.CreateVersion(
            registry_pb2.CreateVersionRequest(
                model=model, version="1.0.0", digest=platform.upload(account, graphs.tiny()),
                files=[card] if name == "offered" else [],
            )
        )  # fmt: skip
        platform.until_validated(account, model, "1.0.0")
        offer = transfer_pb2.TransferModelRequest(model=model, organisation=others.profile.organisation)
        transfer = account.transfers.TransferModel(offer).transfer
        if name == "moved":
            accept = transfer_pb2.AcceptModelTransferRequest(transfer_id=transfer.transfer_id)
            others.transfers.AcceptModelTransfer(accept)


def ask_and_answer(person: Marked, account: Account, theirs: str, others: Account, model: str) -> None:
    """About access: for themselves and for an organisation that stays, and as those who decide. Others name their
    model as what takes the place of one of theirs."""
    word = person.word
    other = account.platform.publish(others, graphs.tiny(seed=3), "another")
    gate(others, other, terms="Be kind.")
    asked = access_pb2.RequestModelAccessRequest(
        model=other, message=f"{word} asks", terms_digest=digest(account, other)
    )
    account.access.RequestModelAccess(asked)
    gate(account, model, terms=f"as {word} wants it")
    asked = access_pb2.RequestModelAccessRequest(model=model, message="please", terms_digest=digest(others, model))
    others.access.RequestModelAccess(asked)
    deny = access_pb2.DenyModelAccessRequest(
        model=model, organisation=others.profile.organisation, reason=f"{word} does not want it"
    )
    account.access.DenyModelAccess(deny)
    deprecate = registry_pb2.DeprecateVersionRequest(model=other, version="1.0.0", successor=model)
    others.registry.DeprecateVersion(deprecate)


def gate(owner: Account, model: str, **terms: str) -> None:
    owner.access.SetModelVisibility(
        access_pb2.SetModelVisibilityRequest(
            model=model, visibility=visibility_pb2.VISIBILITY_GATED,
            gate=visibility_pb2.Gate(approval=visibility_pb2.APPROVAL_MANUAL, **terms),
        )
    )  # fmt: skip


def digest(account: Account, model: str) -> str:
    return str(account.access.GetModelAccess(access_pb2.GetModelAccessRequest(model=model)).gate.terms_digest)
