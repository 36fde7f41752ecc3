"""What becomes of an access, and what identifies terms."""

import pytest
from mercat.registry.v1 import visibility_pb2

from services.registry.access.states import DENIED, GRANTED, REQUESTED, REVOKED, AccessState, asked, decided, digest_of

AUTOMATIC, MANUAL = visibility_pb2.APPROVAL_AUTOMATIC, visibility_pb2.APPROVAL_MANUAL


@pytest.mark.parametrize(
    ("state", "approval", "new", "after"),
    [
        (REQUESTED, AUTOMATIC, True, GRANTED),
        (REQUESTED, MANUAL, True, REQUESTED),
        (REQUESTED, AUTOMATIC, False, GRANTED),  # the approval was another when it was asked for
        (REQUESTED, MANUAL, False, REQUESTED),
        (GRANTED, MANUAL, False, GRANTED),  # accepts new terms
        (DENIED, AUTOMATIC, False, REQUESTED),  # who was turned away does not let themselves in
        (REVOKED, AUTOMATIC, False, REQUESTED),
    ],
)
def test_asking(state: int, approval: int, new: bool, after: int) -> None:
    assert asked(state, approval, new=new) == after


def test_decisions_start_from_their_states() -> None:
    allowed = {(REQUESTED, GRANTED), (DENIED, GRANTED), (REVOKED, GRANTED), (REQUESTED, DENIED), (GRANTED, REVOKED)}
    for state in (REQUESTED, GRANTED, DENIED, REVOKED):
        for to in (GRANTED, DENIED, REVOKED):
            if (state, to) in allowed:
                assert decided(state, to) == to
            else:
                with pytest.raises(AccessState):
                    decided(state, to)


def test_terms_are_others_when_any_part_is() -> None:
    def digest(**parts: str) -> str:
        return digest_of(visibility_pb2.Gate(approval=MANUAL, **parts))

    assert digest() == digest(terms_version="1") == ""
    some = [{"terms": "a"}, {"terms": "b"}, {"terms": "a", "terms_version": "2"}, {"terms_url": "https://a.example"},
            {"terms": "", "terms_url": "https://b.example"}]  # fmt: skip
    assert len({digest(**parts) for parts in some}) == len(some)
    assert digest(terms="a") == digest_of(visibility_pb2.Gate(approval=AUTOMATIC, terms="a", terms_digest="x"))
