"""The file that MERCAT_SIGNING_KEY names, and what it adds to a call."""

import base64
import json
import time
from pathlib import Path

from services.cli.session import Refusal
from services.common.signatures import Signer


def load(path: str) -> Signer:
    """Refusal when it holds no signing key."""
    try:
        kept = json.loads(Path(path).read_text())
        return Signer(kept["signing_key_id"], kept["algorithm"], base64.b64decode(kept["key"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        hint = "make one with `mercat keys signing create KEY --out FILE`"
        raise Refusal(f"{path} holds no signing key.", hint) from error


def metadata(signer: Signer | None, authority: str, path: str, message: bytes | None) -> list[tuple[str, str]]:
    """Of a call of gRPC. `message`: its bytes; None for one that streams them."""
    if signer is None:
        return []
    return list(signer.headers("POST", authority, path, message, now=int(time.time())).items())
