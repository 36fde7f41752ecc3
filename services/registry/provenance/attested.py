"""Takes the provenance of a version that is pushed: what is said, and what is signed."""

from collections.abc import Sequence

from mercat.registry.v1 import provenance_pb2, registry_pb2

from services.common import attesting
from services.common.attesting import Attested, BadAttestation
from services.common.errors import InvalidFields, Violation
from services.registry.store import Row

_FIELDS = ("builder", "source_repository", "source_commit")


class AttestationInvalid(InvalidFields, reason="ATTESTATION_INVALID"):
    """An attestation is malformed, of another artifact, or not signed with a key of the organisation."""


def take(
    request: registry_pb2.CreateVersionRequest, keys: Sequence[Row], publisher: str, document: registry_pb2.Version
) -> None:
    """Puts provenance and verified attestations into the document of a version. `keys`: that the organisation has
    registered and not revoked. Raises AttestationInvalid, and InvalidFields for a provenance that says
    something else."""
    if request.HasField("provenance"):
        document.provenance.CopyFrom(request.provenance)
    trusted = {key["fingerprint"]: attesting.read_public(key["public_key"].encode()) for key in keys}
    for i, envelope in enumerate(request.attestations):
        field = f"attestations[{i}]"
        try:
            found = attesting.verify(envelope, trusted)
        except BadAttestation as e:
            raise AttestationInvalid(violations=[Violation(field, str(e))]) from None
        if request.digest.removeprefix("sha256:") not in found.digests:
            problem = f"none of its subjects has the artifact's digest, {request.digest}"
            raise AttestationInvalid(violations=[Violation(field, problem)])
        said = _provenance(found)
        _agree(said, document, field)
        document.attestations.add(
            fingerprint=found.fingerprint, publisher=publisher, predicate_type=found.predicate_type,
            build_type=found.build_type, provenance=said, envelope=envelope,
        )  # fmt: skip


def _provenance(found: Attested) -> provenance_pb2.Provenance:
    return provenance_pb2.Provenance(
        builder=found.builder, source_repository=found.source_repository, source_commit=found.source_commit
    )


def _agree(said: provenance_pb2.Provenance, document: registry_pb2.Version, field: str) -> None:
    """What is signed fills what is not said, and must not say something else."""
    for name in _FIELDS:
        signed, given = getattr(said, name), getattr(document.provenance, name)
        if signed and given and signed != given:
            raise InvalidFields(violations=[Violation(f"provenance.{name}", f"{field} says {signed[:200]}")])
        if signed and not given:
            setattr(document.provenance, name, signed)
