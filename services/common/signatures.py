"""HTTP Message Signatures (RFC 9421) with Ed25519 and HMAC-SHA256, and Content-Digest (RFC 9530). Pure: neither clock
nor network.

Of the components of section 2 there are those of a request that a server sees as the client sent them: `@method`,
`@authority`, `@path`, `@query`, and header fields. Over gRPC a call is the request that carries it: the method is POST,
the path is `/package.Service/Method`, header fields are metadata, and the digest is of the message's bytes, without
gRPC's five bytes before them."""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import http_sf
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

ED25519, HMAC_SHA256 = "ed25519", "hmac-sha256"  # as RFC 9421's registry names them
TAG = "mercat"  # of the signatures that are for Mercat: a request may carry others'
INPUT, SIGNATURE, DIGEST = "signature-input", "signature", "content-digest"
_HASHES = {"sha-256": hashlib.sha256, "sha-512": hashlib.sha512}


class BadSignature(ValueError):
    """The fields of a signature, or of a digest, are not what they should be; the text says how."""


@dataclass(frozen=True)
class Signed:
    """A signature as a request carries it: the names of what it covers, its parameters, and its bytes."""

    label: str
    components: tuple[str, ...]
    params: Mapping[str, Any]
    signature: bytes


def read(signature_input: str, signature: str, tag: str = "") -> list[Signed]:
    """The signatures of a request that have a tag, or all. Raises BadSignature."""
    try:
        inputs: Any = http_sf.parse(signature_input.encode(), tltype="dictionary")
        values: Any = http_sf.parse(signature.encode(), tltype="dictionary")
    except ValueError as e:
        raise BadSignature("signature-input and signature must be dictionaries of structured fields") from e
    found = []
    for label, (covered, params) in inputs.items():
        if not isinstance(covered, list):
            raise BadSignature(f"{label} of signature-input must be a list of components")
        if tag and params.get("tag") != tag:
            continue
        value = values.get(label, (None, {}))[0]
        if not isinstance(value, bytes):
            raise BadSignature(f"{label} is not in the field signature")
        names = tuple(name for name, _ in covered)
        if any(parameters for _, parameters in covered) or not all(isinstance(name, str) for name in names):
            raise BadSignature("components with parameters are not supported")
        if len(set(names)) < len(names):
            raise BadSignature("a component is covered twice")
        found.append(Signed(label, names, params, value))
    return found


def base(components: Sequence[str], params: Mapping[str, Any], values: Mapping[str, str]) -> bytes:
    """The signature base (section 2.5). `values`: of each component, by its name. Raises BadSignature for one that the
    request does not have."""
    lines = []
    for name in components:
        if name not in values:
            raise BadSignature(f"there is no component {name} here")
        lines.append(f'"{name}": {values[name]}')
    covered = http_sf.ser([_inner_list(components, params)])
    return "\n".join([*lines, f'"@signature-params": {covered}']).encode()


def _inner_list(components: Sequence[str], params: Mapping[str, Any]) -> Any:
    return [(name, {}) for name in components], dict(params)


def sign(algorithm: str, key: bytes, text: bytes) -> bytes:
    """`key`: of Ed25519 the 32 bytes of the private key, else the shared secret."""
    if algorithm == ED25519:
        return Ed25519PrivateKey.from_private_bytes(key).sign(text)
    return hmac.digest(key, text, "sha256")


def verify(algorithm: str, key: bytes, text: bytes, signature: bytes) -> bool:
    """`key`: of Ed25519 the 32 bytes of the public key, else the shared secret."""
    if algorithm != ED25519:
        return hmac.compare_digest(hmac.digest(key, text, "sha256"), signature)
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, text)
    except InvalidSignature:
        return False
    return True


def digest(body: bytes) -> str:
    """The value of Content-Digest for a body."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"


def check_digest(field: str, body: bytes) -> None:
    """Raises BadSignature unless a digest that is known is given, and each of them is the body's."""
    try:
        given: Any = http_sf.parse(field.encode(), tltype="dictionary")
    except ValueError as e:
        raise BadSignature("content-digest must be a dictionary of structured fields") from e
    known = {name: value for name, (value, _) in given.items() if name in _HASHES}
    if not known:
        raise BadSignature("content-digest must have sha-256 or sha-512")
    for name, value in known.items():
        if not isinstance(value, bytes) or not hmac.compare_digest(_HASHES[name](body).digest(), value):
            raise BadSignature("the body is not the one that content-digest is of")


def authority(text: str) -> str:
    """As `@authority` has it: in small letters, without a default port."""
    host = text.lower()
    return host.removesuffix(":443").removesuffix(":80")


@dataclass(frozen=True)
class Signer:
    """Signs requests of an API key. `key_id`: of the signing key, `sgk_…`."""

    key_id: str
    algorithm: str
    key: bytes

    def headers(
        self, method: str, host: str, path: str, body: bytes | None, *, now: int, query: str = "", seconds: int = 60
    ) -> dict[str, str]:
        """The header fields, or the metadata, that sign a request for some seconds from `now`, seconds since 1970.
        `body`: None for none."""
        values = {"@method": method, "@authority": authority(host), "@path": path}
        if query:
            values["@query"] = f"?{query}"
        if body is not None:
            values[DIGEST] = digest(body)
        params = {
            "created": now, "expires": now + seconds, "nonce": secrets.token_urlsafe(16), "keyid": self.key_id,
            "alg": self.algorithm, "tag": TAG,
        }  # fmt: skip
        components = list(values)
        signature = sign(self.algorithm, self.key, base(components, params, values))
        made = {
            INPUT: http_sf.ser({TAG: _inner_list(components, params)}),
            SIGNATURE: f"{TAG}=:{base64.b64encode(signature).decode()}:",
        }
        return {**made, DIGEST: values[DIGEST]} if body is not None else made
