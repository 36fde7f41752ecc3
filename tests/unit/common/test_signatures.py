"""HTTP Message Signatures: RFC 9421's own vectors (appendix B.2), and what is none."""

import base64
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from hypothesis import given
from hypothesis import strategies as st

from services.common import signatures
from services.common.signatures import ED25519, HMAC_SHA256, TAG, BadSignature, Signer

# The request of appendix B.2.
BODY = b'{"hello": "world"}'
SHA_512 = "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:"
VALUES = {
    "@method": "POST", "@authority": "example.com", "@path": "/foo", "@query": "?param=Value&Pet=dog",
    "date": "Tue, 20 Apr 2021 02:07:55 GMT", "content-type": "application/json", "content-length": "18",
    "content-digest": SHA_512,
}  # fmt: skip
# B.1.5 and B.1.4
SHARED = base64.b64decode("uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ==")
PUBLIC: Any = load_pem_public_key(
    b"-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAJrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=\n"
    b"-----END PUBLIC KEY-----\n"
)
PRIVATE: Any = load_pem_private_key(
    b"-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF\n"
    b"-----END PRIVATE KEY-----\n",
    None,
)
B25 = (
    'sig-b25=("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret"',
    "sig-b25=:pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=:",
)
B26 = (
    (
        'sig-b26=("date" "@method" "@path" "@authority" "content-type" "content-length")'
        ';created=1618884473;keyid="test-key-ed25519"'
    ),
    "sig-b26=:wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==:",
)
VECTORS = [(B25, HMAC_SHA256, SHARED), (B26, ED25519, PUBLIC.public_bytes_raw())]


def test_the_base_of_b_2_6_is_the_one_that_is_printed_there() -> None:
    (signed,) = signatures.read(*B26)
    assert signatures.base(signed.components, signed.params, VALUES).decode() == (
        '"date": Tue, 20 Apr 2021 02:07:55 GMT\n'
        '"@method": POST\n'
        '"@path": /foo\n'
        '"@authority": example.com\n'
        '"content-type": application/json\n'
        '"content-length": 18\n'
        '"@signature-params": ("date" "@method" "@path" "@authority" "content-type" "content-length")'
        ';created=1618884473;keyid="test-key-ed25519"'
    )


@pytest.mark.parametrize(("fields", "algorithm", "key"), VECTORS, ids=["B.2.5", "B.2.6"])
def test_vectors_are_good_and_nothing_else_is(fields: tuple[str, str], algorithm: str, key: bytes) -> None:
    (signed,) = signatures.read(*fields)
    text = signatures.base(signed.components, signed.params, VALUES)
    assert signatures.verify(algorithm, key, text, signed.signature)
    for name in signed.components:
        altered = signatures.base(signed.components, signed.params, {**VALUES, name: VALUES[name] + "x"})
        assert not signatures.verify(algorithm, key, altered, signed.signature)
    later = signatures.base(signed.components, {**signed.params, "created": 1618884474}, VALUES)
    assert not signatures.verify(algorithm, key, later, signed.signature)
    assert not signatures.verify(algorithm, key, text, bytes([signed.signature[0] ^ 1]) + signed.signature[1:])
    assert not signatures.verify(algorithm, key, text, b"")


def test_vectors_are_made() -> None:
    for fields, algorithm, key in ((B25, HMAC_SHA256, SHARED), (B26, ED25519, PRIVATE.private_bytes_raw())):
        (signed,) = signatures.read(*fields)
        text = signatures.base(signed.components, signed.params, VALUES)
        assert signatures.sign(algorithm, key, text) == signed.signature


def test_digests_of_the_request() -> None:
    """Of appendix B.2, and of section 2 of RFC 9530."""
    signatures.check_digest(SHA_512, BODY)
    assert signatures.digest(BODY) == "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:"
    signatures.check_digest(f"{signatures.digest(BODY)}, {SHA_512}, unknown=:AA==:", BODY)
    other = signatures.digest(BODY + b" ")
    for wrong in (other, f"{signatures.digest(BODY)}, sha-512=:AAAA:", "unknown=:AA==:", "", "x=", "sha-256=1"):
        with pytest.raises(BadSignature):
            signatures.check_digest(wrong, BODY)


@given(
    st.binary(max_size=200),
    st.text("abcdefghijklmnopqrstuvwxyz/.-", min_size=1),
    st.sampled_from([ED25519, HMAC_SHA256]),
)
def test_what_is_signed_is_good_and_is_of_nothing_else(body: bytes, path: str, algorithm: str) -> None:
    private = PRIVATE.private_bytes_raw() if algorithm == ED25519 else SHARED
    public = PUBLIC.public_bytes_raw() if algorithm == ED25519 else SHARED
    signer = Signer("sgk_1", algorithm, private)
    headers = signer.headers("POST", "Example.com:443", path, body, now=1000, query="a=b")
    (signed,) = signatures.read(headers["signature-input"], headers["signature"], TAG)
    assert signed.components == ("@method", "@authority", "@path", "@query", "content-digest")
    assert (signed.params["created"], signed.params["expires"], signed.params["keyid"]) == (1000, 1060, "sgk_1")
    values = {
        "@method": "POST", "@authority": "example.com", "@path": path, "@query": "?a=b",
        "content-digest": headers["content-digest"],
    }  # fmt: skip
    text = signatures.base(signed.components, signed.params, values)
    assert signatures.verify(algorithm, public, text, signed.signature)
    other = signatures.base(signed.components, signed.params, {**values, "@path": path + "x"})
    assert not signatures.verify(algorithm, public, other, signed.signature)
    signatures.check_digest(headers["content-digest"], body)
    with pytest.raises(BadSignature):
        signatures.check_digest(headers["content-digest"], body + b"x")


@pytest.mark.parametrize(
    ("given_input", "given_signature"),
    [
        ("sig=(", "sig=:AA==:"),
        ("sig=1", "sig=:AA==:"),
        ("sig", "sig=:AA==:"),
        ('sig=("@method")', ""),
        ('sig=("@method")', "sig=1"),
        ('sig=("@method")', "other=:AA==:"),
        ('sig=("@method" "@method")', "sig=:AA==:"),
        ('sig=("@query-param";name="a")', "sig=:AA==:"),
        ("sig=(1)", "sig=:AA==:"),
        ("ü", "sig=:AA==:"),
    ],
)
def test_what_is_no_signature(given_input: str, given_signature: str) -> None:
    with pytest.raises(BadSignature):
        signatures.read(given_input, given_signature)


def test_signatures_of_others_are_left_alone() -> None:
    fields = ('proxy=("@method");tag="cdn", ours=("@path");tag="mercat"', "proxy=:AA==:, ours=:AQ==:")
    assert [s.label for s in signatures.read(*fields, TAG)] == ["ours"]
    assert len(signatures.read(*fields)) == 2


def test_a_component_that_is_not_there_is_named() -> None:
    with pytest.raises(BadSignature, match="@target-uri"):
        signatures.base(["@method", "@target-uri"], {}, VALUES)
