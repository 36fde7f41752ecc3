"""`mercat models verify`: whether a file is what its publisher signed."""

from pathlib import Path
from typing import Annotated

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from mercat.registry.v1 import provenance_pb2, registry_pb2

from services.cli import output
from services.cli.command import Session, command
from services.cli.inputs import read, read_text
from services.cli.session import Refusal
from services.cli.upload import digest_of
from services.common import attesting
from services.common.attesting import Attested, BadAttestation


def register(models: typer.Typer) -> None:
    models.command()(command(verify))


def beside(artifact: Path) -> Path:
    """Where the attestations of a downloaded artifact are: a DSSE envelope on each line."""
    return artifact.with_name(f"{artifact.name}.intoto.jsonl")


def verify(
    session: Session,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The artifact, as it was downloaded.")],
    version: Annotated[
        str, typer.Argument(metavar="[MODEL@VERSION]", help="That it must be; else the files beside it say.")
    ] = "",
    attestation: Annotated[str, typer.Option(metavar="FILE", help="Envelopes, one a line; else those beside it.")] = "",
    key: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="A public key, PEM, that you trust. Repeatable; without, the publisher's."),
    ] = None,
) -> int:
    """Verifies that a file is what a publisher signed; with --key and without a version nobody is asked.

    Examples:

      mercat models verify adder.onnx ada/adder@1.0.0

      mercat models verify adder.onnx --key ada.pub.pem
    """
    digest = digest_of(file)
    keys = dict(_read(path) for path in key or ())
    if version:
        model, number = session.version_of(version)
        request = registry_pb2.GetVersionRequest(model=model, version=number)
        found = session.client.registry.GetVersion(request).version
        if found.digest != digest:
            raise Refusal(f"{file} is not the artifact of {found.model}@{found.version}: that is {found.digest}.")
        envelopes = [a.envelope for a in found.attestations]
        keys = keys or _trusted(session, {a.publisher for a in found.attestations})
    else:
        if not keys:
            raise typer.BadParameter("say which version it is, or which --key you trust")
        envelopes = read_text(attestation or str(beside(file))).splitlines()
    if not envelopes:
        raise Refusal(f"nobody signed anything about {version or file}.")
    verified, problems = _verified(envelopes, digest, keys)
    if session.json:
        output.say_json({"digest": digest, "verified": [_told(a) for a in verified], "problems": problems})
        return 0 if verified else output.REFUSED
    for one in verified:
        output.facts([
            ("artifact", digest), ("signed with", one.fingerprint), ("built by", one.builder),
            ("source", one.source_repository), ("commit", one.source_commit),
        ])  # fmt: skip
    if verified:
        output.say("Genuine: the file is what was signed.")
        return 0
    raise Refusal(f"{file} is not proven genuine: {'; '.join(problems)}.")


def _read(path: str) -> tuple[str, Ed25519PublicKey]:
    try:
        key = attesting.read_public(read(path))
    except ValueError as e:
        raise typer.BadParameter(f"{path} {e}") from None
    return attesting.fingerprint(key), key


def _trusted(session: Session, publishers: set[str]) -> dict[str, Ed25519PublicKey]:
    """Keys that are not revoked."""
    found = {}
    for publisher in publishers:
        request = provenance_pb2.ListPublisherKeysRequest(publisher=publisher, page_size=100)  # all there may be
        for key in session.client.publisher_keys.ListPublisherKeys(request).keys:
            if not key.HasField("revoked_at"):
                public = attesting.read_public(key.public_key.encode())
                found[attesting.fingerprint(public)] = public
    return found


def _verified(
    envelopes: list[str], digest: str, keys: dict[str, Ed25519PublicKey]
) -> tuple[list[Attested], list[str]]:  # fmt: skip
    verified, problems = [], []
    for i, envelope in enumerate(envelopes, 1):
        try:
            found = attesting.verify(envelope, keys)
            if digest.removeprefix("sha256:") not in found.digests:
                raise BadAttestation("is about another file")
            verified.append(found)
        except BadAttestation as e:
            problems.append(f"attestation {i} {e}")
    return verified, problems


def _told(found: Attested) -> dict[str, str]:
    return {
        "fingerprint": found.fingerprint, "buildType": found.build_type, "builder": found.builder,
        "sourceRepository": found.source_repository, "sourceCommit": found.source_commit,
    }  # fmt: skip
