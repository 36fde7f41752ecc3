"""The chain of an audit log, for who writes it and for who checks it offline.

The hash of an entry is the SHA-256 of its canonical JSON: an object of `version`, `chain`, `sequence`, `audit_id`,
`created_at` (RFC 3339, UTC, six digits of fraction), `user_id`, `key_id`, `action`, `resource_type`, `resource_id`,
`request_id`, `details` and `previous`, all of them strings, names in order, no spaces, UTF-8 unescaped (RFC 8785).
`previous` is the hash of the entry before, zeros for the first; `details` the SHA-256 of the salt and the canonical
JSON of `ip_address`, `user_agent` and `metadata`; hashes are in hexadecimal digits. A head is a JWS of a chain's last
hash."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import jwt
from google.protobuf import json_format
from mercat.auth.v1 import audit_pb2, auth_pb2

from services.common.signing import ALGORITHM, SigningKey

TYPE = "mercat-audit-head+jwt"
ISSUER = "mercat"
PLATFORM = "platform"  # the chain of acts that belong to no organisation
START = bytes(32)
_VERSION = "1"
_MOST = 20  # problems that are told


class NotGenuine(Exception):
    """The text is no head that one of the keys signed; says why."""


def details_hash(entry: audit_pb2.AuditEntry) -> bytes:
    """Of what may be erased."""
    said = {
        "ip_address": entry.ip_address, "user_agent": entry.user_agent,
        "metadata": json_format.MessageToDict(entry.metadata),
    }  # fmt: skip
    return hashlib.sha256(entry.salt + _canonical(said)).digest()


def hash_of(entry: audit_pb2.AuditEntry) -> bytes:
    """What an entry's hash must be, by all of it but `hash`."""
    said = {
        "version": _VERSION, "chain": entry.chain, "sequence": str(entry.sequence), "audit_id": entry.audit_id,
        "created_at": entry.created_at.ToDatetime(UTC).isoformat(timespec="microseconds"), "user_id": entry.user_id,
        "key_id": entry.key_id, "action": entry.action, "resource_type": entry.resource_type,
        "resource_id": entry.resource_id, "request_id": entry.request_id, "details": entry.details_hash.hex(),
        "previous": entry.previous_hash.hex(),
    }  # fmt: skip
    return hashlib.sha256(_canonical(said)).digest()


