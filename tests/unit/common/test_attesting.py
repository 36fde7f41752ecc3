"""Attestations: DSSE as its specification has it, what others sign is read, what is changed is refused."""

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib import dsse
from securesystemslib.signer import CryptoSigner, SSlibKey

from services.common import attesting
from services.common.attesting import BadAttestation

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key()
KEYS = {attesting.fingerprint(PUBLIC): PUBLIC}
COMMIT = "2fd4e1c67a2d28fced849ee1bb76e7391b93eb12"
DIGEST = "ab" * 32


def said(**changed: Any) -> dict[str, Any]:
    made = attesting.statement(
        "m.onnx", f"sha256:{DIGEST}", "a/m", "1.0.0", builder="https://ci.example/1", repository="https://git.example/m",
        commit=COMMIT,
    )  # fmt: skip
    return made | changed


def test_what_is_signed_is_as_the_specification_has_it() -> None:
    """https://github.com/secure-systems-lab/dsse/blob/master/protocol.md#test-vectors"""
    signed = attesting.pae("http://example.com/HelloWorld", b"hello world")
    assert signed == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


def test_what_was_signed_is_read() -> None:
    found = attesting.verify(attesting.sign(said(), KEY), KEYS)
    assert (found.fingerprint, found.digests) == (attesting.fingerprint(PUBLIC), {DIGEST})
    assert (found.builder, found.source_repository, found.source_commit) == (
        "https://ci.example/1", "https://git.example/m", COMMIT
    )  # fmt: skip


def test_others_verify_it() -> None:
    key = SSlibKey.from_crypto(PUBLIC, keyid=attesting.fingerprint(PUBLIC))
    envelope = dsse.Envelope.from_dict(json.loads(attesting.sign(said(), KEY)))
    assert list(envelope.verify([key], 1)) == [key.keyid]


@pytest.mark.parametrize("keyid", ["", "somebody's", attesting.fingerprint(PUBLIC)])
def test_what_others_sign_is_verified_whatever_they_call_the_key(keyid: str) -> None:
    envelope = dsse.Envelope(json.dumps(said()).encode(), attesting.PAYLOAD_TYPE, {})
    envelope.sign(CryptoSigner(KEY, SSlibKey.from_crypto(PUBLIC, keyid="k")))
    given_ = envelope.to_dict()
    given_["signatures"][0]["keyid"] = keyid
    assert attesting.verify(json.dumps(given_), KEYS).digests == {DIGEST}
    del given_["signatures"][0]["keyid"]
    assert attesting.verify(json.dumps(given_), KEYS).builder == "https://ci.example/1"


@pytest.mark.parametrize(
    ("dependency", "source"),
    [
        ({"uri": "git+https://git.example/m@refs/heads/main", "digest": {"gitCommit": COMMIT}}, COMMIT),
        ({"uri": "git+https://git.example/m", "digest": {"sha1": COMMIT}}, COMMIT),
        ({"uri": "git+https://git.example/m@v1"}, "v1"),
        ({"uri": "git+https://git.example/m"}, ""),
    ],
)
def test_where_it_was_built_from_is_read(dependency: Any, source: str) -> None:
    made = said()
    made["predicate"]["buildDefinition"]["resolvedDependencies"] = [{"uri": "pkg:pypi/x@1"}, "odd", dependency]
    found = attesting.verify(attesting.sign(made, KEY), KEYS)
    assert (found.source_repository, found.source_commit) == ("https://git.example/m", source)


def changed(**fields: Any) -> str:
    return json.dumps(json.loads(attesting.sign(said(), KEY)) | fields)


OTHER = base64.b64encode(json.dumps(said(subject=[{"digest": {"sha256": "cd" * 32}}])).encode()).decode()


@pytest.mark.parametrize(
    ("envelope", "why"),
    [
        ("", "no JSON"),
        ("[]", "no JSON"),
        ("[" * 50_000, "no JSON"),
        ("{}", "Base64"),
        ("x" * 100_001, "at most"),
        (changed(payload=OTHER), "trusted"),
        (changed(payloadType="text/plain"), "no DSSE"),
        (changed(signatures=[]), "signatures"),
        (changed(signatures=[{}] * 17), "signatures"),
        (changed(signatures=[1]), "a signature"),
        (changed(signatures=[{"sig": "?"}]), "Base64"),
        (changed(signatures=[{"sig": "AAAA"}]), "trusted"),
        (attesting.sign(said(), Ed25519PrivateKey.generate()), "trusted"),
        (attesting.sign(said(_type="https://in-toto.io/Statement/v0.1"), KEY), "the statement must be"),
        (attesting.sign(said(predicateType="https://spdx.dev/Document"), KEY), "the statement must be"),
        (attesting.sign(said(predicate={}), KEY), "must name"),
        (attesting.sign(said(predicate=[]), KEY), "must name"),
    ],
)
def test_anything_else_is_refused(envelope: str, why: str) -> None:
    with pytest.raises(BadAttestation, match=why):
        attesting.verify(envelope, KEYS)


@given(st.data())
def test_no_bit_of_it_can_be_changed(data: st.DataObject) -> None:
    envelope = json.loads(attesting.sign(said(), KEY))
    field = data.draw(st.sampled_from(["payload", "sig"]))
    holder = envelope if field == "payload" else envelope["signatures"][0]
    raw = bytearray(base64.b64decode(holder[field]))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    holder[field] = base64.b64encode(raw).decode()
    with pytest.raises(BadAttestation):
        attesting.verify(json.dumps(envelope), KEYS)
