"""The chain of an audit log: nothing of it can be changed without being found."""

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from mercat.auth.v1 import audit_pb2 as pb

from services.common.audit_chain import START, NotGenuine, details_hash, hash_of, read_head, sign, verify
from services.common.signing import SigningKey

CHAIN = "org_1"
START_TIME = datetime(2030, 1, 1, tzinfo=UTC)


def chained(count: int, seed: int = 0) -> list[pb.AuditEntry]:
    """So many entries that follow each other."""
    made: list[pb.AuditEntry] = []
    for number in range(1, count + 1):
        entry = pb.AuditEntry(
            audit_id=f"aud_{seed}_{number}", chain=CHAIN, sequence=number, user_id="usr_1", key_id="key_1",
            action="/a.B/C", resource_type="thing", resource_id="t", request_id="req_1", ip_address="127.0.0.1",
            user_agent="é\n\"", salt=os.urandom(16), previous_hash=made[-1].hash if made else START,
        )  # fmt: skip
        entry.created_at.FromDatetime(START_TIME + timedelta(microseconds=number))
        entry.metadata.update({"request": {"name": f"n{number}", "list": ["1", True, None]}})
        entry.details_hash = details_hash(entry)
        entry.hash = hash_of(entry)
        made.append(entry)
    return made


def head_of(entry: pb.AuditEntry, *, floor: bool = False) -> pb.AuditHead:
    return pb.AuditHead(chain=entry.chain, sequence=entry.sequence, hash=entry.hash, floor=floor)


def relink(entries: list[pb.AuditEntry]) -> None:
    """Makes every hash right again, as an attacker would."""
    previous = START
    for number, entry in enumerate(entries, 1):
        entry.sequence, entry.previous_hash = number, previous
        entry.details_hash = details_hash(entry)
        previous = entry.hash = hash_of(entry)


def test_what_was_not_touched_is_intact() -> None:
    entries = chained(5)
    report = verify(CHAIN, entries, [head_of(entries[2]), head_of(entries[3])])
    assert (report.problems, report.entries, report.first, report.last, report.signed) == ([], 5, 1, 5, 4)
    assert verify(CHAIN, [], []).problems == []


def _text(field: str) -> Callable[[pb.AuditEntry], None]:
    return lambda entry: setattr(entry, field, getattr(entry, field) + "x")


def _bytes(field: str) -> Callable[[pb.AuditEntry], None]:
    return lambda entry: setattr(entry, field, bytes([getattr(entry, field)[0] ^ 1]) + getattr(entry, field)[1:])


CHANGES: dict[str, Callable[[pb.AuditEntry], object]] = {
    **{f: _text(f) for f in ("audit_id", "chain", "user_id", "key_id", "action", "resource_type", "resource_id",
                             "request_id", "ip_address", "user_agent")},
    **{f: _bytes(f) for f in ("salt", "details_hash", "previous_hash", "hash")},
    "created_at": lambda e: setattr(e.created_at, "nanos", e.created_at.nanos + 1000),
    "sequence": lambda e: setattr(e, "sequence", e.sequence + 1),
    "metadata": lambda e: e.metadata.update({"request": {"name": "other"}}),
}  # fmt: skip


def test_every_field_is_covered() -> None:
    assert set(CHANGES) == {f.name for f in pb.AuditEntry.DESCRIPTOR.fields}


@pytest.mark.parametrize("field", CHANGES)
@given(count=st.integers(1, 6), where=st.data())
def test_an_altered_entry_is_found(field: str, count: int, where: st.DataObject) -> None:
    entries = chained(count)
    CHANGES[field](where.draw(st.sampled_from(entries)))
    assert verify(CHAIN, entries, []).problems


@given(count=st.integers(3, 8), data=st.data())
def test_an_entry_that_was_taken_out_or_moved_is_found(count: int, data: st.DataObject) -> None:
    entries = chained(count)
    at = data.draw(st.integers(0, count - 2))
    assert verify(CHAIN, entries[:at] + entries[at + 1 :], []).problems
    entries[at], entries[at + 1] = entries[at + 1], entries[at]
    assert verify(CHAIN, entries, []).problems


@given(count=st.integers(2, 8), data=st.data())
def test_a_cut_or_rewritten_chain_is_found_by_what_was_signed(count: int, data: st.DataObject) -> None:
    entries = chained(count)
    head = head_of(entries[data.draw(st.integers(1, count - 1))])
    kept = data.draw(st.integers(0, head.sequence - 1))
    assert "cut off" in verify(CHAIN, entries[:kept], [head]).problems[-1]
    entries[data.draw(st.integers(0, head.sequence - 1))].user_id = "usr_other"
    relink(entries)
    assert verify(CHAIN, entries, []).problems == []  # what only the head knows
    assert "rewritten" in verify(CHAIN, entries, [head]).problems[0]


def test_old_entries_are_dropped_only_where_that_is_signed() -> None:
    entries = chained(6)
    kept, floor = entries[3:], head_of(entries[2], floor=True)
    assert verify(CHAIN, kept, []).problems == ["entries 1 to 3 are missing"]
    assert verify(CHAIN, kept, [floor, head_of(entries[4])]).problems == []
    assert verify(CHAIN, entries[2:], [floor]).problems == []  # not dropped yet
    assert verify(CHAIN, [], [floor, head_of(entries[2])]).problems == []
    assert verify(CHAIN, entries[4:], [floor]).problems == ["entries 4 to 4 are missing"]
    other = chained(6, seed=1)
    assert verify(CHAIN, other[3:], [floor]).problems


def test_erased_details_leave_the_chain_and_nothing_takes_their_place() -> None:
    entries = chained(3)
    erased = entries[1]
    erased.ClearField("ip_address")
    erased.ClearField("user_agent")
    erased.metadata.Clear()
    erased.salt = b""
    report = verify(CHAIN, entries, [])
    assert (report.problems, report.erased) == ([], 1)
    erased.ip_address = "6.6.6.6"
    assert verify(CHAIN, entries, []).problems == ["entry 2 was altered"]


def test_the_problems_of_a_ruin_are_few() -> None:
    entries = chained(200)
    for entry in entries:
        entry.user_id = "usr_x"
    assert len(verify(CHAIN, entries, []).problems) == 20


def test_heads_are_of_their_key_and_as_they_were_signed() -> None:
    key, other = (SigningKey.of(Ed25519PrivateKey.generate()) for _ in range(2))
    head = head_of(chained(1)[0], floor=True)
    head.signed_at.FromDatetime(START_TIME)
    signed = sign(head, key)
    assert read_head(signed, [other.public_jwk(), key.public_jwk()]) == pb.AuditHead(
        chain=CHAIN, sequence=1, hash=head.hash, floor=True, signed_at=head.signed_at, signed=signed
    )
    forged = other.public_jwk()
    forged.kid = key.kid
    front, body, end = signed.split(".")
    for text, keys in (
        (signed, [other.public_jwk()]), (signed, [forged]), (f"{front}.{body}x.{end}", [key.public_jwk()]),
        ("x.y.z", [key.public_jwk()]), ("", [key.public_jwk()]),
        (key.sign({"iss": "mercat"}, "JWT"), [key.public_jwk()]),
        (key.sign({"iss": "mercat", "iat": 1, "chain": "c", "sequence": "x", "hash": ""}, "mercat-audit-head+jwt"),
         [key.public_jwk()]),
    ):  # fmt: skip
        with pytest.raises(NotGenuine):
            read_head(text, keys)
