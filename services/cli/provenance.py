"""Where a pushed artifact comes from: the options of `mercat push` that say it, and `mercat models keys` to sign
it with."""

import os
from pathlib import Path
from typing import Annotated

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from mercat.registry.v1 import provenance_pb2, registry_pb2

from services.cli import output
from services.cli.command import Session, command
from services.cli.inputs import read, read_text
from services.cli.session import Refusal
from services.common import attesting

Source = Annotated[str, typer.Option(metavar="URL", help="The Git repository that it was built from, https.")]
Commit = Annotated[str, typer.Option(metavar="SHA", help="The commit of that, in full.")]
Builder = Annotated[str, typer.Option(metavar="URI", help="Who or what built it.")]
Attest = Annotated[
    str, typer.Option(metavar="FILE", help="Sign that with this key, as `mercat models keys create` made it.")
]
Attestations = Annotated[
    list[str] | None,
    typer.Option("--attestation", metavar="FILE", help="A DSSE envelope that your builder signed. Repeatable."),
]


def add(
    session: Session, request: registry_pb2.CreateVersionRequest, name: str, source: str, commit: str, builder: str,
    attest: str, attestations: list[str],
) -> None:  # fmt: skip
    """Puts it into a request that has model, version and digest. Raises BadParameter."""
    if source or commit or builder:
        request.provenance.MergeFrom(
            provenance_pb2.Provenance(builder=builder, source_repository=source, source_commit=commit)
        )
    request.attestations.extend(read_text(path).strip() for path in attestations)
    if attest:
        said = attesting.statement(
            name, request.digest, request.model, request.version, repository=source, commit=commit,
            builder=builder or f"urn:mercat:publisher:{request.model.partition('/')[0]}",
        )  # fmt: skip
        request.attestations.append(attesting.sign(said, private_key(attest)))


def private_key(path: str) -> Ed25519PrivateKey:
    """Raises BadParameter."""
    try:
        return attesting.read_private(read(path))
    except ValueError as e:
        raise typer.BadParameter(f"{path} {e}") from None


def show(version: registry_pb2.Version) -> list[tuple[str, str]]:
    """What is known of where a version comes from; nothing where that is nothing."""
    said = version.provenance
    return [
        ("built by", said.builder), ("source", said.source_repository), ("commit", said.source_commit),
        *(("attested", f"{a.publisher} with {a.fingerprint}") for a in version.attestations),
    ]  # fmt: skip


def register(models: typer.Typer) -> None:
    keys = typer.Typer(help="Keys to sign what you push with.", no_args_is_help=True, rich_markup_mode="rich")
    for name, function in (("create", create), ("add", add_key), ("list", list_keys), ("revoke", revoke)):
        keys.command(name)(command(function))
    models.add_typer(keys, name="keys")


def create(
    session: Session,
    name: Annotated[str, typer.Argument(help="What you will know it by.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where the private key goes, for you alone.")],
) -> None:
    """Makes a key, keeps its private half in a file and registers the public one.

    Example: mercat models keys create laptop --out signing.pem
    """
    key = Ed25519PrivateKey.generate()
    try:
        with os.fdopen(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    except FileExistsError:
        raise Refusal(f"{out} is there already.") from None
    _add(session, name, attesting.written(key.public_key()))


def add_key(
    session: Session,
    file: Annotated[str, typer.Argument(metavar="FILE", help="The public half of an Ed25519 key, PEM.")],
    name: Annotated[str, typer.Option(help="What you will know it by.")],
) -> None:
    """Registers a key that is elsewhere, such as your builder's.

    Example: mercat models keys add builder.pub.pem --name "CI"
    """
    _add(session, name, read_text(file))


def _add(session: Session, name: str, public_key: str) -> None:
    request = provenance_pb2.AddPublisherKeyRequest(name=name, public_key=public_key)
    made = session.client.publisher_keys.AddPublisherKey(request).key
    if session.json:
        output.say_json(made)
    else:
        output.facts([("key", made.fingerprint), ("name", made.name)])


def list_keys(
    session: Session, publisher: Annotated[str, typer.Argument(help="None: your own.")] = ""
) -> None:  # fmt: skip
    """Lists a publisher's keys; --json has them whole.

    Examples: mercat models keys list · mercat models keys list ada --json
    """
    request = provenance_pb2.ListPublisherKeysRequest(publisher=publisher or session.own_name(), page_size=100)
    answer = session.client.publisher_keys.ListPublisherKeys(request)
    if session.json:
        output.say_json(answer)
        return
    output.table(
        ["key", "name", "added (UTC)", "revoked (UTC)"],
        [(k.fingerprint, k.name, output.when(k.created_at), output.when(k.revoked_at)) for k in answer.keys],
        empty=f"{request.publisher} has no keys.",
    )


def revoke(
    session: Session,
    fingerprint: Annotated[str, typer.Argument(metavar="KEY", help="Its fingerprint, sha256:….")],
) -> None:
    """Ends the trust in a key for good, also in what it signed before.

    Example: mercat models keys revoke sha256:9f86d0…
    """
    request = provenance_pb2.RevokePublisherKeyRequest(fingerprint=fingerprint)
    gone = session.client.publisher_keys.RevokePublisherKey(request).key
    if session.json:
        output.say_json(gone)
    else:
        output.say(f"{gone.fingerprint} is trusted no more.")