def _canonical(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def sign(head: audit_pb2.AuditHead, key: SigningKey) -> str:
    """A head as JWS."""
    claims = {
        "iss": ISSUER, "iat": head.signed_at.seconds, "chain": head.chain, "sequence": str(head.sequence),
        "hash": head.hash.hex(), "floor": head.floor,
    }  # fmt: skip
    return key.sign(claims, TYPE)


def read_head(signed: str, keys: Iterable[auth_pb2.JsonWebKey]) -> audit_pb2.AuditHead:
    """What was signed. Raises NotGenuine."""
    try:
        header = jwt.get_unverified_header(signed)
        known = {key.kid: key for key in keys}
        if header.get("typ") != TYPE or (key := known.get(header.get("kid", ""))) is None:
            raise NotGenuine("it is no head that one of these keys signed")
        public = jwt.PyJWK(json_format.MessageToDict(key), ALGORITHM)
        claims = jwt.decode(
            signed, public, algorithms=[ALGORITHM], issuer=ISSUER,
            options={"require": ["iss", "iat", "chain", "sequence", "hash"], "verify_iat": False},
        )  # fmt: skip
        head = audit_pb2.AuditHead(
            chain=claims["chain"], sequence=int(claims["sequence"]), hash=bytes.fromhex(claims["hash"]),
            floor=bool(claims.get("floor")), signed=signed,
        )  # fmt: skip
        head.signed_at.FromSeconds(int(claims["iat"]))
    except jwt.InvalidSignatureError:
        raise NotGenuine("it was changed after it was signed, or another key signed it") from None
    except (jwt.PyJWTError, TypeError, ValueError) as e:
        raise NotGenuine(f"it is no head: {e}") from None
    return head


@dataclass
class Report:
    """What a check found. `signed`: up to which entry the chain is proven; those after it are linked, but whoever can
    write the database could have made them anew. `erased`: entries whose details are gone."""

    entries: int = 0
    first: int = 0
    last: int = 0
    signed: int = 0
    erased: int = 0
    problems: list[str] = field(default_factory=list)

    def add(self, problem: str) -> None:
        if len(self.problems) < _MOST:
            self.problems.append(problem)


def verify(chain: str, entries: Iterable[audit_pb2.AuditEntry], heads: Sequence[audit_pb2.AuditHead]) -> Report:
    """Checks the entries of a chain, oldest first, against what was signed: that none was altered, taken out, put in or
    cut off, and that the chain was not written anew. `heads` are genuine."""
    report = Report()
    signed = {h.sequence: h for h in heads if h.chain == chain and not h.floor}
    floor = max((h for h in heads if h.chain == chain and h.floor), key=lambda h: h.sequence, default=None)
    last, previous = (floor.sequence, floor.hash) if floor is not None else (0, START)
    for entry in entries:
        if floor is not None and entry.sequence <= floor.sequence:
            continue  # about to be dropped
        _check(report, chain, entry, last, previous)
        if (head := signed.get(entry.sequence)) is not None:
            if head.hash != entry.hash:
                report.add(f"entry {entry.sequence} is not what was signed on {_day(head)}: the chain was rewritten")
            report.signed = max(report.signed, entry.sequence)
        report.entries += 1
        report.first = report.first or entry.sequence
        report.erased += not entry.salt
        last, previous = entry.sequence, entry.hash
    report.last = last
    newest = max(signed.values(), key=lambda h: h.sequence, default=None)
    if newest is not None and newest.sequence > last:
        report.add(f"entries {last + 1} to {newest.sequence} were signed on {_day(newest)} and are missing: cut off")
    return report


def _check(report: Report, chain: str, entry: audit_pb2.AuditEntry, last: int, previous: bytes) -> None:
    if entry.chain != chain:
        report.add(f"entry {entry.sequence} is of another chain, {entry.chain}")
    if entry.sequence > last + 1:
        report.add(f"entries {last + 1} to {entry.sequence - 1} are missing")
    elif entry.sequence <= last:
        report.add(f"entry {entry.sequence} comes after entry {last}")
    elif entry.previous_hash != previous:
        report.add(f"entry {entry.sequence} does not follow entry {last}: one of them was altered")
    if entry.hash != hash_of(entry) or not _details_hold(entry):
        report.add(f"entry {entry.sequence} was altered")


def _details_hold(entry: audit_pb2.AuditEntry) -> bool:
    if not entry.salt:  # erased: whatever stands there was put there later
        return not (entry.ip_address or entry.user_agent or entry.metadata.fields)
    return entry.details_hash == details_hash(entry)


def _day(head: audit_pb2.AuditHead) -> str:
    return head.signed_at.ToDatetime(UTC).strftime("%Y-%m-%d %H:%M:%S")


def entry_of(row: Mapping[str, Any]) -> audit_pb2.AuditEntry:
    """The entry in a row of `audit_logs`, which must say its chain and its sequence."""
    entry = audit_pb2.AuditEntry(
        audit_id=row["id"], chain=row["chain"], sequence=row["sequence"], user_id=row["user_id"] or "",
        key_id=row["key_id"], action=row["action"], resource_type=row["resource_type"], resource_id=row["resource_id"],
        request_id=row["request_id"], ip_address=str(row["ip_address"] or ""), user_agent=row["user_agent"],
        salt=row["salt"] or b"", details_hash=row["details_hash"] or b"", previous_hash=row["previous_hash"] or b"",
        hash=row["hash"] or b"",
    )  # fmt: skip
    created: datetime = row["created_at"]
    entry.created_at.FromDatetime(created)
    try:
        json_format.ParseDict(json.loads(row["metadata"]), entry.metadata)
    except json_format.ParseError:  # nothing that Mercat writes
        entry.metadata.update({"unreadable": row["metadata"]})
    return entry
