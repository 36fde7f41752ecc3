"""What names a person is found where it stands, and what stands in the way of a deletion is said."""

import io
import json
import zipfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mercat.billing.v1 import closing_pb2
from mercat.event.v1 import event_pb2

from services.auth.privacy.archive import pack
from services.auth.privacy.marks import Marks
from services.auth.privacy.obstacles import obstacles, pseudonym, theirs

MARKS = Marks("Ada@example.com", ["ada", "ada-inc"], ["Ada Lovelace", ""], [["10.0.0.1", "curl/8"]])


def test_marks_are_what_they_were() -> None:
    assert Marks.load(MARKS.dump()) == MARKS


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({"email": "ADA@example.com"}, True), ({"text": "write to ada@example.com!"}, True),
        ({"username": "ada"}, True), ({"model": "ada/adder"}, True), ({"name": "Ada Lovelace"}, True),
        ({"handle": "ada-inc"}, True), ({"city": "canada"}, False), ({"model": "canada/adder"}, False),
        ({"name": "Adam"}, False), ({"x": ""}, False),
    ],
)  # fmt: skip
def test_marks_in_json(said: dict[str, str], found: bool) -> None:
    text = json.dumps(said, ensure_ascii=False).lower()
    assert any(needle in text for needle in MARKS.in_json()) is found


@pytest.mark.parametrize(
    ("event", "found"),
    [
        (event_pb2.UserSignedUp(email="Ada@example.com"), True),
        (event_pb2.OrganisationCreated(handle="ada"), True),
        (event_pb2.OrganisationCreated(handle="adam"), False),
        (event_pb2.ModelChanged(model="ada/adder"), True),
        (event_pb2.ModelChanged(model="canada/adder"), False),
        (event_pb2.PrincipalChanged(user_id="usr_1"), True),
        (event_pb2.WebhookEvent(body='{"model":"bob/adder","organisation":"ada"}'), True),
        (event_pb2.WebhookEvent(body='{"name":"Ada Lovelace"}'), True),
        (event_pb2.WebhookEvent(body='{"model":"bob/ada","organisation":"adam"}'), False),
    ],
)
def test_marks_in_messages(event: Any, found: bool) -> None:
    assert bool(MARKS.in_bytes("usr_1").search(event.SerializeToString())) is found


@given(st.text(min_size=1, max_size=300))
def test_a_name_of_any_length_is_found_whole(name: str) -> None:
    marks = Marks("a@b.cc", [], [name], [])
    assert marks.in_bytes().search(event_pb2.OrganisationCreated(handle=name).SerializeToString())


def row(handle: str, role: str = "owner", others: int = 0, other_owners: int = 0) -> dict[str, Any]:
    return {"org_id": f"org_{handle}", "handle": handle, "role": role, "others": others, "other_owners": other_owners}


def test_obstacles() -> None:
    nothing = closing_pb2.GetClosingResponse()
    alone, team = row("ada"), row("team", others=2)
    assert obstacles([alone, row("mine")], nothing, only_admin=False) == []
    assert [o.reason for o in obstacles([alone, team], nothing, only_admin=True)] == ["LAST_ADMIN", "LAST_OWNER"]
    assert obstacles([row("t", others=2, other_owners=1), row("u", "viewer", 1)], nothing, only_admin=False) == []
    assert theirs([alone, team]) == [alone]
    owes = closing_pb2.GetClosingResponse(owed_nanos=10**9, pending_count=2, balance_nanos=5 * 10**9, payable_nanos=1)
    found = {o.reason: o for o in obstacles([alone], owes, only_admin=False)}
    assert [r for r, o in found.items() if not o.forfeitable] == ["ACCOUNT_OWES", "PAYMENTS_UNDER_WAY"]
    assert found["ACCOUNT_HOLDS_MONEY"].forfeitable
    assert pseudonym("org_06b3") == "deleted-06b3"


async def test_an_archive_is_made_in_pieces() -> None:
    async def lines(count: int) -> AsyncIterator[bytes]:
        for number in range(count):
            yield f"{number:0100}\n".encode()

    files = [("billing/entries.jsonl", lines(50_000)), ("auth/empty.jsonl", lines(0))]
    pieces = [piece async for piece in pack({"format": "x"}, files, datetime(2030, 1, 2, tzinfo=UTC))]
    archive = zipfile.ZipFile(io.BytesIO(b"".join(pieces)))
    assert archive.testzip() is None
    assert archive.namelist() == ["manifest.json", "billing/entries.jsonl", "auth/empty.jsonl"]
    assert archive.read("auth/empty.jsonl") == b""
    assert archive.read("billing/entries.jsonl").count(b"\n") == 50_000
    assert max(map(len, pieces)) < 1 << 20
