"""Attestations: in-toto statements with SLSA provenance in DSSE envelopes, signed with Ed25519. Pure: neither clock nor
network.

Formats: https://github.com/secure-systems-lab/dsse (envelope.md, protocol.md), in-toto Statement v1
(https://github.com/in-toto/attestation), SLSA Provenance v1 (https://slsa.dev/spec/v1.0/provenance)."""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT, PROVENANCE = "https://in-toto.io/Statement/v1", "https://slsa.dev/provenance/v1"
PUSHED = "urn:mercat:build-type:push:v1"  # what `mercat push` writes: a file that its publisher vouches for
MOST = 100_000  # characters of an envelope
_SIGNATURES = 16  # at most


class BadAttestation(ValueError):
    """It is not what it must be, or not signed as it must be; the text says how."""


@dataclass(frozen=True)
class Attested:
    """What was signed: `fingerprint` of the key, SHA-256 `digests` of subjects in hexadecimal digits, and of the
    provenance who built them and from which commit, empty where it does not say."""

    fingerprint: str
    digests: frozenset[str]
    predicate_type: str
    build_type: str
    builder: str
    source_repository: str
    source_commit: str


def fingerprint(key: Ed25519PublicKey) -> str:
    """`sha256:…` of the 32 bytes of a key."""
    return f"sha256:{hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()}"


def read_public(pem: bytes) -> Ed25519PublicKey:
    """Raises ValueError for what is no PEM of an Ed25519 public key."""
    try:
        key = load_pem_public_key(pem)
    except Exception:  # ValueError and, of odd keys, others
        raise ValueError("is no public key in PEM") from None
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("is no Ed25519 key")
    return key


def read_private(pem: bytes) -> Ed25519PrivateKey:
    """Raises ValueError for what is no PEM of an Ed25519 private key without a password."""
    try:
        key = load_pem_private_key(pem, None)
    except Exception:
        raise ValueError("is no private key in PEM without a password") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("is no Ed25519 key")
    return key


def written(key: Ed25519PublicKey) -> str:
    """PEM."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def pae(payload_type: str, payload: bytes) -> bytes:
    """What is signed: DSSE's pre-authentication encoding."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def statement(
    name: str, digest: str, model: str, version: str, *, builder: str, repository: str = "", commit: str = ""
) -> dict[str, Any]:
    """The statement of a push. `digest`: `sha256:…` of the artifact; `builder`: a URI."""
    source = {"uri": f"git+{repository}" + (f"@{commit}" if commit else "")}
    dependency = source | ({"digest": {"gitCommit": commit}} if commit else {})
    return {
        "_type": STATEMENT, "subject": [{"name": name, "digest": {"sha256": digest.removeprefix("sha256:")}}],
        "predicateType": PROVENANCE,
        "predicate": {
            "buildDefinition": {
                "buildType": PUSHED, "externalParameters": {"model": model, "version": version},
                "resolvedDependencies": [dependency] if repository else [],
            },
            "runDetails": {"builder": {"id": builder}},
        },
    }  # fmt: skip


def sign(said: Mapping[str, Any], key: Ed25519PrivateKey) -> str:
    """An envelope, JSON on one line, of a statement."""
    payload = json.dumps(said, separators=(",", ":"), ensure_ascii=False).encode()
    signature = {
        "keyid": fingerprint(key.public_key()), "sig": base64.b64encode(key.sign(pae(PAYLOAD_TYPE, payload))).decode()
    }  # fmt: skip
    envelope = {"payload": base64.b64encode(payload).decode(), "payloadType": PAYLOAD_TYPE, "signatures": [signature]}
    return json.dumps(envelope, separators=(",", ":"))


def verify(envelope: str, keys: Mapping[str, Ed25519PublicKey]) -> Attested:
    """What an envelope says that one of these keys, by fingerprint, signed. `keyid` is not believed, only tried
    first. Raises BadAttestation."""
    if len(envelope) > MOST:
        raise BadAttestation(f"has {len(envelope):,} characters; at most {MOST:,}")
    outer = _object(envelope, "it")
    payload, signatures = _base64(outer.get("payload")), outer.get("signatures")
    if outer.get("payloadType") != PAYLOAD_TYPE:
        raise BadAttestation(f"is no DSSE envelope of {PAYLOAD_TYPE}")
    if not isinstance(signatures, list) or not 0 < len(signatures) <= _SIGNATURES:
        raise BadAttestation(f"must have from 1 to {_SIGNATURES} signatures")
    signed = pae(PAYLOAD_TYPE, payload)
    signer = next((found for one in signatures if (found := _signer(one, signed, keys))), None)
    if signer is None:
        raise BadAttestation("is not signed with a key that is trusted for it")
    return _read(signer, payload)


def _signer(signature: Any, signed: bytes, keys: Mapping[str, Ed25519PublicKey]) -> str | None:
    if not isinstance(signature, dict):
        raise BadAttestation("has a signature that is none")
    value, named = _base64(signature.get("sig")), signature.get("keyid")
    known = [named] if isinstance(named, str) and named in keys else list(keys)
    for name in known:
        try:
            keys[name].verify(value, signed)
        except InvalidSignature:
            continue
        return name
    return None


def _read(signer: str, payload: bytes) -> Attested:
    try:
        said = _object(payload.decode(), "the statement")
    except UnicodeDecodeError:
        raise BadAttestation("the statement is no UTF-8 text") from None
    if said.get("_type") != STATEMENT or said.get("predicateType") != PROVENANCE:
        raise BadAttestation(f"the statement must be {STATEMENT} with {PROVENANCE}")
    subjects = said.get("subject")
    digests = [_at(s, "digest", "sha256") for s in subjects] if isinstance(subjects, list) else []
    predicate = said.get("predicate")
    builder = _at(predicate, "runDetails", "builder", "id")
    build_type = _at(predicate, "buildDefinition", "buildType")
    if not builder or not build_type:
        raise BadAttestation("the provenance must name buildType and builder.id")
    repository, commit = _source(predicate)
    return Attested(
        signer, frozenset(d for d in digests if d), PROVENANCE, build_type, builder, repository, commit
    )  # fmt: skip


def _source(predicate: Any) -> tuple[str, str]:
    """Of the first dependency that is a Git repository."""
    definition = predicate.get("buildDefinition") if isinstance(predicate, dict) else None
    dependencies = definition.get("resolvedDependencies") if isinstance(definition, dict) else None
    for one in dependencies if isinstance(dependencies, list) else ():
        uri = _at(one, "uri")
        if uri.startswith("git+"):
            repository, at, ref = uri.removeprefix("git+").rpartition("@")
            if not at or "/" not in repository.removeprefix("https://"):  # an @ before the host
                repository, ref = uri.removeprefix("git+"), ""
            return repository, _at(one, "digest", "gitCommit") or _at(one, "digest", "sha1") or ref
    return "", ""


def _at(value: Any, *keys: str) -> str:
    """The text at a path of an object; empty where there is none."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, str) and len(value) <= 500 else ""


def _object(text: str, what: str) -> dict[str, Any]:
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise BadAttestation(f"{what} is no JSON object")
    return said


def _base64(text: Any) -> bytes:
    """Standard or URL-safe, as the specification has readers take both."""
    try:
        return base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
    except (AttributeError, ValueError):
        raise BadAttestation("payload and sig must be Base64") from None
