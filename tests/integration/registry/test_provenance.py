"""Attestations are verified when a version is pushed; lineage is what cards say, as far as one may see it."""

import secrets
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from mercat.registry.v1 import lineage_pb2, provenance_pb2
from mercat.registry.v1 import registry_pb2 as r

from services.common import attesting
from tests import graphs
from tests.expect import fails
from tests.platform import Account, Platform

COMMIT = "2fd4e1c67a2d28fced849ee1bb76e7391b93eb12"
REPOSITORY = "https://git.example/m"


@pytest.fixture(scope="module")
def maker(platform: Platform) -> Account:
    return platform.publisher()


def new_model(maker: Account, description: str = "") -> str:
    name = f"p{secrets.token_hex(4)}"
    about = {"summary": "s", "category": "other", "task": "test", "license": "MIT", "description": description}
    return str(maker.registry.CreateModel(r.CreateModelRequest(name=name, **about)).model.model)  # type: ignore[arg-type]


def registered(maker: Account, key: Ed25519PrivateKey) -> str:
    asked = provenance_pb2.AddPublisherKeyRequest(name="k", public_key=attesting.written(key.public_key()))
    return str(maker.publisher_keys.AddPublisherKey(asked).key.fingerprint)


def signed(key: Ed25519PrivateKey, digest: str, model: str) -> str:
    said = attesting.statement(
        "m.onnx", digest, model, "1.0.0", builder="https://ci.example/1", repository=REPOSITORY, commit=COMMIT
    )
    return attesting.sign(said, key)


def test_what_is_signed_is_verified_and_shown(platform: Platform, maker: Account) -> None:
    key, digest, model = Ed25519PrivateKey.generate(), platform.upload(maker, graphs.tiny()), new_model(maker)
    envelope = signed(key, digest, model)

    def push(version: str, **more: Any) -> r.CreateVersionRequest:
        given = {"digest": digest, "attestations": [envelope]} | more
        return r.CreateVersionRequest(model=model, version=version, **given)

    refused = fails(maker.registry.CreateVersion, push("1.0.0"))  # nobody knows the key yet
    assert (refused.reason, refused.violations[0].field) == ("ATTESTATION_INVALID", "attestations[0]")
    fingerprint = registered(maker, key)
    assert fails(registered, maker, key).reason == "PUBLISHER_KEY_EXISTS"
    other = platform.upload(maker, graphs.addition())
    assert "digest" in fails(maker.registry.CreateVersion, push("1.0.0", digest=other)).violations[0].description
    differs = provenance_pb2.Provenance(source_commit="0" * 40)
    refused = fails(maker.registry.CreateVersion, push("1.0.0", provenance=differs))
    assert refused.violations[0].field == "provenance.source_commit"
    stranger = platform.publisher()  # the key is the maker's alone
    theirs, model_of_theirs = platform.upload(stranger, graphs.tiny()), new_model(stranger)
    asked = r.CreateVersionRequest(model=model_of_theirs, version="1.0.0", digest=theirs, attestations=[envelope])
    assert fails(stranger.registry.CreateVersion, asked).reason == "ATTESTATION_INVALID"

    maker.registry.CreateVersion(push("1.0.0"))
    platform.until_validated(maker, model, "1.0.0")
    platform.through_review(maker, model, "1.0.0")
    shown = platform.anonymous.registry.GetVersion(r.GetVersionRequest(model=model, version="1.0.0")).version
    assert (shown.attestations[0].fingerprint, shown.attestations[0].envelope) == (fingerprint, envelope)
    said = ("https://ci.example/1", REPOSITORY, COMMIT)
    assert (shown.provenance.builder, shown.provenance.source_repository, shown.provenance.source_commit) == said
    listed = httpx.get(f"{platform.rest}/v1/publishers/{maker.profile.organisation}/keys").json()["keys"]
    assert [k["fingerprint"] for k in listed] == [fingerprint]
    # Who has the public key verifies it without Mercat.
    keys = {fingerprint: attesting.read_public(listed[0]["publicKey"].encode())}
    assert digest.removeprefix("sha256:") in attesting.verify(shown.attestations[0].envelope, keys).digests

    gone = maker.publisher_keys.RevokePublisherKey(provenance_pb2.RevokePublisherKeyRequest(fingerprint=fingerprint))
    assert gone.key.HasField("revoked_at")
    assert fails(maker.registry.CreateVersion, push("2.0.0")).reason == "ATTESTATION_INVALID"
    plain = push("3.0.0", attestations=[], provenance=provenance_pb2.Provenance(source_repository=REPOSITORY))
    assert maker.registry.CreateVersion(plain).version.provenance.source_repository == REPOSITORY


