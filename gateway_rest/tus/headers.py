"""What tus says in headers."""

from __future__ import annotations

import base64
from datetime import UTC
from email.utils import format_datetime

from mercat.storage.v1 import storage_pb2
from starlette.requests import Request

from gateway_rest.errors import Refusal
from services.common.errors import InvalidFields, Violation

VERSION = "1.0.0"
ALGORITHMS = ("sha256", "sha1", "md5")
# Headers that a page of another origin needs to read.
SHOWN = (
    "location", "mercat-digest", "tus-resumable", "tus-version", "tus-extension", "tus-max-size",
    "tus-checksum-algorithm", "upload-offset", "upload-length", "upload-metadata", "upload-expires",
)  # fmt: skip


def done(upload: storage_pb2.Upload) -> bool:
    return upload.state == storage_pb2.Upload.STATE_COMPLETE


def state(upload: storage_pb2.Upload) -> dict[str, str]:
    """Where an upload is, and until when it is kept; of a complete one what it is."""
    told = {"upload-offset": str(upload.offset)}
    if done(upload):
        return told | {"mercat-digest": upload.digest}
    return told | {"upload-expires": format_datetime(upload.expires_at.ToDatetime(tzinfo=UTC), usegmt=True)}


def number(text: str, name: str) -> int:
    """Raises Refusal."""
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise bad(name, "is a number of bytes")
    return int(text)


def metadata(text: str) -> dict[str, str]:
    """Names and their values. Raises Refusal."""
    found: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = pair.partition(" ")
        try:
            found[name] = base64.b64decode(value.strip(), validate=True).decode()
        except ValueError:
            raise bad("upload-metadata", "is pairs of a name and, in base64, UTF-8") from None
    return found


def checksum(request: Request) -> str:
    """As the contract has it. Raises Refusal."""
    text = request.headers.get("upload-checksum", "")
    if text and text.partition(" ")[0] not in ALGORITHMS:
        raise bad("upload-checksum", f"is one of {', '.join(ALGORITHMS)}, a space and the digest in base64")
    return text


def bad(header: str, problem: str) -> Refusal:
    return Refusal(InvalidFields(violations=[Violation(header, problem)]))
