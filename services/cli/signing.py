"""`mercat keys signing`: keys that sign calls, and the file that holds one."""

import base64
import json
import os
from pathlib import Path
from typing import Annotated

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from mercat.auth.v1 import auth_pb2
from mercat.auth.v1 import keys_pb2 as pb

from services.cli import output
from services.cli.command import Session, command
from services.cli.key_options import Key
from services.cli.paging import Limit, gather
from services.cli.session import Refusal
from services.common import signatures

_NAMES = {
    auth_pb2.SIGNATURE_ALGORITHM_ED25519: signatures.ED25519,
    auth_pb2.SIGNATURE_ALGORITHM_HMAC_SHA256: signatures.HMAC_SHA256,
}


def add_to(keys: typer.Typer) -> None:
    signing = typer.Typer(
        help="Keys that sign a key's calls (RFC 9421).", no_args_is_help=True, rich_markup_mode="rich"
    )
    signing.command("create")(command(create))
    signing.command("list")(command(list_keys))
    signing.command("delete")(command(delete))
    keys.add_typer(signing, name="signing")


def create(
    session: Session, key: Key,
    out: Annotated[Path, typer.Option(help="The file to keep it in, for you alone; must not exist.")],
    hmac: Annotated[bool, typer.Option("--hmac", help="A secret that Mercat has too, instead of Ed25519.")] = False,
) -> None:  # fmt: skip
    """Makes a signing key for one of your keys. Of Ed25519 the private key does not leave this machine. Commands sign
    their calls with it when MERCAT_SIGNING_KEY names the file.

    Examples:

      mercat keys signing create key_06b3c… --out signing.json

      MERCAT_SIGNING_KEY=signing.json MERCAT_API_KEY=mk_live_… mercat infer ada/adder …
    """
    try:
        descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise Refusal(f"{out} cannot be made ({error.strerror}).") from error
    try:
        request = pb.CreateSigningKeyRequest(key_id=key, algorithm=auth_pb2.SIGNATURE_ALGORITHM_HMAC_SHA256)
        private = b""
        if not hmac:
            made = Ed25519PrivateKey.generate()
            private = made.private_bytes_raw()
            request.algorithm = auth_pb2.SIGNATURE_ALGORITHM_ED25519
            request.public_key = made.public_key().public_bytes_raw()
        answer = session.client.keys.CreateSigningKey(request)
    except BaseException:
        os.close(descriptor)
        out.unlink()
        raise
    one = answer.signing_key
    with os.fdopen(descriptor, "w") as file:
        kept = base64.b64encode(private or answer.secret).decode()
        json.dump({"signing_key_id": one.signing_key_id, "algorithm": _NAMES[one.algorithm], "key": kept}, file)
    if session.json:
        output.say_json(one)
    else:
        output.say(f"{one.signing_key_id} signs calls of {one.key_id}; it is in {out}, and nowhere else.")


def list_keys(session: Session, key: Key, limit: Limit = 50) -> None:
    """Lists the signing keys of a key, newest first.

    Example: mercat keys signing list key_06b3c…
    """
    answer = gather(session.client.keys.ListSigningKeys, pb.ListSigningKeysRequest(key_id=key), "signing_keys", limit)
    if session.json:
        output.say_json(answer)
        return
    output.table(
        ["signing key", "algorithm", "made"],
        [(k.signing_key_id, _NAMES[k.algorithm], output.when(k.created_at)) for k in answer.signing_keys],
        empty="There are none; make one with `mercat keys signing create KEY --out FILE`.",
    )


def delete(
    session: Session, key: Key,
    identifier: Annotated[str, typer.Argument(metavar="SIGNING_KEY", help="Its id, sgk_….")],
) -> None:  # fmt: skip
    """Ends a signing key within five seconds.

    Example: mercat keys signing delete key_06b3c… sgk_06b3c…
    """
    session.client.keys.DeleteSigningKey(pb.DeleteSigningKeyRequest(key_id=key, signing_key_id=identifier))
    if session.json:
        output.say_json({"signingKeyId": identifier})
    else:
        output.say(f"{output.clean(identifier)} is ended.")