@pytest.mark.parametrize("text", ["", "nonsense", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
def test_what_is_no_key_is_refused(maker: Account, text: str) -> None:
    asked = provenance_pb2.AddPublisherKeyRequest(name="k", public_key=text)
    assert fails(maker.publisher_keys.AddPublisherKey, asked).violations[0].field == "public_key"


def edges(person: Account, model: str, depth: int = 0) -> tuple[set[tuple[str, str, int]], bool]:
    answer = person.lineage.GetLineage(lineage_pb2.GetLineageRequest(model=model, depth=depth))
    return {(e.made, e.origin.name, e.origin.kind) for e in answer.edges}, answer.truncated


def test_lineage_leads_up_and_down(platform: Platform, maker: Account) -> None:
    model, data, elsewhere = (
        lineage_pb2.LINEAGE_KIND_MODEL, lineage_pb2.LINEAGE_KIND_DATASET, lineage_pb2.LINEAGE_KIND_ELSEWHERE
    )  # fmt: skip
    base = platform.publish(maker, graphs.tiny())
    card = "---\nbase_model: {}\ndatasets: [corpus]\n---\n# x"
    tuned = new_model(maker, card.format(base))
    other = platform.publisher()
    hidden = new_model(other, card.format(base))  # a draft of somebody else's
    update = r.UpdateModelRequest(model=base, description="---\nbase_model: nowhere/known\n---\n")
    maker.registry.UpdateModel(update)
    last = new_model(maker, f"---\nbase_model: {tuned}@1.0.0\n---\n")
    whole = {
        (last, tuned, model), (tuned, base, model), (tuned, "corpus", data), (base, "nowhere/known", elsewhere)
    }  # fmt: skip
    assert edges(maker, last) == (whole, False)
    assert edges(maker, tuned) == (whole, False)
    assert edges(maker, base) == (whole - {(tuned, "corpus", data)}, False)
    assert edges(maker, last, 1) == ({(last, tuned, model)}, True)
    # Others see neither drafts nor what they were made of.
    assert edges(platform.anonymous, base) == ({(base, "nowhere/known", elsewhere)}, False)
    assert (hidden, base, model) in edges(other, base)[0]
    reason = fails(platform.anonymous.lineage.GetLineage, lineage_pb2.GetLineageRequest(model=tuned)).reason
    assert reason == "MODEL_NOT_FOUND"
    # A version's own card is told with its version, once that may be seen.
    digest = platform.upload(maker, graphs.tiny())
    own = platform.upload(maker, f"---\nbase_model: {base}@1.0.0\n---\n# 2".encode())
    files = [r.VersionFile(name="c.md", role=r.FILE_ROLE_CARD, digest=own)]
    maker.registry.CreateVersion(r.CreateVersionRequest(model=base, version="2.0.0", digest=digest, files=files))
    assert (base, base, model) in edges(maker, base)[0]
    assert (base, base, model) not in edges(platform.anonymous, base)[0]
    # A new card takes the place of what the old one said.
    maker.registry.UpdateModel(r.UpdateModelRequest(model=last, description="# plain"))
    assert edges(maker, last) == (set(), False)
