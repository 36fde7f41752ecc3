"""The files that belong to a version beside its artifact."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from typing import Any

from mercat.registry.v1 import registry_pb2
from mercat.storage.v1 import storage_pb2

from services.common.errors import InvalidFields, NotFound, Violation
from services.registry.cards import front_matter

V = registry_pb2
_MOST_TEXT = 4 * 1024 * 1024  # bytes of labels
_LONGEST_CARD = 200_000  # characters
_MOST_LABELS, _LONGEST_LABEL, _MOST_OUTPUTS = 100_000, 200, 64
_ONCE = {V.FILE_ROLE_TOKENIZER, V.FILE_ROLE_LABELS, V.FILE_ROLE_CARD}


async def stat(storage: Any, field: str, digest: str, org_id: str) -> storage_pb2.StatArtifactResponse:
    """Raises InvalidFields for what the organisation has not uploaded."""
    try:
        found: storage_pb2.StatArtifactResponse = await storage.StatArtifact(
            storage_pb2.StatArtifactRequest(digest=digest, org_id=org_id)
        )
    except NotFound:
        problem = Violation(field, "is not of an upload of yours that is complete")
        raise InvalidFields(violations=[problem], reason="ARTIFACT_NOT_FOUND") from None
    return found


async def describe(storage: Any, given: Sequence[V.VersionFile], org_id: str, document: V.Version) -> None:
    """Puts files into the document of a version: what they are and, of labels and card, what they say. Raises
    InvalidFields."""
    if problems := list(_problems(given)):
        raise InvalidFields(violations=problems)
    for i, file in enumerate(given):
        field = f"files[{i}]"
        size = (await stat(storage, f"{field}.digest", file.digest, org_id)).size_bytes
        document.files.add(name=file.name, role=file.role, digest=file.digest, size_bytes=size)
        if file.role == V.FILE_ROLE_LABELS:
            _label(document, await _text(storage, field, file.digest, size), field)
        elif file.role == V.FILE_ROLE_CARD:
            document.card = await _text(storage, field, file.digest, size)
            if len(document.card) > _LONGEST_CARD:
                raise _bad(field, f"a card has at most {_LONGEST_CARD:,} characters")
            if said := await asyncio.to_thread(front_matter.read, document.card, f"{field}.card"):
                document.card_metadata.CopyFrom(said)


def _problems(given: Sequence[V.VersionFile]) -> Iterator[Violation]:
    names: set[str] = set()
    roles: set[int] = set()
    for i, file in enumerate(given):
        if file.name in names:
            yield Violation(f"files[{i}].name", "is another file's, too")
        if file.role in roles & _ONCE:
            yield Violation(f"files[{i}].role", "only one file may have")
        if file.role not in V.FileRole.values():
            yield Violation(f"files[{i}].role", "is not known")
        names.add(file.name)
        roles.add(file.role)


async def _text(storage: Any, field: str, digest: str, size: int) -> str:
    if size > _MOST_TEXT:
        raise _bad(field, f"has {size:,} bytes; at most {_MOST_TEXT:,}")
    read = bytearray()
    async for piece in storage.FetchArtifact(storage_pb2.FetchArtifactRequest(digest=digest)):
        read += piece.data
    try:
        text = read.decode()
    except UnicodeDecodeError:
        raise _bad(field, "is no UTF-8 text") from None
    if "\0" in text:
        raise _bad(field, "holds a NUL")
    return text


def _label(document: V.Version, text: str, field: str) -> None:
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict) or len(said) > _MOST_OUTPUTS:
        raise _bad(field, "labels are a JSON object of lists, by the names of outputs")
    for name, labels in said.items():
        known = isinstance(labels, list) and len(labels) <= _MOST_LABELS
        if not known or not all(isinstance(label, str) and len(label) <= _LONGEST_LABEL for label in labels):
            raise _bad(field, f"at most {_MOST_LABELS:,} labels of at most {_LONGEST_LABEL} characters each")
        if name in document.labels:
            raise _bad(field, f"labels of {name[:100]!r} are given in the request, too")
        document.labels[name].names.extend(labels)


def _bad(field: str, problem: str) -> InvalidFields:
    return InvalidFields(violations=[Violation(field, problem)])
